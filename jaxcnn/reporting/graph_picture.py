"""Draws placed graphs: boxes with text, curves, shortcuts and frames.

The colors are light tints of Okabe and Ito's palette, which color-blind people can tell apart, and
the text of a box says what it is.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from jaxcnn.reporting.figures import make_figure
from jaxcnn.reporting.graph_layout import Box, Key, Placed

WIDEST = 14.0  # inches: at 1280 pixels, text of 8 points is 10 pixels high

FONT, SMALL, TITLE = 8.0, 6.8, 11.0
_MARGIN, _SPACE = 0.2, 0.55
_STRIP = 0.16
_LINE = "#555555"

# Fill, edge, and words in the legend of each kind of node.
STYLES = {
    "input": ("#E8E8E8", "#7F7F7F", None),
    "conv": ("#B5DDF5", "#0072B2", "convolution"),
    "dense": ("#F9D48A", "#B57B00", "dense layer"),
    "pool": ("#A6DCCB", "#007A5A", "pooling"),
    "lrn": ("#F7F1A6", "#8C8500", "normalization"),
    "norm": ("#F7F1A6", "#8C8500", "normalization"),
    "act": ("#F3C3A5", "#B54E00", "activation"),
    "add": ("#FFFFFF", "#333333", None),
    "multiply": ("#FFFFFF", "#333333", None),
    "concat": ("#EBC8DC", "#9B4D7C", "concatenation"),
    "scale": ("#F3F3F3", "#7F7F7F", "other"),
    "slice": ("#F3F3F3", "#7F7F7F", "other"),
    "other": ("#F3F3F3", "#7F7F7F", "other"),
}
_ROUND = ("add", "multiply")


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is in a box.

    Attributes:
      kind: of the node, see `jaxcnn.analysis.graph.Node`.
      text: first line.
      note: second line, smaller; "" for none.
      strips: (kind, text) of what follows directly, in strips at the bottom of the box.
    """

    kind: str
    text: str
    note: str = ""
    strips: tuple[tuple[str, str], ...] = ()

    def box(self) -> Box:
        """Returns a box that the text fits in."""
        if self.kind in _ROUND:
            return Box(0.2, 0.2)
        small = [self.note, *(text for _, text in self.strips)]
        width = max(text_width(self.text, FONT), *(text_width(text, SMALL) for text in small))
        return Box(max(0.5, width + 0.14), self.head_height + _STRIP * len(self.strips))

    @property
    def head_height(self) -> float:
        """Height of the box without the strips, in inches."""
        return 0.36 if self.note else 0.23


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A graph to draw.

    Attributes:
      title, subtitle: above the graph.
      placed: the boxes, with the left and top at 0.
      cells: {key: contents of the box}.
      labels: {index of a frame: (large text, small text)}, at the right of the frames.
    """

    title: str
    subtitle: str
    placed: Placed
    cells: Mapping[Key, Cell]
    labels: Sequence[tuple[str, str]] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height with the titles, in inches."""
        left, top, right, bottom = self.placed.extent
        width, height = right - left, bottom - top
        titles = max(text_width(self.title, TITLE), text_width(self.subtitle, SMALL))
        return max(width, titles), height + _title_height(self)


def text_width(text: str, size: float) -> float:
    """Measures a line of text.

    Args:
      text: one line.
      size: of the font in points.

    Returns:
      The width in inches.
    """
    return _width(text) * size / 100 / 72 if text else 0.0


@functools.lru_cache(4096)
def _width(text: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=100), False)[0]


def label_size(label: tuple[str, str]) -> tuple[float, float]:
    """Measures the label of a frame.

    Args:
      label: (large text, small text).

    Returns:
      Width and height in inches.
    """
    width = max(text_width(label[0], TITLE), text_width(label[1], SMALL))
    return width, 0.34 if all(label) else 0.17


def draw_sheets(sheets: Sequence[Sheet]) -> Any:
    """Draws graphs side by side, and below one another where they do not fit.

    Args:
      sheets: the graphs.

    Returns:
      The Matplotlib figure.
    """
    rows = _in_rows(sheets)
    widths = [sum(s.size[0] for s in row) + _SPACE * (len(row) - 1) for row in rows]
    heights = [max(sheet.size[1] for sheet in row) for row in rows]
    width = max(*widths, _legend_width(sheets), 2.5) + 2 * _MARGIN
    height = sum(heights) + _SPACE * (len(rows) - 1) + 2 * _MARGIN + 0.4
    figure, axes = canvas(width, height)
    y = _MARGIN
    for row, wide, high in zip(rows, widths, heights):
        x = (width - wide) / 2
        for sheet in row:
            _draw_sheet(axes, sheet, x, y)
            x += sheet.size[0] + _SPACE
        y += high + _SPACE
    _draw_legend(axes, sheets, width / 2, height - _MARGIN - 0.08)
    return figure


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """Creates a figure whose axes cover it, in inches, with y downwards.

    Args:
      width: in inches.
      height: in inches.

    Returns:
      (figure, axes).
    """
    figure = make_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _in_rows(sheets: Sequence[Sheet]) -> list[list[Sheet]]:
    rows: list[list[Sheet]] = [[]]
    used = 0.0
    for sheet in sheets:
        if rows[-1] and used + sheet.size[0] > WIDEST - 2 * _MARGIN:
            rows.append([])
            used = 0.0
        rows[-1].append(sheet)
        used += sheet.size[0] + _SPACE
    return rows


def _title_height(sheet: Sheet) -> float:
    return 0.5 if sheet.title else 0.0


def _draw_sheet(axes: Any, sheet: Sheet, x: float, y: float) -> None:
    middle = x + sheet.size[0] / 2
    center = {"ha": "center", "va": "center"}
    if sheet.title:
        axes.text(middle, y + 0.1, sheet.title, fontsize=TITLE, weight="bold", **center)
    if sheet.subtitle:
        axes.text(middle, y + 0.29, sheet.subtitle, fontsize=SMALL, color="0.3", **center)
    placed, cells = sheet.placed, sheet.cells
    left, top, right, _ = placed.extent
    placed.move(middle - (left + right) / 2, y + _title_height(sheet) - top)
    for box in placed.frames.values():
        rectangle(axes, box, "#F5F5F5", "#C9C9C9", linewidth=0.7, zorder=0)
    for path in placed.curves:
        _arrow(axes, _smooth(path))
    for path in placed.lines:
        _arrow(axes, _rounded(path))
    for path in placed.links:
        _arrow(axes, _rounded(path), head=False)
    for key, box in placed.boxes.items():
        _draw_cell(axes, cells[key], box)
    for i, box in placed.labels.items():
        large, small = sheet.labels[i]
        shift = 0.08 if large and small else 0.0
        beside: Any = {"ha": "left", "va": "center"}
        if large:
            axes.text(box.left, box.y - shift, large, fontsize=TITLE, **beside)
        if small:
            axes.text(box.left, box.y + shift, small, fontsize=SMALL, color="0.35", **beside)


def _draw_cell(axes: Any, cell: Cell, box: Box) -> None:
    fill, edge, _ = STYLES[cell.kind]
    center = {"ha": "center", "va": "center"}
    if cell.kind in _ROUND:
        from matplotlib.patches import Circle

        axes.add_patch(Circle((box.x, box.y), box.width / 2, fc=fill, ec=edge, lw=1, zorder=3))
        arm = 0.055
        steps = [(arm, 0), (0, arm)] if cell.kind == "add" else [(arm, arm), (arm, -arm)]
        for dx, dy in steps:
            ends = [box.x - dx, box.x + dx], [box.y - dy, box.y + dy]
            axes.plot(*ends, color=edge, lw=1.1, zorder=4, scalex=False, scaley=False)
        return
    rectangle(axes, box, fill, edge, linewidth=0.9, zorder=3)
    y = box.top + cell.head_height / 2
    shift = 0.075 if cell.note else 0.0
    axes.text(box.x, y - shift, cell.text, fontsize=FONT, zorder=4, **center)
    if cell.note:
        axes.text(box.x, y + shift, cell.note, fontsize=SMALL, color="0.25", zorder=4, **center)
    y = box.top + cell.head_height
    for kind, text in cell.strips:
        strip = Box(box.width - 0.06, _STRIP - 0.03, box.x, y + _STRIP / 2 - 0.015)
        rectangle(axes, strip, *STYLES[kind][:2], linewidth=0.5, zorder=3)
        axes.text(box.x, strip.y, text, fontsize=SMALL, zorder=4, **center)
        y += _STRIP


def rectangle(axes: Any, box: Box, fill: str, edge: str, **options: Any) -> None:
    """Draws a rectangle with rounded corners.

    Args:
      axes: see `canvas`.
      box: its place.
      fill: color.
      edge: color.
      **options: of the Matplotlib patch.
    """
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.05"
    corner = (box.left, box.top)
    axes.add_patch(
        FancyBboxPatch(corner, box.width, box.height, style, fc=fill, ec=edge, **options)
    )


# --- edges ----------------------------------------------------------------------------------------


def _smooth(points: Sequence[tuple[float, float]]) -> tuple[list[Any], list[Any]]:
    """A path through points that is vertical at each of them."""
    from matplotlib.path import Path

    found, codes = [points[0]], [cast(Any, Path.MOVETO)]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if abs(x1 - x0) < 1e-3:
            found, codes = [*found, (x1, y1)], [*codes, Path.LINETO]
            continue
        middle = (y0 + y1) / 2
        found += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return found, codes


def _rounded(points: Sequence[tuple[float, float]]) -> tuple[list[Any], list[Any]]:
    """A path of lines with rounded corners."""
    from matplotlib.path import Path

    found, codes = [points[0]], [cast(Any, Path.MOVETO)]
    for before, corner, after in zip(points, points[1:], points[2:]):
        lengths = [abs(p[0] - corner[0]) + abs(p[1] - corner[1]) for p in (before, after)]
        radius = min(0.06, *(length / 2 for length in lengths))
        if radius < 1e-6:
            continue
        near = [
            (
                corner[0] + (p[0] - corner[0]) * radius / length,
                corner[1] + (p[1] - corner[1]) * radius / length,
            )
            for p, length in zip((before, after), lengths)
        ]
        found += [near[0], corner, near[1]]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return [*found, points[-1]], [*codes, Path.LINETO]


def _arrow(axes: Any, path: tuple[list[Any], list[Any]], head: bool = True) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    style = "-|>,head_length=3,head_width=1.6" if head else "-"
    axes.add_patch(
        FancyArrowPatch(
            path=Path(*path), arrowstyle=style, color=_LINE, lw=0.9, zorder=2, shrinkA=0, shrinkB=0,
            joinstyle="miter", capstyle="butt",
        )
    )  # fmt: skip


# --- legend ---------------------------------------------------------------------------------------


def _legend(sheets: Iterable[Sheet]) -> dict[str, tuple[str, str]]:
    """{words: (fill, edge)} of the kinds that are drawn."""
    cells = [cell for sheet in sheets for cell in sheet.cells.values()]
    kinds = {cell.kind for cell in cells} | {kind for cell in cells for kind, _ in cell.strips}
    return {
        words: (fill, edge)
        for kind, (fill, edge, words) in STYLES.items()
        if kind in kinds and words
    }


def _legend_width(sheets: Sequence[Sheet]) -> float:
    return sum(text_width(words, SMALL) + 0.45 for words in _legend(sheets))


def _draw_legend(axes: Any, sheets: Sequence[Sheet], middle: float, y: float) -> None:
    x = middle - _legend_width(sheets) / 2
    for words, (fill, edge) in _legend(sheets).items():
        rectangle(axes, Box(0.16, 0.12, x + 0.08, y), fill, edge, linewidth=0.8)
        axes.text(x + 0.23, y, words, fontsize=SMALL, ha="left", va="center")
        x += text_width(words, SMALL) + 0.45
