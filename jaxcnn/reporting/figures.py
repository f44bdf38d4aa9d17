"""Helpers for figures: creating one, checking its path, and placing labels without overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._files import any_path, has_folder, writable

_ANGLES = np.radians([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245])
_DISTANCES = (2, 8, 16, 26, 38, 52, 68, 86)

Box = tuple[float, float, float, float]


def make_figure(width: float, height: float) -> Any:
    """Creates a Matplotlib figure without pyplot, its window system and its global state.

    Args:
      width: in inches.
      height: in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure to a file, whose suffix is its format."""
    with writable(path) as local:
        figure.savefig(local)


def picture_path(name: str) -> Path:
    """Checks the path of a figure.

    Args:
      name: path of the file.

    Raises:
      ValueError: the suffix is not .png, .svg or .pdf, or the directory does not exist.
    """
    if Path(name).suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{name!r} is not a path of a figure: it must end in .png, .svg or .pdf")
    return table_path(name)


def table_path(name: str) -> Path:
    """Checks the path of a file.

    Args:
      name: path of the file.

    Raises:
      ValueError: the directory does not exist.
    """
    path = any_path(name)
    if not has_folder(path):
        raise ValueError(f"{name!r} cannot be written: there is no directory {path.parent}")
    return path


def place_labels(
    axes: Any, marks: Sequence[tuple[str, float, float, float]], fontsize: float = 7.5
) -> list[Box]:
    """Writes a label near each mark without overlap; distant labels are connected by a line.

    Args:
      axes: Matplotlib axes, with everything else drawn and final limits.
      marks: (name, x, y, radius in points) of each mark.
      fontsize: in points.

    Returns:
      The boxes of the labels as (left, bottom, right, top) in pixels, in the order of the marks.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # finishes the layout of the axes
    renderer = figure.canvas.get_renderer()
    pixel = figure.dpi / 72
    centers = [axes.transData.transform((x, y)) for _, x, y, _ in marks]
    radii = [radius * pixel for *_, radius in marks]
    cores = [_around(c, min(r, 5 * pixel)) for c, r in zip(centers, radii)]
    outer = axes.get_window_extent()
    frame = (outer.x0, outer.y0, outer.x1, outer.y1)
    legends = [
        child.get_window_extent(renderer).extents
        for child in axes.get_children()
        if type(child).__name__ == "Legend"
    ]
    taken: list[Box] = [tuple(map(float, box)) for box in legends]  # type: ignore[misc]
    first = len(taken)
    for (name, x, y, _), center, radius in zip(marks, centers, radii):
        text = axes.text(x, y, name, fontsize=fontsize, ha="center", va="center")
        size = text.get_window_extent(renderer)
        width, height = size.width + 3, size.height + 1

        def cost(box: Box, far: float) -> float:
            overlap = sum(_common_area(box, other) for other in taken)
            hidden = sum(_common_area(box, core) for core in cores)
            outside = width * height - _common_area(box, frame)  # noqa: B023
            return 50 * overlap + 8 * hidden + 50 * outside + far

        options = []
        for distance in _DISTANCES:
            for angle in _ANGLES:
                away = radius + distance * pixel
                across = away * math.cos(angle) + math.copysign(width / 2, math.cos(angle)) * (
                    abs(math.cos(angle)) > 0.3
                )
                up = away * math.sin(angle) + height / 2 * math.sin(angle)
                middle = (center[0] + across, center[1] + up)
                box = (middle[0] - width / 2, middle[1] - height / 2,
                       middle[0] + width / 2, middle[1] + height / 2)  # fmt: skip
                options.append((cost(box, distance), middle, box, distance))
        _, middle, box, distance = min(options, key=lambda option: option[0])
        taken.append(box)
        text.set_position(axes.transData.inverted().transform(middle))
        if distance > 2:
            nearest = (np.clip(center[0], box[0], box[2]), np.clip(center[1], box[1], box[3]))
            ends = axes.transData.inverted().transform([center, nearest])
            axes.plot(*ends.T, color="0.35", linewidth=0.6, scalex=False, scaley=False)
    return taken[first:]


def _around(center: Any, radius: float) -> Box:
    return (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)


def _common_area(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)
