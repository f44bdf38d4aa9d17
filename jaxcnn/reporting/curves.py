"""Draws the error curves of a run: `curves.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.reporting.figures import make_figure, save

CURVES = "curves.png"


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Draws the training and test error of a run against epochs.

    Args:
      rows: of `metrics.jsonl`.
      path: of the figure, .png, .svg or .pdf.
      title: of the figure.
    """
    evaluations = [row for row in rows if row["kind"] == "eval"]
    epochs = [row["epoch"] for row in evaluations]
    figure = make_figure(7, 4.5)
    axes = figure.subplots()
    train = [100 * row.get("train_top1_error", np.nan) for row in evaluations]
    test = [100 * row["top1_error"] for row in evaluations]
    axes.plot(epochs, train, "--", marker=".", color="tab:blue", label="train (augmented)")
    label = f"test (last {test[-1]:.2f} %)" if test else "test"
    axes.plot(epochs, test, marker=".", color="tab:orange", label=label)
    axes.set(xlabel="epoch", ylabel="error (%)", title=title)
    shown = [v for v in train + test if np.isfinite(v) and v > 0]
    if shown and max(shown) > 20 * min(shown):
        from matplotlib import ticker

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    save(figure, path)
