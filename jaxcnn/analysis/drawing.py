"""Draws networks from their traces: whole networks, their stages, and single blocks as graphs."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from jaxcnn._checks import near, one_of, require
from jaxcnn._files import write_output
from jaxcnn.analysis.graph import Graph, Node, ancestors, read_graph
from jaxcnn.analysis.graph_edits import (
    Group,
    attach,
    block_graph,
    blocks,
    fold,
    groups,
    layers_only,
    main_path_first,
    signature,
    split_towers,
)
from jaxcnn.analysis.trace import Traced, trace
from jaxcnn.models.costs import count_params, jaxpr_macs
from jaxcnn.reporting import figures
from jaxcnn.reporting.graph_layout import Frame, Placed, place
from jaxcnn.reporting.graph_picture import (
    WIDEST,
    Cell,
    Sheet,
    draw_sheets,
    label_size,
)

LEVELS = ("network", "stage", "block")
SUFFIXES = (".svg", ".png", ".pdf", ".html")

_HEIGHT = 9.5  # inches: of a column, unless the picture would become too wide
_JOINS = ("add", "multiply")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ margin: 1em; text-align: center }} svg {{ max-width: 100%; height: auto }}</style>
</head><body>
{svg}
</body></html>
"""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A drawing of networks, which shows itself in a notebook.

    Attributes:
      title: names of the networks.
      figure: the Matplotlib figure.
    """

    title: str
    figure: Any

    def to_svg(self) -> str:
        """Returns the drawing as SVG; text is drawn as curves, so that no font is needed."""
        import matplotlib as mpl

        stream = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "jaxcnn"}):  # the same file every time
            self.figure.savefig(stream, format="svg", metadata={"Date": None, "Title": self.title})
        return stream.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes the drawing.

        Args:
          path: of the file, .svg, .png, .pdf or .html.

        Raises:
          ValueError: the suffix is another one.
        """
        suffix = one_of("the suffix of a drawing", Path(path).suffix, SUFFIXES)
        if suffix == ".html":
            svg = self.to_svg()
            write_output(path, _PAGE.format(title=self.title, svg=svg[svg.index("<svg") :]))
        elif suffix == ".svg":
            write_output(path, self.to_svg())
        else:
            figures.save(self.figure, path, dpi=150)

    def _repr_svg_(self) -> str:
        return self.to_svg()


def draw(
    *models: str | nn.Module,
    level: str = "network",
    block: str | None = None,
    unfold: bool = False,
    input_size: int | tuple[int, ...] | None = None,
    **options: Any,
) -> Drawing:
    """Draws networks side by side, without computing anything.

    Args:
      *models: ids or aliases, addresses of networks, or modules.
      level: "network" for the layers from the image to the logits, with repeated blocks folded;
        "stage" for the feature maps as solids; "block" for the graph of each kind of block, with
        normalizations and activations.
      block: name of the module to draw at level "block"; by default one block of each kind.
      unfold: draw repeated blocks one by one, without frames.
      input_size: see `jaxcnn.summarize`.
      **options: for `create_model`, where a model is a name.

    Returns:
      The drawing, which shows itself in a notebook: `draw("resnet50").save("resnet50.svg")`.

    Raises:
      ValueError: a name, the level or an option is unknown, the input size is missing or too small,
        or a network has no block.
    """
    one_of("level", level, LEVELS)
    require(len(models) > 0, "models", models, "at least one network")
    require(block is None or level == "block", "level", level, f"'block' to draw block={block!r}")
    require(not unfold or level == "network", "level", level, "'network' for unfold=True")
    traces = [trace(model, input_size, options, endpoints=True) for model in models]
    title = ", ".join(traced.name for traced in traces)
    if level == "stage":
        from jaxcnn.analysis.volumes import draw_volumes

        return Drawing(title, draw_volumes(traces))
    if level == "block":
        sheets = [sheet for traced in traces for sheet in _block_sheets(traced, block)]
    else:
        sheets = _network_sheets(traces, unfold)
    return Drawing(title, draw_sheets(sheets))


# --- whole networks -------------------------------------------------------------------------------


class _Network(NamedTuple):
    """A network that is ready to be placed."""

    graph: Graph
    cells: Mapping[int, Cell]
    groups: Sequence[Group]
    labels: Sequence[tuple[str, str]]

    def place(
        self, max_height: float = math.inf, starts: Mapping[int, float] | None = None
    ) -> Placed:
        frames = [Frame(g.keys, *label_size(label)) for g, label in zip(self.groups, self.labels)]
        nodes = self.graph.nodes
        return place(
            {key: cell.box() for key, cell in self.cells.items()},
            [(source, key) for key, node in nodes.items() for source in node.inputs],
            [self.graph.output],
            heads=list(self.graph.heads.values()),
            frames=frames,
            max_height=max_height,
            starts=starts,
        )


def _network_sheets(traces: Sequence[Traced], unfold: bool) -> list[Sheet]:
    networks = [_network(traced, unfold) for traced in traces]
    if len(networks) == 1:
        placed = [_in_columns(networks[0])]
    elif len({traced.size[:2] for traced in traces}) == 1:
        placed = _aligned(networks)
    else:
        placed = [network.place() for network in networks]
    return [
        Sheet(traced.name, _costs(traced), one, network.cells, network.labels)
        for traced, one, network in zip(traces, placed, networks)
    ]


def _network(traced: Traced, unfold: bool) -> _Network:
    graph = layers_only(main_path_first(read_graph(traced)))
    found: list[Group] = []
    if not unfold:
        graph, counts = fold(graph)
        found = groups(graph, counts)
    towers = split_towers(graph)
    if towers is not graph:
        graph, found = towers, []
    cells = {key: _cell(graph, node) for key, node in graph.nodes.items()}
    for name, key in graph.heads.items():
        cells[key] = dataclasses.replace(cells[key], note=name)
    labels = [("" if g.count == 1 else f"× {g.count}", g.name) for g in found]
    heads = {key for head in graph.heads.values() for key in ancestors(graph.nodes, head)}
    heads -= ancestors(graph.nodes, graph.output)
    labels = [("", "") if heads & set(g.keys) else text for g, text in zip(found, labels)]
    return _Network(graph, cells, found, labels)


def _in_columns(network: _Network) -> Placed:
    """Places a network in as many columns as there is room for."""
    height = _HEIGHT
    while True:
        placed = network.place(height)
        left, _, right, _ = placed.extent
        if right - left < WIDEST - 0.5 or height > 1000:
            return placed
        height *= 1.25


def _aligned(networks: Sequence[_Network]) -> list[Placed]:
    """Places networks so that feature maps of the same size begin at the same height."""
    sizes = {node.shape[0] for n in networks for node in n.graph.nodes.values() if _is_map(node)}
    starts: list[dict[int, float]] = [{} for _ in networks]
    placed = [network.place() for network in networks]
    for size in sorted(sizes, reverse=True)[1:]:
        tops: dict[int, tuple[int, float]] = {}
        for i, (network, one) in enumerate(zip(networks, placed)):
            keys = [k for k, n in network.graph.nodes.items() if _is_map(n) and n.shape[0] == size]
            if keys:
                first = next(iter(one.boxes.values()))
                tops[i] = keys[0], one.boxes[keys[0]].top - first.top
        lowest = max(top for _, top in tops.values())
        for i, (key, top) in tops.items():
            if top < lowest - 1e-6:
                starts[i][key] = lowest
                placed[i] = networks[i].place(starts=starts[i])
    return placed


def _is_map(node: Node) -> bool:
    return len(node.shape) == 3


def _cell(graph: Graph, node: Node) -> Cell:
    """A layer, with the shape of its output where height or width change."""
    if node.kind in _JOINS:
        return Cell(node.kind, node.label)
    before = graph.nodes[node.inputs[0]].shape if node.inputs else ()
    changes = len(node.shape) == 3 and node.shape[:2] != before[:2]
    pooled = node.kind == "pool" and len(node.shape) != len(before)
    shown = changes or pooled or node.kind in ("concat", "input")
    return Cell(node.kind, node.text, _times(node.shape) if shown else "")


def _costs(traced: Traced) -> str:
    params = count_params(traced.variables["params"])
    return f"{_short(params)} parameters, {_short(jaxpr_macs(traced.jaxpr))} multiply-adds"


def _short(number: float) -> str:
    """Three digits with a unit, such as "25.6 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


# --- blocks ---------------------------------------------------------------------------------------


def _block_sheets(traced: Traced, name: str | None) -> list[Sheet]:
    graph = read_graph(traced)
    found = {"/".join(path): keys for path, keys in blocks(graph)}
    if not found:
        raise ValueError(f"{traced.name} has no block of several layers; draw it as a network")
    if name is not None and name not in found:
        hint = near(name, found) or f"; the blocks are {', '.join(found)}"
        raise ValueError(f"{traced.name} has no block {name!r}{hint}")
    kinds: dict[Any, list[str]] = {}
    for one, keys in found.items():
        if name in (None, one):
            kinds.setdefault(signature(graph, keys, widths=False), []).append(one)
    return [_block_sheet(traced, graph, found[names[0]], names) for names in kinds.values()]


def _block_sheet(
    traced: Traced, graph: Graph, keys: tuple[int, ...], names: Sequence[str]
) -> Sheet:
    part, strips = attach(main_path_first(block_graph(graph, keys)))
    cells = {
        key: _block_cell(part, node, tuple((n.kind, n.text) for n in strips.get(key, ())))
        for key, node in part.nodes.items()
    }
    boxes = {key: cell.box() for key, cell in cells.items()}
    edges = [(source, key) for key, node in part.nodes.items() for source in node.inputs]
    placed = place(boxes, edges, [*part.heads.values(), part.output])
    more = len(names) - 1
    others = f"and {more} more of this kind" if more else ""
    return Sheet(f"{traced.name}: {names[0]}", others, placed, cells)


def _block_cell(graph: Graph, node: Node, strips: tuple[tuple[str, str], ...]) -> Cell:
    """A node, with the shape of its output where it computes a new one."""
    if node.kind in _JOINS:
        return Cell(node.kind, node.label)
    before: Iterable[Any] = [graph.nodes[key].shape for key in node.inputs]
    changes = node.kind != "dense" and (node.shape not in before or node.kind == "conv")
    return Cell(node.kind, node.text, _times(node.shape) if changes else "", strips)


def _times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
