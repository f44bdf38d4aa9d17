"""Helpers for figures: creating one, checking its path, and placing labels without overlap."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._files import any_path, output_path, writable

_ANGLES = np.radians([0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200, 65, 295, 115, 245])
_DISTANCES = (2, 8, 16, 26, 38, 52, 68, 86)
_NEAREST = _DISTANCES[0]  # of a label without a line

# Colors that color-blind people can tell apart (Okabe and Ito 2008, "Color universal design").
OKABE_ITO = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky blue": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}

Box = tuple[float, float, float, float]
Segment = tuple[tuple[float, float], tuple[float, float]]


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


def save(figure: Any, path: str | Path, **options: Any) -> None:
    """Writes a figure to a file, whose suffix is its format; `options` are those of `savefig`."""
    data = io.BytesIO()  # the PDF writer hides the error of a full disk
    figure.savefig(data, format=Path(path).suffix[1:], **options)
    with writable(path) as local:
        local.write_bytes(data.getvalue())


def picture_path(name: str, suffixes: Sequence[str] = (".png", ".svg", ".pdf")) -> Path:
    """Checks the path of a figure.

    Args:
      name: path of the file.
      suffixes: those that are valid.

    Raises:
      ValueError: the suffix is not valid, or the file cannot be written.
    """
    if Path(name).suffix not in suffixes:
        known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise ValueError(f"{name!r} is not a path of a figure: it must end in {known}")
    return output_path(name)


def plain_text(text: str) -> str:
    r"""Prepares a name for a figure, where Matplotlib would draw it as something else.

    A "$" begins mathematics, a legend leaves out labels that begin with "_", and characters of file
    names that are not UTF-8 cannot be drawn.

    Args:
      text: of a user, such as the name of a class or a file.

    >>> print(plain_text("a$b"))
    a\$b
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def picture_name(image: str, taken: set[str]) -> str:
    """Names the picture of an image file by its stem, with a number if another picture has it.

    Args:
      image: path of the image file.
      taken: names of the other pictures; the new one is added.

    >>> taken: set[str] = set()
    >>> [picture_name(path, taken) for path in ("a/0.jpg", "b/0.jpg", "b/0.png", "b/1.png")]
    ['0', '0_2', '0_3', '1']
    """
    stem = any_path(image).stem
    names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def place_labels(
    axes: Any, marks: Sequence[tuple[str, float, float, float]], fontsize: float = 7.5
) -> list[Box]:
    """Writes a label near each mark without overlap; distant labels are connected by a line.

    The lines avoid one another and the other labels.

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
    lines: list[Segment] = []
    first = len(taken)
    for (name, x, y, _), center, radius in zip(marks, centers, radii):
        text = axes.text(x, y, name, fontsize=fontsize, ha="center", va="center")
        size = text.get_window_extent(renderer)
        width, height = size.width + 3, size.height + 1

        def cost(box: Box, far: float) -> float:
            overlap = sum(_common_area(box, other) for other in taken)
            hidden = sum(_common_area(box, core) for core in cores)
            outside = width * height - _common_area(box, frame)  # noqa: B023
            crossed = sum(_passes(line, box) for line in lines)
            if far > _NEAREST:
                line = _line_to(center, box)  # noqa: B023
                crossed += sum(_cross(line, other) for other in lines)
                crossed += sum(_passes(line, other) for other in taken)
            return 50 * overlap + 8 * hidden + 50 * outside + 300 * crossed + far

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
        if distance > _NEAREST:
            lines.append(_line_to(center, box))
            ends = axes.transData.inverted().transform(lines[-1])
            axes.plot(*ends.T, color="0.35", linewidth=0.6, scalex=False, scaley=False)
    return taken[first:]


def _line_to(center: Any, box: Box) -> Segment:
    """The line from a mark to the nearest point of its label."""
    x, y = float(center[0]), float(center[1])
    return (x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))


def _cross(one: Segment, other: Segment) -> bool:
    def side(line: Segment, point: tuple[float, float]) -> float:
        (x0, y0), (x1, y1) = line
        return (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)

    return all(side(a, b[0]) * side(a, b[1]) < 0 for a, b in ((one, other), (other, one)))


def _passes(line: Segment, box: Box) -> bool:
    """Whether a line crosses a box."""
    left, bottom, right, top = box
    diagonals = (((left, bottom), (right, top)), ((left, top), (right, bottom)))
    return any(_cross(line, diagonal) for diagonal in diagonals)


def _around(center: Any, radius: float) -> Box:
    return (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)


def _common_area(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)
