"""Draws what a trained network has learned: filters, feature maps, predictions, features."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxcnn.analysis.inside import most_certain
from jaxcnn.reporting.figures import OKABE_ITO, make_figure, plain_text

_MAPS = 12  # of a layer
_LAYERS = 9
_SHOWN = 10  # images in a row of the contact sheet
_MARKS = "osDv^"


def draw_filters(name: str, kernels: np.ndarray) -> Any:
    """Draws the filters of a convolution of the image, each on its own scale; gray or color is 0.5.

    Args:
      name: of the convolution.
      kernels: f32[F,kh,kw,C]; filters of other than 1 or 3 channels are drawn as their means.

    Returns:
      The Matplotlib figure.
    """
    kernels = _drawable(kernels)
    count, high, wide, _ = kernels.shape
    title = f"{name}: {count} filters of {high}×{wide}"
    return _draw_filters(kernels, np.abs(kernels).max((1, 2, 3), keepdims=True), title)


def animate_filters(name: str, kernels: Mapping[int, np.ndarray]) -> bytes:
    """Draws how the filters of a convolution of the image change in training.

    Each filter has one scale throughout.

    Args:
      name: of the convolution.
      kernels: {step: f32[F,kh,kw,C]}; filters of other than 1 or 3 channels are drawn as their
        means.

    Returns:
      The content of a GIF file that shows a step every half second and repeats. In a notebook,
      `IPython.display.Image(data=...)` shows it.
    """
    drawable = {step: _drawable(found) for step, found in kernels.items()}
    reach = np.max([np.abs(one).max((1, 2, 3), keepdims=True) for one in drawable.values()], 0)
    frames = []
    for step, found in drawable.items():
        figure = _draw_filters(found, reach, f"{name}, step {step:,}")
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
    content = io.BytesIO()
    options = {"append_images": frames[1:], "duration": [500] * (len(frames) - 1) + [2000]}
    frames[0].save(content, "GIF", save_all=True, loop=0, **options)
    return content.getvalue()


def _drawable(kernels: np.ndarray) -> np.ndarray:
    """Kernels of 1 or 3 channels, which can be drawn in gray or color."""
    return kernels if kernels.shape[-1] in (1, 3) else kernels.mean(-1, keepdims=True)


def _draw_filters(kernels: np.ndarray, reach: np.ndarray, title: str) -> Any:
    """Draws kernels f32[F,kh,kw,1 or 3] from -reach f32[F,1,1,1] to reach."""
    count, high, wide, _ = kernels.shape
    tiles = kernels / np.maximum(2 * reach, 1e-12) + 0.5
    columns = min(count, max(8, round((count * 1.6) ** 0.5)))
    picture = _montage(tiles, columns, gap=max(1, high // 6))
    rows = -(-count // columns)
    figure = make_figure(min(12, 0.55 * columns + 0.4), 0.55 * rows * high / wide + 0.7)
    axes = figure.subplots()
    axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def draw_feature_maps(image: np.ndarray, maps: Mapping[str, np.ndarray], title: str = "") -> Any:
    """Draws an image and, in a row for each layer, the feature maps that vary most.

    Args:
      image: u8[H,W,C] or u8[H,W].
      maps: {layer: f32[h,w,c]}, see `jaxcnn.analysis.feature_maps`. Of more than nine
        layers, evenly spaced ones are drawn.
      title: of the figure.

    Returns:
      The Matplotlib figure. Each map has its own scale.
    """
    names = list(maps)
    if len(names) > _LAYERS:
        names = [names[i] for i in np.linspace(0, len(names) - 1, _LAYERS).round().astype(int)]
    figure = make_figure(12.5, 1.0 * len(names) + 1.6)
    grid = figure.add_gridspec(len(names) + 1, 1, height_ratios=[1.3, *[1] * len(names)])
    top = figure.add_subplot(grid[0])
    top.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    top.set_axis_off()
    for i, name in enumerate(names, 1):
        found = maps[name]
        chosen = np.sort(np.argsort(-found.std((0, 1)), kind="stable")[:_MAPS])
        tiles = np.moveaxis(found[..., chosen], -1, 0)
        low, high = (f(tiles, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
        scaled = (tiles - low) / np.maximum(high - low, 1e-12)
        axes = figure.add_subplot(grid[i])
        gap = max(1, found.shape[0] // 14)
        axes.imshow(_montage(scaled[..., None], _MAPS, gap).squeeze(), cmap="viridis", vmin=0)
        axes.set(xticks=[], yticks=[])
        size = "×".join(map(str, found.shape))
        axes.set_ylabel(f"{name}\n{size}", rotation=0, ha="right", va="center", fontsize=8)
        for side in axes.spines.values():
            side.set_visible(False)
    figure.suptitle(plain_text(title))
    return figure


def _montage(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Tiles f32[N,h,w,C] in rows, as f32[H,W,C]; NaN, which is drawn white, between them."""
    count, high, wide, channels = tiles.shape
    rows = -(-count // columns)
    fill = np.nan if channels == 1 else 1.0
    picture = np.full((rows * (high + gap) - gap, columns * (wide + gap) - gap, channels), fill)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (high + gap), (i % columns) * (wide + gap)
        picture[y : y + high, x : x + wide] = tile
    return picture


def draw_contact_sheet(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> Any:
    """Draws the most confident predictions: two rows of correct ones, and two of wrong ones.

    Args:
      images: u8[N,H,W,C].
      labels: i32[N].
      probabilities: f32[N,K].
      names: of the classes.

    Returns:
      The Matplotlib figure.
    """
    right, wrong = most_certain(probabilities, labels, 2 * _SHOWN)
    rows = [(f"most confident, correct ({len(right)} shown)", right, OKABE_ITO["green"])]
    rows.append((f"most confident, wrong ({len(wrong)} shown)", wrong, OKABE_ITO["vermilion"]))
    figure = make_figure(13, 7.4)
    predicted = probabilities.argmax(1)
    for part, (title, chosen, color) in zip(figure.subfigures(2, 1), rows):
        part.suptitle(title if chosen else f"{title.split(' (')[0]}: none", fontsize=11)
        grid = list(part.subplots(2, _SHOWN).flat)
        for axes in grid:
            axes.set_axis_off()
        for axes, i in zip(grid, chosen):
            _draw_prediction(axes, images[i], color)
            text = f"{_short(names[predicted[i]])} {probabilities[i].max():.1%}"
            if predicted[i] != labels[i]:
                text += f"\nis {_short(names[labels[i]])}"
            axes.set_title(text, fontsize=7.5)
    return figure


def _draw_prediction(axes: Any, image: np.ndarray, color: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    high, wide = image.shape[:2]
    corners = [-0.5, wide - 0.5, wide - 0.5, -0.5, -0.5], [-0.5, -0.5, high - 0.5, high - 0.5, -0.5]
    axes.plot(*corners, color=color, lw=3, clip_on=False)


def _short(name: str, room: int = 12) -> str:
    name = re.sub(r"^n\d{8} ", "", name).split(",")[0]
    return plain_text(name if len(name) <= room else f"{name[: room - 1]}…")


def draw_embedding(
    places: np.ndarray, labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> Any:
    """Draws features in two dimensions, by class; wrong predictions have a black rim.

    Args:
      places: f32[N,2], see `jaxcnn.analysis.inside.embed`.
      labels: i32[N].
      predicted: i32[N].
      names: of the classes. Of more than twenty, the most frequent ones have colors.

    Returns:
      The Matplotlib figure.
    """
    colors = [c for name, c in OKABE_ITO.items() if name != "black"]
    classes, counts = np.unique(labels, return_counts=True)
    shown = classes[np.sort(np.argsort(-counts, kind="stable")[:20])]
    figure = make_figure(9, 6.5)
    axes = figure.subplots()
    rest = ~np.isin(labels, shown)
    if rest.any():
        axes.scatter(*places[rest].T, s=10, color="0.8", label="other classes")
    for i, one in enumerate(shown):
        here = labels == one
        rims = np.where(predicted[here] == one, "none", "black")
        style = {
            "s": 22, "color": colors[i % len(colors)],
            "marker": _MARKS[i // len(colors) % len(_MARKS)],
        }  # fmt: skip
        axes.scatter(*places[here].T, edgecolors=rims, linewidths=1.0, **style)
        axes.scatter([], [], label=_short(names[one], 20), **style)  # for the legend
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{len(labels):,} test examples by the features before the classifier (t-SNE)\n"
        "wrong predictions have a black rim; distances between groups mean little",
        fontsize=10,
    )
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure
