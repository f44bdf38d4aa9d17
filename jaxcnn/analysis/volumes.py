"""Draws the feature maps of networks as solids: high for many pixels, wide for many channels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jaxcnn.analysis.graph import Graph, read_graph
from jaxcnn.analysis.graph_edits import blocks, layers_only
from jaxcnn.analysis.trace import Traced
from jaxcnn.reporting.graph_picture import FONT, SMALL, STYLES, TITLE, canvas, text_width

_HIGHEST = 2.0  # inches, of the image
_WIDEST, _THINNEST = 0.6, 0.05  # inches, of the most and of few channels
_DEPTH = 0.3  # of the side that recedes, as a part of the height
_DRAWN = 4  # solids of one repeated block
_SPACE, _MARGIN = 0.14, 0.25
_COLORS = {"block": "conv", "input": "input", "pool": "pool", "dense": "dense", "conv": "conv"}


@dataclasses.dataclass(frozen=True)
class Solid:
    """A feature map.

    Attributes:
      kind: of what computes it: "input", "conv", "pool", "dense" or "block".
      shape: (height, width, channels) or (features,).
      count: number of equal ones in a row.
    """

    kind: str
    shape: tuple[int, ...]
    count: int = 1


def solids(graph: Graph) -> list[list[Solid]]:
    """Lists the feature maps of a network by their height and width.

    Args:
      graph: layers only.

    Returns:
      The feature maps of each stage, in order of computation: one for each layer, and one for each
      block with branches.
    """
    branched = [
        keys
        for _, keys in blocks(graph)
        if any(graph.nodes[key].kind in ("add", "concat") for key in keys)
    ]
    last_of = {key: keys[-1] for keys in branched for key in keys}
    listed = []
    for key, node in graph.nodes.items():
        if last_of.get(key) == key:
            listed.append(Solid("block", node.shape))
        elif key not in last_of and node.kind in _COLORS:
            listed.append(Solid(node.kind, node.shape))
    counted = [
        dataclasses.replace(one, count=len(list(equal))) for one, equal in itertools.groupby(listed)
    ]
    stages = itertools.groupby(counted, lambda one: one.shape[:-1] or one.shape)
    return [list(stage) for _, stage in stages]


def draw_volumes(traces: Sequence[Traced]) -> Any:
    """Draws the feature maps of networks, one row for each network.

    Args:
      traces: of the networks, with endpoints.

    Returns:
      The Matplotlib figure.
    """
    rows = []
    for traced in traces:
        groups = solids(layers_only(read_graph(traced)))
        rows.append((traced.name, [_Stage(group, _scale(groups)) for group in groups]))
    widths = [sum(stage.width + _SPACE for stage in stages) for _, stages in rows]
    heights = [max(stage.height for stage in stages) + 1.0 for _, stages in rows]
    figure, axes = canvas(max(widths) + 2 * _MARGIN, sum(heights) + _MARGIN)
    y = 0.15
    for (name, stages), wide, high in zip(rows, widths, heights):
        x = (max(widths) - wide) / 2 + _MARGIN
        axes.text(
            x + wide / 2, y + 0.1, name, fontsize=TITLE, weight="bold", ha="center", va="center"
        )
        for stage in stages:
            stage.draw(axes, x, y + high - 0.55)
            x += stage.width + _SPACE
        y += high
    return figure


@dataclasses.dataclass(frozen=True)
class _Scale:
    """The largest height and number of channels of a network."""

    side: int
    channels: int

    def height(self, shape: tuple[int, ...]) -> float:
        if len(shape) == 1:  # a vector stands upright
            return 0.3 + 0.9 * (shape[0] / max(self.channels, shape[0])) ** 0.5
        return max(0.12, _HIGHEST * (shape[0] / self.side) ** 0.6)

    def width(self, shape: tuple[int, ...]) -> float:
        if len(shape) == 1:
            return 0.12
        return _THINNEST + (_WIDEST - _THINNEST) * (shape[-1] / self.channels) ** 0.8


def _scale(stages: Sequence[Sequence[Solid]]) -> _Scale:
    maps = [one.shape for stage in stages for one in stage if len(one.shape) == 3]
    return _Scale(max(shape[0] for shape in maps), max(shape[-1] for shape in maps))


class _Stage:
    """The solids of a stage, and the words below them."""

    def __init__(self, stage: Sequence[Solid], scale: _Scale):
        self.scale = scale
        self.solids = [one for one in stage for _ in range(min(one.count, _DRAWN))]
        self.size = "×".join(map(str, stage[-1].shape))
        self.content = _content(stage)
        self.depth = max(map(self._solid_depth, self.solids))
        self.height = max(self._solid_height(one) for one in self.solids) + self.depth
        widths = [scale.width(one.shape) + 0.05 for one in self.solids]
        self.filled = sum(widths) + self.depth
        words = max(text_width(self.size, FONT), text_width(self.content, SMALL))
        self.width = max(self.filled, words)

    def _solid_height(self, one: Solid) -> float:
        return self.scale.height(one.shape)

    def _solid_depth(self, one: Solid) -> float:
        return _DEPTH * self._solid_height(one) if len(one.shape) == 3 else 0.06

    def draw(self, axes: Any, x: float, bottom: float) -> None:
        middle = x + self.width / 2
        axes.text(middle, bottom + 0.15, self.size, fontsize=FONT, ha="center", va="center")
        axes.text(
            middle, bottom + 0.31, self.content, fontsize=SMALL, color="0.3", ha="center",
            va="center",
        )  # fmt: skip
        left = middle - self.filled / 2
        for one in self.solids:
            wide, high = self.scale.width(one.shape), self._solid_height(one)
            depth = self._solid_depth(one)
            lift = (max(map(self._solid_height, self.solids)) - high) / 2
            _draw_solid(axes, left, bottom - lift, wide, high, depth, STYLES[_COLORS[one.kind]])
            left += wide + 0.05


def _content(stage: Sequence[Solid]) -> str:
    """What computes the maps of a stage, such as "pool, 3 blocks"."""
    counts: dict[str, int] = {}
    for one in stage:
        counts[one.kind] = counts.get(one.kind, 0) + one.count
    words = []
    for kind, number in counts.items():
        name = {"input": "image"}.get(kind, kind)
        plural = "s" if number > 1 and kind == "block" else ""
        words.append(name if number == 1 else f"{number} {name}{plural}")
    return ", ".join(words)


def _draw_solid(
    axes: Any, left: float, bottom: float, wide: float, high: float, depth: float, style: Any
) -> None:
    """A box in oblique projection: the front, the top and the right side."""
    from matplotlib.patches import Polygon

    fill, edge, _ = style
    right, top, back = left + wide, bottom - high, (depth, -depth)
    front = [(left, bottom), (right, bottom), (right, top), (left, top)]
    above = [(left, top), (right, top), (right + back[0], top + back[1]),
             (left + back[0], top + back[1])]  # fmt: skip
    side = [(right, bottom), (right, top), (right + back[0], top + back[1]),
            (right + back[0], bottom + back[1])]  # fmt: skip
    for corners, alpha in ((above, 0.6), (side, 0.8), (front, 1.0)):
        axes.add_patch(Polygon(corners, fc="white", ec="none", zorder=2))
        axes.add_patch(Polygon(corners, fc=(fill, alpha), ec=edge, lw=0.7, zorder=2))
