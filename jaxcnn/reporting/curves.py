"""Draws the error, the loss and the learning rate of a run: `curves.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.reporting.figures import make_figure, plain_text, save

CURVES = "curves.png"


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draws the training and test error and loss of a run, and its learning rate, against epochs.

    Args:
      rows: of `metrics.jsonl`.
      path: of the figure, .png, .svg or .pdf.
      title: of the figure.
    """
    figure = make_figure(13, 4.2)
    errors, losses, rates = figure.subplots(1, 3)
    evaluations = [row for row in rows if row["kind"] == "eval"]
    _draw_both(errors, evaluations, "top1_error", 100, " %")
    _draw_both(losses, evaluations, "loss", 1, "")
    errors.set(xlabel="epoch", ylabel="error (%)")
    losses.set(xlabel="epoch", ylabel="loss")
    training = [row for row in rows if row["kind"] == "train" and "learning_rate" in row]
    values = [row["learning_rate"] for row in training]
    rates.plot([row["epoch"] for row in training], values, color="tab:green")
    rates.set(xlabel="epoch", ylabel="learning rate")
    _set_scale(rates, values)
    rates.grid(alpha=0.3, which="both")
    figure.suptitle(plain_text(title))
    save(figure, path)


def _draw_both(
    axes: Any, evaluations: Sequence[Mapping[str, Any]], name: str, scale: float, unit: str
) -> None:
    """A quantity on the training images, as a dashed line, and on the test images."""
    epochs = [row["epoch"] for row in evaluations]
    train = [scale * row.get(f"train_{name}", np.nan) for row in evaluations]
    test = [scale * row[name] for row in evaluations]
    axes.plot(epochs, train, "--", marker=".", color="tab:blue", label="train (augmented)")
    label = f"test (last {test[-1]:.3g}{unit})" if test else "test"
    axes.plot(epochs, test, marker=".", color="tab:orange", label=label)
    _set_scale(axes, train + test)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def _set_scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers where the values differ by more than a factor of 20."""
    shown = [value for value in values if np.isfinite(value) and value > 0]
    if not shown or max(shown) <= 20 * min(shown):
        axes.set_ylim(bottom=0)
        return
    from matplotlib import ticker

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
