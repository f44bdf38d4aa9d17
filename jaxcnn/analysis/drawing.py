"""Draws networks from their traces: whole networks, their stages, and single blocks as graphs."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn

from jaxcnn._checks import near, one_of, require
from jaxcnn._files import atomic_write
from jaxcnn.analysis.graph import Graph, Node, read_graph
from jaxcnn.analysis.graph_edits import (
    Group,
    block_graph,
    blocks,
    fold,
    groups,
    layers_only,
    signature,
    split_towers,
)
from jaxcnn.analysis.trace import Traced, trace
from jaxcnn.models.costs import count_params, jaxpr_macs
from jaxcnn.reporting.graph_layout import Frame, Placed, place
from jaxcnn.reporting.graph_picture import (
    WIDEST,
    Cell,
    Sheet,
    draw_sheets,
    label_width,
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
        """Returns the drawing as SVG; its text is drawn as curves, as in every font's absence."""
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
        with atomic_write(path) as draft:
            if suffix == ".html":
                svg = self.to_svg()
                page = _PAGE.format(title=self.title, svg=svg[svg.index("<svg") :])
                draft.write_text(page, "utf-8")
            elif suffix == ".svg":
                draft.write_text(self.to_svg(), "utf-8")
            else:
                self.figure.savefig(draft, dpi=150)

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
      unfold: draw repeated blocks one by one.
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


def _network_sheets(traces: Sequence[Traced], unfold: bool) -> list[Sheet]:
    sheets = []
    for traced in traces:
        graph = layers_only(read_graph(traced))
        graph, counts = (graph, {}) if unfold else fold(graph)
        found = groups(graph, counts)
        towers = split_towers(graph)
        if towers is not graph:
            graph, found = towers, []
        cells = {key: _cell(graph, node) for key, node in graph.nodes.items()}
        labels = [("" if g.count == 1 else f"× {g.count}", g.name) for g in found]
        placed = _placed(graph, cells, found, labels, alone=len(traces) == 1)
        sheets.append(Sheet(traced.name, _costs(traced), placed, cells, labels))
    return sheets


def _placed(
    graph: Graph,
    cells: Mapping[int, Cell],
    found: Sequence[Group],
    labels: Sequence[tuple[str, str]],
    *,
    alone: bool,
) -> Placed:
    """Places a network; if it is drawn alone, in as many columns as there is room for."""
    frames = [Frame(g.keys, label_width(label)) for g, label in zip(found, labels)]
    edges = [(source, key) for key, node in graph.nodes.items() for source in node.inputs]
    height = _HEIGHT if alone else float("inf")
    while True:
        boxes = {key: cell.box() for key, cell in cells.items()}
        placed = place(
            boxes,
            edges,
            [graph.output],
            heads=list(graph.heads.values()),
            frames=frames,
            max_height=height,
        )
        if not alone or placed.extent[2] < WIDEST - 0.5 or height > 200:
            return placed
        height *= 1.25


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
    part = block_graph(graph, keys)
    cells = {key: _block_cell(part, node) for key, node in part.nodes.items()}
    boxes = {key: cell.box() for key, cell in cells.items()}
    edges = [(source, key) for key, node in part.nodes.items() for source in node.inputs]
    placed = place(boxes, edges, [*part.heads.values(), part.output])
    more = len(names) - 1
    others = f"; {more} more of this kind" if more else ""
    return Sheet(traced.name, f"{names[0]}{others}", placed, cells)


def _block_cell(graph: Graph, node: Node) -> Cell:
    """A node, with the shape of its output where the shape changes."""
    if node.kind in _JOINS:
        return Cell(node.kind, node.label)
    before: Iterable[Any] = [graph.nodes[key].shape for key in node.inputs]
    changes = node.shape not in before or node.kind in ("conv", "dense")
    return Cell(node.kind, node.text, _times(node.shape) if changes else "")


def _times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
