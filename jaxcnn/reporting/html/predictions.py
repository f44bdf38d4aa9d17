"""The predictions of a run on a page: confusion matrix, errors by class, pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.reporting.html.content import RunContent
from jaxcnn.reporting.html.tables import Cell, number, table, text

_MOST_CLASSES = 40  # in a confusion matrix; of more classes only the table is shown
_MOST_MISTAKES = 40  # lines of the table of mistakes


def confusion(summary: Mapping[str, Any], class_names: Sequence[str]) -> np.ndarray | None:
    """Counts the predictions of a run.

    Args:
      summary: content of `run_summary.json`.
      class_names: of the run.

    Returns:
      i64[K,K], the examples of each class (row) that are predicted as each class (column); None if
      the run has no predictions.
    """
    labels, predicted = (summary.get(name) or [] for name in ("labels", "predicted"))
    if not labels:
        return None
    count = max(len(class_names), max(labels) + 1, max(predicted) + 1)
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (np.array(labels), np.array(predicted)), 1)
    return matrix


def confusion_data(matrix: np.ndarray, names: Sequence[str]) -> dict[str, Any] | None:
    """Describes the chart of a confusion matrix as JSON; None if it has too many classes.

    Args:
      matrix: i64[K,K].
      names: of the classes.
    """
    if len(matrix) > _MOST_CLASSES:
        return None
    return {"counts": matrix.tolist(), "names": list(map(str, names))}


def class_table(matrix: np.ndarray, names: Sequence[str], name: str) -> str:
    """Formats precision, recall and the most frequent mistake of each class that has examples.

    Args:
      matrix: i64[K,K].
      names: of the classes.
      name: id of the table.
    """
    rows = []
    for index, (counts, predicted) in enumerate(zip(matrix, matrix.sum(0))):
        total, right = int(counts.sum()), int(counts[index])
        if not total:
            continue
        others = counts.copy()
        others[index] = 0
        worst = int(others.argmax())
        rows.append(
            [
                text(names[index]),
                number(total),
                number(total - right),
                number(right / int(predicted) if predicted else None, ".1f", 100),
                number(right / total, ".1f", 100),
                text(f"{names[worst]} ({others[worst]})" if others[worst] else ""),
            ]
        )
    header = ("class", "examples", "wrong", "precision %", "recall %", "most often mistaken for")
    return table(header, rows, name=name)


def mistake_table(matrix: np.ndarray, names: Sequence[str], name: str) -> str:
    """Formats the most frequent pairs of a class and a wrong prediction.

    Args:
      matrix: i64[K,K].
      names: of the classes.
      name: id of the table.
    """
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES]
    rows: list[list[Cell]] = []
    for flat in order:
        label, predicted = divmod(int(flat), len(matrix))
        if count := int(wrong[label, predicted]):
            rows.append([text(names[label]), text(names[predicted]), number(count)])
    if not rows:
        return "<p>No mistakes.</p>"
    return table(("class", "prediction", "examples"), rows, name=name, left=2)


def section(content: RunContent, title: str, index: int, *, opened: bool) -> str:
    """Formats what a page shows of a run's predictions and pictures, in a box that opens.

    Args:
      content: of the run.
      title: of the box.
      index: of the run, for the ids of tables and charts.
      opened: whether the box is open at first.
    """
    names = content.run.manifest.get("class_names") or []
    matrix = confusion(content.summary, names)
    parts = []
    if matrix is not None:
        names = [*names, *map(str, range(len(names), len(matrix)))]
        total, right = int(matrix.sum()), int(np.trace(matrix))
        parts.append(
            f"<p>{total - right:,} of the first {total:,} test examples are wrong "
            f"({100 * (1 - right / total):.2f} %), after step "
            f"{content.summary.get('step', 0):,}.</p>"
        )
        chart = f'<div class="chart matrix" id="confusion{index}"></div>'
        mistakes = mistake_table(matrix, names, f"mistakes{index}")
        classes = class_table(matrix, names, f"classes{index}")
        parts.append(
            f'<div class="side">{chart if len(matrix) <= _MOST_CLASSES else ""}'
            f"<div><h4>Mistakes</h4>{mistakes}</div><div><h4>Classes</h4>{classes}</div></div>"
        )
    else:
        parts.append("<p>The predictions are written at the end of the run.</p>")
    parts += [picture(name, data) for name, data in content.pictures.items()]
    body = "\n".join(parts)
    return (
        f'<details id="run{index}"{" open" if opened else ""}>'
        f"<summary>{html.escape(title)}</summary>\n{body}</details>"
    )


def picture(title: str, png: bytes) -> str:
    """Formats a picture inside the page; a click shows it in its full size."""
    data = base64.b64encode(png).decode("ascii")
    words = html.escape(title)
    return (
        f'<figure><figcaption>{words}</figcaption><img class="fits" loading="lazy" '
        f'alt="{words}" src="data:image/png;base64,{data}"></figure>'
    )
