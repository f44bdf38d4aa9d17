"""Draws receptive fields: those of a network on a photo, and those of stacked kernels on pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from PIL import Image

from jaxcnn.analysis.receptive_field import ReceptiveField, receptive_fields
from jaxcnn.analysis.trace import Size, input_size_of
from jaxcnn.reporting.figures import OKABE_ITO, make_figure, place_labels

_COLORS = tuple(OKABE_ITO[name] for name in ("vermilion", "yellow", "sky blue", "purple", "green"))


def draw_receptive_fields(
    model: nn.Module | str, image: Any, input_size: Size = None, **options: Any
) -> Any:
    """Draws the receptive field of the middle unit of each stage on an image.

    Fields that are larger than the image are listed below it.

    Args:
      model: id or alias, or a network of this package.
      image: u8[H,W,3], u8[H,W] or a Pillow image; its middle is cropped to the input's proportions.
      input_size: see `receptive_fields`.
      **options: for `create_model`, if the model is a name.

    Returns:
      The Matplotlib figure.
    """
    fields = receptive_fields(model, input_size, **options)
    high, wide = input_size_of(model, input_size)[:2]
    figure = make_figure(6, 6.4 * high / wide)
    axes = figure.subplots()
    axes.imshow(_cropped(image, high, wide), cmap="gray", vmin=0, vmax=255)
    axes.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5), xticks=[], yticks=[])
    marks, larger = [], []
    for i, (name, field) in enumerate(fields.items()):
        left, top, width, height = _middle(field, high, wide)
        if not (width < wide and height < high):
            larger.append(f"{name} ({field})")
            continue
        _outline(axes, (left, top, width, height), _COLORS[i % len(_COLORS)])
        marks.append((f"{name}: {field}", left + width / 2, top, 1.0))
    axes.set_title(model if isinstance(model, str) else type(model).__name__)
    if larger:
        axes.set_xlabel("larger than the image: " + ", ".join(larger), wrap=True)
    place_labels(axes, marks, fontsize=9)
    for text in axes.texts:
        text.set_bbox({"fc": "white", "ec": "none", "alpha": 0.85, "pad": 1})
        text.set_zorder(5)
    return figure


def _middle(field: ReceptiveField, high: int, wide: int) -> tuple[float, ...]:
    """(left, top, width, height) of the field of the unit nearest to the image's middle."""
    corner = []
    for side, size, stride, center in zip((high, wide), field.size, field.stride, field.center):
        unit = round(((side - 1) / 2 - center) / stride)
        corner.append(center + stride * unit - size / 2)
    return corner[1], corner[0], field.size[1], field.size[0]


def _outline(axes: Any, place: tuple[float, ...], color: str) -> None:
    """A rectangle in a color, with a dark rim that shows on bright pixels."""
    from matplotlib.patches import Rectangle

    left, top, width, height = place
    for line, shade in ((3.5, "black"), (2.0, color)):
        axes.add_patch(Rectangle((left, top), width, height, fill=False, ec=shade, lw=line))


def _cropped(image: Any, high: int, wide: int) -> np.ndarray:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    scale = min(picture.width / wide, picture.height / high)
    width, height = round(wide * scale), round(high * scale)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    box = (left, top, left + width, top + height)
    return np.asarray(picture.resize((wide, high), Image.Resampling.BICUBIC, box))


def draw_kernels(stacks: Sequence[Sequence[int]] = ((3, 3), (5,))) -> Any:
    """Draws which pixels stacked convolutions with stride 1 see, and what they cost.

    Args:
      stacks: kernel sizes of each stack of convolutions; by default two of 3x3 against one of 5x5.

    Returns:
      The Matplotlib figure: a row for each stack, from the pixels to one unit of the last layer.
    """
    sides = [1 + sum(kernel - 1 for kernel in stack) for stack in stacks]
    cells = max(sides) + 2
    columns = 1 + max(map(len, stacks))
    figure = make_figure(2.3 * columns, 2.75 * len(stacks))
    grid = figure.subplots(len(stacks), columns, squeeze=False)
    for row, stack, side in zip(grid, stacks, sides):
        seen = [side]  # side of the square that the unit depends on, from the pixels on
        for kernel in stack:
            seen.append(seen[-1] - kernel + 1)
        words = ["pixels"] + [f"after {kernel}×{kernel}" for kernel in stack]
        for axes in row[len(stack) + 1 :]:
            axes.set_axis_off()
        for i, (axes, square, word) in enumerate(zip(row, seen, words)):
            _draw_grid(axes, cells, square, stack[i] if i < len(stack) else 0)
            axes.set_title(f"{word}: {square}×{square}", fontsize=9)
        weights = " + ".join(f"{kernel**2}C²" for kernel in stack)
        total = sum(kernel**2 for kernel in stack)
        text = weights if len(stack) == 1 else f"{weights} = {total}C²"
        row[0].set_xlabel(f"weights: {text}", fontsize=9)
    return figure


def _draw_grid(axes: Any, cells: int, square: int, kernel: int) -> None:
    """A grid of units: those that matter in color, and the window of one of the next layer."""
    from matplotlib.patches import Rectangle

    first = (cells - square) / 2
    for i in range(cells):
        for j in range(cells):
            inside = first <= i < first + square and first <= j < first + square
            color = OKABE_ITO["sky blue"] if inside else "white"
            axes.add_patch(Rectangle((j, i), 1, 1, fc=color, ec="0.6", lw=0.8))
    if kernel:
        corner = (first, first)
        axes.add_patch(
            Rectangle(corner, kernel, kernel, fill=False, ec=OKABE_ITO["vermilion"], lw=2.5)
        )
    axes.set(xlim=(-0.1, cells + 0.1), ylim=(cells + 0.1, -0.1), xticks=[], yticks=[], aspect=1)
    for side in axes.spines.values():
        side.set_visible(False)
