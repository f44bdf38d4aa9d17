"""Draws examples: test images with their predictions, and training samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcnn.reporting.figures import make_figure, save

PREDICTIONS = "predictions.png"

_COLUMNS, _ROWS = 10, 6
_LETTERS = 15  # of a title, so that adjacent titles do not touch
_SAMPLE_COLUMNS = 8


def plot_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    path: str | Path,
) -> None:
    """Draws test images with their predictions; mistakes are red and show the label as well.

    Mistakes come first and take up to half the space, followed by correct predictions of all
    classes in turn.

    Args:
      images: u8[N,H,W,C], C 1 or 3.
      labels: i32[N].
      predicted: i32[N], the predicted classes.
      class_names: name of each class.
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
    save(figure, path)


def plot_samples(
    images: np.ndarray, titles: Sequence[str], path: str | Path, title: str = ""
) -> None:
    """Draws images in a grid, each under its title.

    Args:
      images: u8[N,H,W,C], C 1 or 3.
      titles: of the images.
      path: of the figure, .png, .svg or .pdf.
      title: of the figure.
    """
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
    save(figure, path)


def _shortened(text: str, room: int = 23) -> str:
    """The text as a title: shortened, and without characters that cannot be drawn."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")
    return text if len(text) <= room else f"{text[: room - 1]}…"


def prediction_order(labels: np.ndarray, predicted: np.ndarray, room: int) -> np.ndarray:
    """Selects the examples to draw: mistakes, then correct predictions of all classes in turn.

    Args:
      labels: i32[N].
      predicted: i32[N], the predicted classes.
      room: maximum number of examples; mistakes take at most half of it.

    Returns:
      Indices of the examples.
    """
    mistakes = np.flatnonzero(labels != predicted)[: room // 2]
    correct = np.flatnonzero(labels == predicted)
    if len(correct):  # the first example of each class, then the second of each, ...
        classes = labels[correct]
        rank = np.array([np.sum(classes[:i] == label) for i, label in enumerate(classes)])
        correct = correct[np.lexsort((correct, rank))]
    return np.concatenate([mistakes, correct[: room - len(mistakes)]])
