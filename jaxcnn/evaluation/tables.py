"""Tables of evaluation results, and the confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.evaluation import ensembles
from jaxcnn.metrics import classification
from jaxcnn.reporting.tables import text_table


def row(
    name: str, probabilities: np.ndarray, labels: np.ndarray, *, bootstrap: int = 0
) -> dict[str, Any]:
    """Computes the errors and the calibration of a network for the table.

    Args:
      name: of the row.
      probabilities: f32[N,K].
      labels: i32[N].
      bootstrap: number of samples for the confidence interval of the top-1 error; 0 for none.

    Returns:
      {column: value}. Errors are fractions; `wrong` and `examples` are counts. The calibration
      error is None if a probability is NaN.
    """
    top1, top5 = (classification.is_wrong(probabilities, labels, k) for k in (1, 5))
    calibration = classification.calibration_error(probabilities, labels)
    values: dict[str, Any] = {
        "name": name,
        "wrong": int(top1.sum()),
        "examples": len(labels),
        "top1_error": float(top1.mean()),
        "top5_error": float(top5.mean()),
        "calibration_error": None if np.isnan(calibration) else calibration,
        "class_errors": [
            None if np.isnan(e) else float(e)
            for e in classification.class_errors(
                classification.confusion_matrix(probabilities, labels)
            )
        ],
    }
    if bootstrap:
        values["top1_interval"] = classification.bootstrap_interval(top1, bootstrap)
    return values


COMBINATIONS = ("mean of probabilities", "mean of logits", "normalized by image")
LEARNED = ("weighted by class", "weighted by accuracy", "weighted", "greedy selection")


def combinations(
    predictions: np.ndarray, labels: np.ndarray, fit: float = 0.0
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """Combines the predictions of several networks in all available ways.

    Args:
      predictions: probabilities f32[M,N,K].
      labels: i32[N].
      fit: fraction of the examples on which weights are learned, always the same ones; 0 for none.

    Returns:
      (name, probabilities f32[N,K]) of each combination, and the indices of the other examples, for
      which errors may be reported.

    Raises:
      ValueError: the fraction leaves no example on one side.
    """
    members = jnp.asarray(predictions)
    combined_by_name = [
        ("mean of probabilities", ensembles.mean(members)),
        ("mean of logits", ensembles.geometric(members)),
        ("normalized by image", ensembles.normalized(members)),
    ]
    order = np.random.RandomState(0).permutation(len(labels))
    cut = round(fit * len(labels))
    learn, kept = np.sort(order[:cut]), np.sort(order[cut:])
    if fit and not (len(learn) and len(kept)):
        raise ValueError(
            f"--fit is {fit:g}; of {len(labels)} examples that leaves none to fit on or to evaluate"
        )
    if len(learn):
        given, truth = members[:, learn], jnp.asarray(labels[learn])
        by_class = jnp.asarray(ensembles.learn_class_weights(given, truth), members.dtype)
        combined_by_name.append(("weighted by class", ensembles.class_weighted(members, by_class)))
        for name, weights in (
            ("weighted by accuracy", ensembles.learn_accuracies(given, truth)),
            ("weighted", ensembles.learn_weights(given, truth)),
            ("greedy selection", ensembles.select_greedily(given, truth)),
        ):
            combined_by_name.append((name, ensembles.weighted(members, jnp.asarray(weights))))
    return [(name, np.asarray(combined)) for name, combined in combined_by_name], kept


def text(rows: Sequence[Mapping[str, Any]], best: float | None = None) -> str:
    """Formats rows as aligned text.

    Args:
      rows: see `row`.
      best: top-1 error of the best single network, to add a column with the gain over it; None for
        no such column.
    """
    top5 = any(len(row["class_errors"]) > 5 for row in rows)  # else it is 0
    lines = [["network", "wrong", "top-1 %", *["top-5 %"] * top5, "ECE %"]]
    intervals = any("top1_interval" in row for row in rows)
    lines[0] += ["95 % interval"] * intervals + ["gain"] * (best is not None)
    for row in rows:
        keys = ("top1_error", *["top5_error"] * top5, "calibration_error")
        values = (row[key] for key in keys)
        line = [
            row["name"],
            f"{row['wrong']:,}",
            *("-" if value is None else f"{100 * value:.2f}" for value in values),
        ]
        if intervals:
            line.append(" to ".join(f"{100 * end:.2f}" for end in row["top1_interval"]))
        if best is not None:
            line.append(f"{100 * (best - row['top1_error']):+.2f}")
        lines.append(line)
    return text_table(lines[0], lines[1:])


def class_text(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> str:
    """Formats a table of each class's precision and recall, and its most frequent wrong prediction.

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      names: of the classes.
    """
    table = classification.confusion_matrix(probabilities, labels)
    lines = [["class", "examples", "wrong", "precision %", "recall %", "mistaken for"]]
    for index, (counts, predicted) in enumerate(zip(table, table.sum(0))):
        total, right = int(counts.sum()), int(counts[index])
        others = counts.copy()
        others[index] = 0
        worst = int(others.argmax())
        rates = (f"{100 * right / count:.2f}" if count else "" for count in (predicted, total))
        taken = f"{names[worst]} ({others[worst]})" if others[worst] else ""
        lines.append([names[index], f"{total:,}", f"{total - right:,}", *rates, taken])
    return text_table(lines[0], lines[1:])


def draw_confusion(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], path: str
) -> None:
    """Draws the confusion matrix into a file, see `confusion_figure`.

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      names: of the classes.
      path: of the figure, .png, .svg or .pdf.
    """
    from jaxcnn.reporting.figures import save

    save(confusion_figure(probabilities, labels, names), path)


def confusion_figure(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Any:
    """Draws the confusion matrix, each row as fractions of its class, with precision and recall.

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      names: of the classes.

    Returns:
      The Matplotlib figure. Of up to 20 classes it shows the counts, each class's recall at the
      right and its precision below.
    """
    from jaxcnn.reporting.figures import make_figure, plain_text

    names = [*map(plain_text, names)]
    table = classification.confusion_matrix(probabilities, labels)
    fractions = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(12.0, 3 + 0.45 * len(names))
    figure = make_figure(side + 1.5, side)
    axes = figure.subplots()
    picture = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="fraction of the class")
    wrong = 100 * (1 - np.trace(table) / max(table.sum(), 1))
    title = f"Confusion matrix: {wrong:.2f} % of {table.sum():,} examples wrong"
    axes.set(xlabel="prediction", ylabel="class", title=title)
    if len(names) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 20:
        for i, j in zip(*np.nonzero(table)):
            color = "white" if fractions[i, j] > 0.5 else "black"
            axes.text(j, i, str(table[i, j]), ha="center", va="center", color=color, fontsize=8)
        _add_rates(axes, table, names)
    return figure


def _add_rates(axes: Any, table: np.ndarray, names: Sequence[str]) -> None:
    """Recall at the right of the rows and precision below the columns, in percent."""
    count, right = len(table), np.diag(table)
    style = {"ha": "center", "va": "center", "fontsize": 8, "color": "0.3"}
    for i in range(count):
        for x, y, total in ((count + 0.1, i, table[i].sum()), (i, count + 0.1, table[:, i].sum())):
            axes.text(x, y, f"{100 * right[i] / total:.0f}" if total else "–", **style)
    ticks = [*range(count), count + 0.1]
    axes.set_xticks(ticks, [*names, "recall %"], rotation=90)
    axes.set_yticks(ticks, [*names, "precision %"])
    axes.axvline(count - 0.5, color="0.3", lw=0.8)
    axes.axhline(count - 0.5, color="0.3", lw=0.8)
    axes.set(xlim=(-0.5, count + 0.7), ylim=(count + 0.7, -0.5))
