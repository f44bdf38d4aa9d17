"""The predictions of a run on a page: confusion matrix, errors by class, pictures."""

from __future__ import annotations

import base64
import html
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcnn.reporting.html.content import RunContent
from jaxcnn.reporting.html.tables import number, table, text

SAMPLES = "samples.png"  # in a run's directory, written by `jaxcnn show-data`

_MOST_CLASSES = 40  # in a confusion matrix; of more classes only the tables are shown
_MOST_MISTAKES = 40  # lines of the table of mistakes


class Confusion(NamedTuple):
    """How often the examples of a class were predicted as a class.

    Attributes:
      names: of the classes.
      counts: {(class, predicted class): number of examples}.
    """

    names: Sequence[str]
    counts: Mapping[tuple[int, int], int]

    def total(self) -> int:
        """Returns the number of examples."""
        return sum(self.counts.values())

    def wrong(self) -> int:
        """Returns the number of examples whose class was not predicted."""
        return sum(count for (label, other), count in self.counts.items() if label != other)


def confusion(summary: Mapping[str, Any], class_names: Sequence[str]) -> Confusion | None:
    """Counts the predictions of a run; None if it has none.

    Args:
      summary: content of `run_summary.json`.
      class_names: of the run; classes beyond them are named by their index.
    """
    counts = Counter(zip(summary.get("labels", ()), summary.get("predicted", ())))
    if not counts:
        return None
    count = 1 + max(index for pair in counts for index in pair)
    names = [*map(str, class_names), *map(str, range(len(class_names), count))]
    return Confusion(names, counts)


def confusion_data(found: Confusion) -> dict[str, Any] | None:
    """Describes the chart of a confusion matrix as JSON; None if it has too many classes."""
    classes = range(len(found.names))
    if len(classes) > _MOST_CLASSES:
        return None
    counts = [[found.counts.get((i, j), 0) for j in classes] for i in classes]
    return {"counts": counts, "names": list(found.names)}


def class_table(found: Confusion, name: str) -> str:
    """Formats precision, recall and the most frequent mistake of each class that has examples.

    Args:
      found: the predictions.
      name: id of the table.
    """
    totals: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    worst: dict[int, tuple[int, int]] = {}  # of a class: (examples, predicted class)
    for (label, other), count in sorted(found.counts.items()):
        totals[label] += count
        predicted[other] += count
        if label != other and count > worst.get(label, (0, 0))[0]:
            worst[label] = (count, other)
    rows = []
    for label in sorted(totals):
        right = found.counts.get((label, label), 0)
        often = f"{found.names[worst[label][1]]} ({worst[label][0]})" if label in worst else ""
        rows.append(
            [
                text(found.names[label]),
                number(totals[label]),
                number(totals[label] - right),
                number(right / predicted[label] if predicted[label] else None, ".1f", 100),
                number(right / totals[label], ".1f", 100),
                text(often),
            ]
        )
    header = ("class", "examples", "wrong", "precision %", "recall %", "most often mistaken for")
    return table(header, rows, name=name)


def mistake_table(found: Confusion, name: str) -> str:
    """Formats the most frequent pairs of a class and a wrong prediction.

    Args:
      found: the predictions.
      name: id of the table.
    """
    wrong = [(-count, pair) for pair, count in found.counts.items() if pair[0] != pair[1]]
    rows = [
        [text(found.names[label]), text(found.names[other]), number(-count)]
        for count, (label, other) in sorted(wrong)[:_MOST_MISTAKES]
    ]
    if not rows:
        return "<p>No mistakes.</p>"
    return table(("class", "prediction", "examples"), rows, name=name)


def section(content: RunContent, title: str, index: int, *, opened: bool) -> str:
    """Formats what a page shows of a run's predictions and pictures, in a box that opens.

    Args:
      content: of the run.
      title: of the box.
      index: of the run, for the ids of tables and charts.
      opened: whether the box is open at first.
    """
    found = confusion(content.summary, content.run.manifest.get("class_names") or [])
    parts = []
    if found is not None:
        total, wrong = found.total(), found.wrong()
        parts.append(
            f"<p>{wrong:,} of the first {total:,} test examples are wrong "
            f"({100 * wrong / total:.2f} %), after step {content.summary.get('step', 0):,}.</p>"
        )
        chart = f'<div class="chart matrix" id="confusion{index}"></div>'
        parts.append(
            f'<div class="side">{chart if confusion_data(found) else ""}'
            f"<div><h4>Mistakes</h4>{mistake_table(found, f'mistakes{index}')}</div>"
            f"<div><h4>Classes</h4>{class_table(found, f'classes{index}')}</div></div>"
        )
    else:
        parts.append("<p>The predictions are written at the end of the run.</p>")
    parts += [picture(name, data) for name, data in content.pictures.items()]
    if SAMPLES not in content.pictures:
        run, out = (shlex.quote(f"{content.run.name}{end}") for end in ("", f"/{SAMPLES}"))
        command = html.escape(f"jaxcnn show-data {run} --out {out}")
        parts.append(f"<p>To see training samples here: <code>{command}</code></p>")
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
        f'<figure><figcaption>{words}</figcaption><img class="fits" '
        f'alt="{words}" src="data:image/png;base64,{data}"></figure>'
    )
