"""Places the boxes of a graph in columns: branches side by side, shortcuts as lines at the right.

Lengths are in inches, and y grows downwards. The nodes through which every path leads are the
middle of a column. What lies between two of them is placed by grandalf, in Sugiyama's layered
layout.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxcnn._checks import optional_package

Key = int
Point = tuple[float, float]
Edge = tuple[Key, Key]

_GAP = 0.2  # between rows
_FAN = 0.3  # above and below branches
_BETWEEN = 0.25  # between groups, in addition
_PAD = 0.13  # between a group's boxes and its frame
_BEFORE = 0.1  # between the start of a shortcut and the next row,
_BEFORE_FAN = 0.2  # and before branches
_LANE = 0.15  # between shortcuts
_GUTTER = 0.5  # between columns
_SOURCE, _SINK = -1, -2  # where a graph has several inputs or outputs


@dataclasses.dataclass
class Box:
    """A rectangle; x and y are its center."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def left(self) -> float:
        """The least x."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """The largest x."""
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        """The least y."""
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        """The largest y."""
        return self.y + self.height / 2


class Frame(NamedTuple):
    """What has a frame: the keys of the boxes, and the size of the label."""

    keys: Sequence[Key]
    label_width: float
    label_height: float = 0.17


@dataclasses.dataclass
class Placed:
    """A graph whose boxes are placed.

    Attributes:
      boxes: {key: box}.
      curves: edges between neighbors: points that a curve with vertical ends passes.
      lines: shortcuts: corners of horizontal and vertical lines.
      links: connections between columns, without an arrowhead.
      frames: {index: frame} of the groups.
      labels: {index: box} of their labels.
      extent: (left, top, right, bottom) of everything.
    """

    boxes: dict[Key, Box] = dataclasses.field(default_factory=dict)
    curves: list[list[Point]] = dataclasses.field(default_factory=list)
    lines: list[list[Point]] = dataclasses.field(default_factory=list)
    links: list[list[Point]] = dataclasses.field(default_factory=list)
    frames: dict[int, Box] = dataclasses.field(default_factory=dict)
    labels: dict[int, Box] = dataclasses.field(default_factory=dict)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of everything."""
        boxes = [*self.boxes.values(), *self.frames.values(), *self.labels.values()]
        points = [point for path in (*self.curves, *self.lines, *self.links) for point in path]
        xs = [x for b in boxes for x in (b.left, b.right)] + [x for x, _ in points]
        ys = [y for b in boxes for y in (b.top, b.bottom)] + [y for _, y in points]
        return min(xs), min(ys), max(xs), max(ys)

    def move(self, x: float, y: float) -> None:
        """Moves everything."""
        for box in [*self.boxes.values(), *self.frames.values(), *self.labels.values()]:
            box.x, box.y = box.x + x, box.y + y
        for paths in (self.curves, self.lines, self.links):
            paths[:] = [[(px + x, py + y) for px, py in path] for path in paths]

    def add(self, other: Placed) -> None:
        """Takes over everything of another graph."""
        self.boxes |= other.boxes
        self.curves += other.curves
        self.lines += other.lines
        self.links += other.links
        self.frames |= other.frames
        self.labels |= other.labels


class _Segment(NamedTuple):
    """A node of the middle, with the branches between it and the one above.

    Attributes:
      above: key of the node above; None for the first.
      end: key of the node.
      inner: keys of the branches' boxes, placed relative to their left and top.
      routes: edges as keys and, where they pass other rows, points.
    """

    above: Key | None
    end: Key
    inner: list[Key]
    routes: list[list[Any]]


def place(
    boxes: Mapping[Key, Box],
    edges: Iterable[Edge],
    outputs: Sequence[Key],
    *,
    heads: Sequence[Key] = (),
    frames: Sequence[Frame] = (),
    max_height: float = math.inf,
    starts: Mapping[Key, float] | None = None,
) -> Placed:
    """Places a graph.

    Args:
      boxes: {key: box}, each after those with edges to it; their positions are set.
      edges: (from, to).
      outputs: keys of the boxes in which the columns end.
      heads: keys of further outputs, which are drawn at the side.
      frames: what has a frame.
      max_height: of a column; a higher one is broken where it can be.
      starts: {key: y at which the row of a box begins at the earliest}.

    Returns:
      The placed graph, with its left and its top at 0.
    """
    edges = list(edges)
    main = _ancestors(edges, outputs)
    own = {key: box for key, box in boxes.items() if key in main}
    inside = [edge for edge in edges if edge[1] in main]
    sources = [key for key in own if all(to != key for _, to in inside)]
    if len(sources) > 1:
        own = {_SOURCE: Box(0, 0), **own}
        inside += [(_SOURCE, key) for key in sources]
    if len(outputs) > 1:
        own[_SINK] = Box(0, 0)
        inside += [(key, _SINK) for key in outputs]
    group_of = {key: i for i, frame in enumerate(frames) for key in frame.keys}
    segments, shortcuts = _segments(own, inside)
    heights = [_height(own, segment, group_of) for segment in segments]
    placed, left, before, bottom = Placed(), 0.0, None, 0.0
    for column in _columns(segments, heights, shortcuts, group_of, max_height):
        part = _column(own, column, shortcuts, frames, group_of, starts or {})
        _add_heads(part, boxes, edges, main, heads, frames)
        middle = left - part.extent[0]
        part.move(middle, 0)
        if before is not None:
            placed.links.append(_connection(own[before], bottom, left - _GUTTER / 2, middle))
        before = column[-1].end
        left, bottom = part.extent[2] + _GUTTER, part.extent[3]
        placed.add(part)
    for key in (_SOURCE, _SINK):
        placed.boxes.pop(key, None)
    x, y, *_ = placed.extent
    placed.move(-x, -y)
    return placed


def _ancestors(edges: Iterable[Edge], keys: Iterable[Key]) -> set[Key]:
    before: dict[Key, list[Key]] = {}
    for source, target in edges:
        before.setdefault(target, []).append(source)
    found: set[Key] = set()
    todo = list(keys)
    while todo:
        if (key := todo.pop()) not in found:
            found.add(key)
            todo += before.get(key, [])
    return found


# --- segments -------------------------------------------------------------------------------------


def _segments(own: Mapping[Key, Box], edges: Sequence[Edge]) -> tuple[list[_Segment], list[Edge]]:
    """The segments of a graph, and the edges that are drawn as shortcuts at the right."""
    keys = list(own)
    place = {key: i for i, key in enumerate(keys)}
    kept, skips = _reduced(place, edges)
    ends = _cuts(keys, place, kept)
    middle, number, count = set(ends), {}, 0  # the number of each node's segment
    for key in keys:
        number[key] = count
        count += key in middle

    def is_shortcut(edge: Edge) -> bool:
        source, target = edge
        leaves = source in middle
        distance = number[target] - number[source]
        return (leaves and target in middle) or distance > (1 if leaves else 0)

    shortcuts = [edge for edge in skips if is_shortcut(edge)]
    inside: dict[int, list[Edge]] = {}
    for edge in [*kept, *(edge for edge in skips if not is_shortcut(edge))]:
        inside.setdefault(number[edge[1]], []).append(edge)
    segments = []
    for i, (above, end) in enumerate(zip([None, *ends], ends)):
        first = 0 if above is None else place[above] + 1
        inner = keys[first : place[end]]
        some = sorted(inside.get(i, []), key=lambda e: (place[e[1]], place[e[0]]))
        routes = _layers(own, above, inner, end, some) if inner else [[*e] for e in some]
        segments.append(_Segment(above, end, inner, routes))
    return segments, shortcuts


def _reduced(place: Mapping[Key, int], edges: Sequence[Edge]) -> tuple[list[Edge], list[Edge]]:
    """The edges without those that a longer path replaces, and the latter."""
    after: dict[Key, list[Key]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
    kept: list[Edge] = []
    skips: list[Edge] = []
    for source, target in edges:
        todo = [key for key in after[source] if place[key] < place[target]]
        seen: set[Key] = set()
        while todo and target not in seen:
            if (key := todo.pop()) not in seen:
                seen.add(key)
                todo += [k for k in after.get(key, ()) if place[k] <= place[target]]
        (skips if target in seen else kept).append((source, target))
    return kept, skips


def _cuts(keys: Sequence[Key], place: Mapping[Key, int], edges: Sequence[Edge]) -> list[Key]:
    """The nodes through which every path leads, in order."""
    reach = list(range(len(keys)))  # the last node with an edge from here
    for source, target in edges:
        reach[place[source]] = max(reach[place[source]], place[target])
    found, farthest = [], 0
    for i, key in enumerate(keys):
        if farthest <= i:
            found.append(key)
        farthest = max(farthest, reach[i])
    return found


def _layers(
    own: Mapping[Key, Box], above: Key | None, inner: Sequence[Key], end: Key, edges: Sequence[Edge]
) -> list[list[Any]]:
    """Places the boxes between two nodes; returns the routes of the edges."""
    optional_package("grandalf", "draw")
    from grandalf import graphs
    from grandalf.layouts import SugiyamaLayout, VertexViewer
    from grandalf.routing import EdgeViewer

    ends = [key for key in (above, end) if key is not None]
    vertices = {key: graphs.Vertex(key) for key in [*ends[:1], *inner, *ends[1:]]}
    for key, vertex in vertices.items():
        vertex.view = VertexViewer(own[key].width, own[key].height)
    drawn = []
    for source, target in edges:
        edge = graphs.Edge(vertices[source], vertices[target])
        edge.view = EdgeViewer()
        drawn.append(edge)
    layout = SugiyamaLayout(graphs.Graph(list(vertices.values()), drawn).C[0])
    layout.xspace, layout.yspace, layout.dw, layout.dh = 0.16, _GAP, 0.1, 0.01
    layout.init_all()
    layout.draw()
    _spread(layout, drawn)
    x0 = sum(vertices[key].view.xy[0] for key in ends) / len(ends)
    y0 = min(vertices[key].view.xy[1] - own[key].height / 2 for key in inner)
    for key in inner:
        x, y = vertices[key].view.xy
        own[key].x, own[key].y = x - x0, y - y0
    routes = []
    for edge in drawn:
        source, target = (vertex.data for vertex in edge.v)
        points = edge.view._pts[source == above : -1]  # the first is below the source's layer
        routes.append([source, *((x - x0, y - y0) for x, y in points), target])
    return routes


def _spread(layout: Any, edges: Sequence[Any]) -> None:
    """Aligns the tops of each layer, with more room between layers where edges lead sideways.

    Edges pass a layer vertically, so that they do not touch its boxes.
    """
    ranks = [[layout.grx[vertex].rank for vertex in edge.v] for edge in edges]
    sideways: set[int] = set()
    for edge, (first, _) in zip(edges, ranks):
        xs = [x for x, _ in edge.view._pts]
        sideways |= {
            first + i for i, (a, b) in enumerate(itertools.pairwise(xs)) if abs(a - b) > 0.1
        }
    tops, y = [], 0.0
    for rank, layer in enumerate(layout.layers):
        high = max(vertex.view.h for vertex in layer)
        for vertex in layer:
            vertex.view.xy = (vertex.view.xy[0], y + vertex.view.h / 2)
        tops.append((y, y + high))
        y += high + (_FAN if rank in sideways else _GAP)
    for edge, (first, last) in zip(edges, ranks):
        xs = [x for x, _ in edge.view._pts]
        between = [(x, y) for rank, x in enumerate(xs[1:-1], first + 1) for y in tops[rank]]
        edge.view._pts = [(xs[0], tops[first][1]), *between, (xs[-1], tops[last][0])]


# --- columns --------------------------------------------------------------------------------------


def _rows(
    own: Mapping[Key, Box], segment: _Segment, group_of: Mapping[Key, int]
) -> tuple[float, float, float]:
    """Gap above the branches, their height, and the gap above the segment's last node."""

    def gap(above: Key | None, below: Key, least: float) -> float:
        if above is None:
            return 0.0
        same = group_of.get(above) == group_of.get(below)
        return least + (0 if same else _BETWEEN)

    if not segment.inner:
        return 0.0, 0.0, gap(segment.above, segment.end, _GAP)
    high = max(own[key].bottom for key in segment.inner)
    above = gap(segment.above, segment.inner[0], _FAN)
    return above, high, gap(segment.inner[-1], segment.end, _FAN)


def _height(own: Mapping[Key, Box], segment: _Segment, group_of: Mapping[Key, int]) -> float:
    return sum(_rows(own, segment, group_of)) + own[segment.end].height


def _columns(
    segments: Sequence[_Segment],
    heights: Sequence[float],
    shortcuts: Sequence[Edge],
    group_of: Mapping[Key, int],
    max_height: float,
) -> list[list[_Segment]]:
    """Breaks the segments into columns of similar height, between groups and shortcuts."""
    number = math.ceil(sum(heights) / max_height) if max_height < math.inf else 1
    least = sum(heights) / number
    number_of = {k: i for i, seg in enumerate(segments) for k in (*seg.inner, seg.end)}
    ends = {segment.end for segment in segments}
    spans = [(number_of[u] - (u not in ends), number_of[v]) for u, v in shortcuts]
    columns: list[list[_Segment]] = [[]]
    high = 0.0
    for i, (segment, height) in enumerate(zip(segments, heights)):
        first = (segment.inner or [segment.end])[0]
        group = group_of.get(first)
        breaks = (
            high + height / 2 > least
            and sum(heights[i:]) > least / 3
            and len(columns) < number
            and (group is None or group != group_of.get(segment.above or 0))
            and not any(u < i - 1 and v >= i for u, v in spans)
        )
        if breaks:
            columns.append([])
            high = 0.0
        columns[-1].append(segment)
        high += height
    return columns


def _column(
    own: dict[Key, Box],
    column: Sequence[_Segment],
    shortcuts: Sequence[Edge],
    frames: Sequence[Frame],
    group_of: Mapping[Key, int],
    starts: Mapping[Key, float],
) -> Placed:
    """Places segments below one another, around x = 0."""
    part = Placed()
    below: dict[Key, tuple[float, float]] = {}  # y under a node, and where its shortcuts leave
    y = 0.0
    for number, segment in enumerate(column):
        gap, high, last_gap = _rows(own, segment, group_of)
        end = own[segment.end]
        y += gap if segment.inner else last_gap
        y = max([y, *(starts[key] for key in [*segment.inner, segment.end] if key in starts)])
        for key in segment.inner:
            own[key].y += y
            part.boxes[key] = own[key]
        top = own.get(segment.above) if number and segment.above is not None else None
        start = (0.0, 0.0) if top is None else (0.0, top.bottom)
        if segment.above is not None:
            below[segment.above] = start[1], y - (_BEFORE_FAN if segment.inner else _BEFORE)
        shift, y = y, y + (high + last_gap if segment.inner else 0)
        end.x, end.y = 0.0, y + end.height / 2
        part.boxes[segment.end] = end
        y += end.height
        part.curves += [
            _curve(own, route, segment.above, start, shift)
            for route in segment.routes
            if not {_SOURCE, _SINK} & {route[0], route[-1]}
        ]
    _add_shortcuts(part, shortcuts, below)
    _add_frames(part, frames)
    return part


def _curve(
    own: Mapping[Key, Box], route: Sequence[Any], above: Key | None, start: Point, shift: float
) -> list[Point]:
    source, target = own[route[0]], own[route[-1]]
    first = start if route[0] == above else (source.x, source.bottom)
    return [first, *((x, y + shift) for x, y in route[1:-1]), (target.x, target.top)]


def _add_shortcuts(
    part: Placed, shortcuts: Sequence[Edge], below: Mapping[Key, tuple[float, float]]
) -> None:
    """Adds lines from below a box to the side of a later one, the shortest ones inside."""
    spans = []
    for source, target in shortcuts:
        if target in part.boxes and (source in below or source in part.boxes):
            start = part.boxes.get(source, Box(0, 0))
            bottom, y = below.get(source, (start.bottom, start.bottom + 0.06))
            spans.append((y, bottom, start.x, part.boxes[target]))
    lanes: list[tuple[int, float, float, float]] = []
    for y, bottom, x0, end in sorted(spans, key=lambda span: span[3].y - span[0]):
        side = -1 if x0 < -0.1 and end.x < -0.1 else 1
        rows = [b for b in part.boxes.values() if b.bottom > y and b.top < end.bottom]
        beside = [b.right if side > 0 else -b.left for b in rows]
        beside += [x for s, x, top, low in lanes if s == side and low > y and top < end.y]
        reach = max(beside, default=0.0) + _LANE
        lanes.append((side, reach, y, end.y))
        x1 = end.right if side > 0 else end.left
        x = side * reach
        part.lines.append([(x0, bottom), (x0, y), (x, y), (x, end.y), (x1, end.y)])


def _add_frames(part: Placed, frames: Sequence[Frame]) -> None:
    """Adds the frames of the groups and, at their right, the labels."""
    for i, frame in enumerate(frames):
        inside = [part.boxes[key] for key in frame.keys if key in part.boxes]
        if not inside:
            continue
        ends = {(x, box.y) for box in inside for x in (box.left, box.right)}
        lanes = [x for line in part.lines if line[-1] in ends for x, _ in line]
        right = max([box.right for box in inside] + lanes)
        left = min([box.left for box in inside] + lanes)
        top = min(box.top for box in inside)
        bottom = max(box.bottom for box in inside)
        part.frames[i] = _box(left - _PAD, top - _PAD, right + _PAD, bottom + _PAD)
        if frame.label_width:
            lowest = min(box.left for box in inside if box.bottom > bottom - 0.4)
            half = frame.label_height / 2
            x, y = right + _PAD + 0.07, (top + bottom) / 2
            if lowest - left > frame.label_width:  # there is room in the corner
                x, y = left - _PAD + 0.08, bottom + _PAD - 0.03 - half
            part.labels[i] = _box(x, y - half, x + frame.label_width, y + half)


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(right - left, bottom - top, (left + right) / 2, (top + bottom) / 2)


def _add_heads(
    part: Placed,
    boxes: Mapping[Key, Box],
    edges: Sequence[Edge],
    main: set[Key],
    heads: Sequence[Key],
    frames: Sequence[Frame],
) -> None:
    """Adds the heads that start in this column at its right."""
    lowest, x = 0.0, part.extent[2] + 0.3
    for head in heads:
        own = _ancestors(edges, [head]) - main
        source = next((u for u, v in edges if v in own and u not in own), None)
        if source not in part.boxes:
            continue
        inside = {key: boxes[key] for key in boxes if key in own}
        side = place(inside, [e for e in edges if {*e} <= own], [head], frames=frames)
        start = part.boxes[source]
        y = start.bottom + _PAD + 0.04
        side.move(x, max(y + 0.2, lowest))
        lowest = side.extent[3] + 0.3
        first = side.boxes[next(iter(inside))]
        part.lines.append([(start.x, y), (first.x, y), (first.x, first.top)])
        part.add(side)


def _connection(above: Box, bottom: float, x: float, middle: float) -> list[Point]:
    """The line from the last box of a column, below its bottom, past x, to the top of the next."""
    low, high = max(above.bottom + _PAD, bottom) + 0.1, -0.14
    return [
        (above.x, above.bottom),
        (above.x, low),
        (x, low),
        (x, high),
        (middle, high),
        (middle, 0),
    ]
