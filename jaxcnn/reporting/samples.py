"""Draws examples: test images with their predictions, and training samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcnn.reporting.figures import make_figure, plain_text, save

PREDICTIONS = "predictions.png"

_COLUMNS, _ROWS = 10, 6
_LETTERS = 15  # of a title, so that adjacent titles do not touch
_SAMPLE_COLUMNS = 8
_CELL_HEIGHT = 1.4  # of an image and its title, in widths of a cell
_MARGIN = 0.04  # around an image, in widths of a cell


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
    titles = []
    for i in order:
        name, truth = class_names[predicted[i]], class_names[labels[i]]
        title, joined = _shortened(name, _LETTERS), f"{name}, not {truth}"
        if labels[i] != predicted[i]:
            short = f"{title},\nnot {_shortened(truth, _LETTERS - 4)}"
            title = _shortened(joined, _LETTERS) if len(joined) <= _LETTERS else short
        titles.append(title)
    wrong = int((labels != predicted).sum())
    head = f"{wrong} of {len(labels)} wrong ({100 * wrong / len(labels):.2f} %)"
    marked = labels[order] != predicted[order]
    _draw_grid(images[order], titles, path, head, columns=_COLUMNS, marked=marked)


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
    shortened = ["\n".join(map(_shortened, text.split("\n"))) for text in titles]
    _draw_grid(images, shortened, path, title, columns=min(_SAMPLE_COLUMNS, len(images)))


def _draw_grid(
    images: np.ndarray,
    titles: Sequence[str],
    path: str | Path,
    head: str,
    *,
    columns: int,
    marked: np.ndarray | None = None,
) -> None:
    """Draws images in rows, each under its title, and those that are marked in red.

    One set of axes holds all of them: an own one for each image takes seconds.

    Args:
      images: u8[N,H,W,C], C 1 or 3.
      titles: of the images, one or two lines each.
      path: of the figure.
      head: title of the figure.
      columns: number of images in a row.
      marked: bool[N].
    """
    rows = max(1, -(-len(images) // columns))
    height, width = images.shape[1:3]
    side = max(height, width)
    figure = make_figure(1.3 * columns, 1.3 * _CELL_HEIGHT * rows + 0.5)
    figure.suptitle(plain_text(head))
    axes = figure.subplots()
    axes.set_axis_off()
    for i, (image, title) in enumerate(zip(images, titles)):
        x, y = i % columns + 0.5, (i // columns + 1) * _CELL_HEIGHT - _MARGIN
        half, tall = (0.5 - _MARGIN) * width / side, (1 - 2 * _MARGIN) * height / side
        shown = image.squeeze(-1) if image.shape[-1] == 1 else image
        extent = (x - half, x + half, y, y - tall)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=extent)
        color = "red" if marked is not None and marked[i] else "black"
        axes.text(x, y - tall - _MARGIN, title, color=color, fontsize=8, ha="center", va="bottom")
        if color == "red":
            axes.plot(
                np.array(extent)[[0, 1, 1, 0, 0]], np.array(extent)[[2, 2, 3, 3, 2]], "r", lw=3
            )
    axes.set(xlim=(0, columns), ylim=(rows * _CELL_HEIGHT, 0), aspect="equal")
    save(figure, path)


def _shortened(text: str, room: int = 23) -> str:
    """The text as a title: shortened, and without characters that cannot be drawn."""
    return plain_text(text if len(text) <= room else f"{text[: room - 1]}…")


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
