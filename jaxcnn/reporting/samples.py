"""Pictures of examples: predictions of held-out images, and training samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcnn.reporting.figures import make_figure

PREDICTIONS = "predictions.png"

_COLUMNS, _ROWS = 10, 6
_LETTERS = 15  # of a title, so that those of neighbors do not touch
_SAMPLE_COLUMNS = 8


def plot_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
) -> None:
    """Draws held-out images with what was predicted; a mistake is red and names the truth.

    All mistakes come first, as far as half the room; then the others, of all classes in turn.

    Args:
      images: u8[N,H,W,C], C 1 or 3.
      labels, predicted: i32[N].
      class_names: a name for each class.
      path: of the PNG file.
    """
    order = prediction_order(labels, predicted, _COLUMNS * _ROWS)
    rows = max(1, -(-len(order) // _COLUMNS))
    figure = make_figure(_COLUMNS, 1.25 * rows + 0.5)
    wrong = int((labels != predicted).sum())
    figure.suptitle(f"{wrong} of {len(labels)} wrong ({100 * wrong / len(labels):.2f} %)")
    for axes in figure.subplots(rows, _COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, i in zip(figure.axes, order):
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255)
        text, color = _shortened(class_names[predicted[i]], _LETTERS), "black"
        if labels[i] != predicted[i]:
            truth = class_names[labels[i]]
            joined = f"{class_names[predicted[i]]}, not {truth}"
            short = f"{text},\nnot {_shortened(truth, _LETTERS - 4)}"
            text, color = joined if len(joined) <= _LETTERS else short, "red"
            side = axes.patch
            axes.add_patch(
                type(side)((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=color, lw=3)
            )
        axes.set_title(text, color=color, fontsize=9)
    figure.savefig(path)


def plot_samples(
    images: np.ndarray, titles: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draws images u8[N,H,W,C], C 1 or 3, each under its title."""
    columns = min(_SAMPLE_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = make_figure(1.6 * columns, 1.85 * rows + 0.4)
    figure.suptitle(title)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, text in zip(figure.axes, images, titles):
        shown = image.squeeze(-1) if image.shape[-1] == 1 else image
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
        axes.set_title("\n".join(_shortened(line) for line in text.split("\n")), fontsize=8)
    figure.savefig(path)


def _shortened(text: str, room: int = 23) -> str:
    """The text as a title: what is too long or cannot be drawn is replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")
    return text if len(text) <= room else f"{text[: room - 1]}…"


def prediction_order(labels: np.ndarray, predicted: np.ndarray, room: int) -> np.ndarray:
    """Which examples are drawn: mistakes up to half the room, then correct ones of all classes."""
    mistakes = np.flatnonzero(labels != predicted)[: room // 2]
    correct = np.flatnonzero(labels == predicted)
    if len(correct):  # folders come class by class: the first of each, the second of each, ...
        own = labels[correct]
        rank = np.array([np.sum(own[:i] == label) for i, label in enumerate(own)])
        correct = correct[np.lexsort((correct, rank))]
    return np.concatenate([mistakes, correct[: room - len(mistakes)]])
