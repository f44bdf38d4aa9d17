"""Makes a graph smaller for a drawing: folds repeated blocks, and finds blocks and towers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from jaxcnn.analysis.graph import Graph, Node, ancestors, without

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Nodes of a module that are drawn together.

    Attributes:
      name: of the module, or of the first and the last of several, such as "stage1_block1…3".
      keys: of the nodes.
      count: number of equal modules in a row that the nodes stand for.
    """

    name: str
    keys: tuple[int, ...]
    count: int


def layers_only(graph: Graph) -> Graph:
    """Removes normalizations, activations and factors, except local response normalization."""
    gone = {key for key, node in graph.nodes.items() if node.kind in ("norm", "act", "scale")}
    return without(graph, gone)


def main_path_first(graph: Graph) -> Graph:
    """Moves the shorter branch of each sum behind the longer one, which is then drawn at its left.

    Args:
      graph: of a network.
    """
    order = list(graph.nodes)
    for key, node in graph.nodes.items():
        if node.kind != "add" or len(node.inputs) != 2:
            continue
        one, other = (ancestors(graph.nodes, i) for i in node.inputs)
        shorter = min(one - other, other - one, key=len)
        place = order.index(key)
        moved = [k for k in order[:place] if k in shorter]
        order[:place] = [k for k in order[:place] if k not in shorter] + moved
    return graph._replace(nodes={key: graph.nodes[key] for key in order})


def attach(graph: Graph) -> tuple[Graph, dict[int, list[Node]]]:
    """Removes normalizations and activations that are the only readers of a layer's output.

    In a pre-activation block, only activations behind normalizations are removed.

    Args:
      graph: of a network or a block.

    Returns:
      The graph, and for each layer {key: nodes that followed it directly}.
    """
    consumers = graph.consumers()
    ends = {graph.output, *graph.heads.values()}
    kinds = [node.kind for node in graph.nodes.values() if node.kind in ("conv", "norm")]
    layers = ("norm",) if kinds[:1] == ["norm"] else ("conv", "dense", "norm")
    layer_of: dict[int, int] = {}
    found: dict[int, list[Node]] = {}
    for key, node in graph.nodes.items():
        if node.kind not in ("norm", "act") or len(node.inputs) != 1:
            continue
        [source] = node.inputs
        layer = layer_of.get(source, source)
        is_only = len(consumers[source]) == 1 and source not in ends
        if is_only and graph.nodes[layer].kind in layers:
            layer_of[key] = layer
            found.setdefault(layer, []).append(node)
    return without(graph, set(layer_of)), found


# --- blocks ---------------------------------------------------------------------------------------


def modules(graph: Graph, prefix: Path = ()) -> dict[Path, tuple[int, ...]]:
    """Returns the nodes of each module directly below a module, in order of computation.

    Args:
      graph: of the network.
      prefix: path of the module.
    """
    depth, found = len(prefix), dict[Any, Any]()
    for key, node in graph.nodes.items():
        if node.path[:depth] == prefix and len(node.path) > depth:
            found.setdefault(node.path[: depth + 1], []).append(key)
    return {path: tuple(keys) for path, keys in found.items()}


def blocks(graph: Graph, prefix: Path = ()) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Yields the outermost modules with a branch or several layers.

    A module that consists only of such modules, such as a stage, is not a block itself.

    Args:
      graph: of the network.
      prefix: path of the module in which to look.

    Yields:
      (path, keys of the nodes).
    """
    for path, keys in modules(graph, prefix).items():
        if not _is_block(graph, keys):
            continue
        inner = list(blocks(graph, path))
        within = {key for _, some in inner for key in some}
        if len(inner) > 1 and within == set(keys):
            yield from inner
        else:
            yield path, keys


def _is_block(graph: Graph, keys: tuple[int, ...]) -> bool:
    kinds = [graph.nodes[key].kind for key in keys]
    return "add" in kinds or "concat" in kinds or sum(k in ("conv", "dense") for k in kinds) > 1


def signature(graph: Graph, keys: tuple[int, ...], *, widths: bool = True) -> tuple[object, ...]:
    """Returns what two modules have in common if they are drawn alike.

    Args:
      graph: of the network.
      keys: of the module's nodes.
      widths: whether modules with different numbers of channels differ.
    """
    index = {key: i for i, key in enumerate(keys)}
    outside = {key: -1 - i for i, key in enumerate(externals(graph, keys))}
    parts = []
    for key in keys:
        node = graph.nodes[key]
        text = node.text if widths else (node.label, node.details)
        parts.append((text, *(index.get(i, outside.get(i)) for i in node.inputs)))
    return tuple(parts)


def externals(graph: Graph, keys: tuple[int, ...]) -> list[int]:
    """Returns the keys of the nodes outside a module that the module reads."""
    within = set(keys)
    read = (i for key in keys for i in graph.nodes[key].inputs if i not in within)
    return list(dict.fromkeys(read))


# --- folding --------------------------------------------------------------------------------------


def fold(graph: Graph) -> tuple[Graph, dict[Path, tuple[int, Path]]]:
    """Keeps the last of equal modules in a row.

    Args:
      graph: of the network.

    Returns:
      The graph, and for each module that stands for several {path: (number, path of the first)}.
    """
    counts: dict[Path, tuple[int, Path]] = {}
    for depth in range(max(len(node.path) for node in graph.nodes.values()), 0, -1):
        parents = dict.fromkeys(
            node.path[: depth - 1] for node in graph.nodes.values() if len(node.path) >= depth
        )
        for parent in parents:
            graph = _fold_within(graph, parent, counts)
    return graph, counts


def _fold_within(graph: Graph, parent: Path, counts: dict[Path, tuple[int, Path]]) -> Graph:
    """Folds the modules directly below a module; adds to `counts`."""
    consumers = graph.consumers()
    ends = {graph.output, *graph.heads.values()}
    inside = [(p, keys) for p, keys in modules(graph, parent).items() if len(keys) > 1]
    runs: list[list[tuple[Path, tuple[int, ...]]]] = []
    for path, keys in inside:
        if runs and _follows(graph, consumers, ends, runs[-1], keys):
            runs[-1].append((path, keys))
        else:
            runs.append([(path, keys)])
    for run in runs:
        if len(run) > 1:
            (first, keys), (last, kept) = run[0], run[-1]
            graph = _keep_last(graph, [k for _, ks in run[:-1] for k in ks], keys, kept)
            counts[last] = (len(run), first)
    return graph


def _follows(
    graph: Graph,
    consumers: dict[int, list[int]],
    ends: set[int],
    run: list[tuple[Path, tuple[int, ...]]],
    keys: tuple[int, ...],
) -> bool:
    """Whether a module repeats the last one of a run and is the only module that reads it."""
    before = run[-1][1]
    if signature(graph, before) != signature(graph, keys) or ends & set(before):
        return False
    if any(graph.nodes[a].shape[:-1] != graph.nodes[b].shape[:-1] for a, b in zip(before, keys)):
        return False  # smaller feature maps, as in the blocks of VGG
    read_from = externals(graph, keys)
    within = {*before, *keys}
    if not set(read_from) <= set(before):
        return False
    if len(run) > 1:  # it reads the same nodes of its predecessor as that one does
        earlier = run[-2][1]
        places = [before.index(key) for key in read_from]
        if places != [earlier.index(key) for key in externals(graph, before)]:
            return False
    return all(set(consumers[key]) <= within for key in before)


def _keep_last(
    graph: Graph, gone: list[int], first: tuple[int, ...], last: tuple[int, ...]
) -> Graph:
    become = dict(zip(externals(graph, last), externals(graph, first), strict=True))
    nodes = {key: node for key, node in graph.nodes.items() if key not in set(gone)}
    for key in last:
        inputs = tuple(become.get(i, i) for i in nodes[key].inputs)
        nodes[key] = dataclasses.replace(nodes[key], inputs=inputs)
    return graph._replace(nodes=nodes)


def groups(graph: Graph, counts: dict[Path, tuple[int, Path]]) -> list[Group]:
    """Returns the blocks of a graph, with their names and how often they are repeated.

    Args:
      graph: of the network, folded.
      counts: see `fold`.
    """
    found = []
    for path, keys in blocks(graph):
        count, first = counts.get(path, (1, path))
        found.append(Group(_range(first, path), keys, count))
    return found


def _range(first: Path, last: Path) -> str:
    """The names of the first and the last module, such as "stage1_block1…3"."""
    start, end = "/".join(first), "/".join(last)
    stem = start.rstrip("0123456789")
    if start == end:
        return end
    return f"{start}…{end[len(stem) :]}" if end.startswith(stem) else f"{start} … {end}"


# --- towers ---------------------------------------------------------------------------------------


def split_towers(graph: Graph) -> Graph:
    """Draws a chain with convolutions in two groups as two towers, as AlexNet's figure does.

    Args:
      graph: of layers only.

    Returns:
      The graph with two nodes for each layer up to the last convolution in two groups and the
      pooling after it; the graph itself if it has branches or no such convolution.
    """
    nodes = graph.nodes
    sizes = [node.groups for node in nodes.values() if node.kind == "conv"]
    is_chain = not graph.heads and all(len(node.inputs) < 2 for node in nodes.values())
    if 2 not in sizes or set(sizes) > {1, 2} or not is_chain:
        return graph
    split = _split_keys(graph)
    made: dict[int, Node] = {}
    places: dict[int, tuple[int, ...]] = {}
    for key, node in nodes.items():
        before = places[node.inputs[0]] if node.inputs else ()
        apart = node.kind != "conv" or node.groups == 2  # each tower reads its own half
        halves = range(2) if key in split else range(1)
        places[key] = tuple(len(made) + i for i in halves)
        for i in halves:
            inputs = (before[i],) if key in split and apart and len(before) == 2 else before
            made[len(made)] = (
                _half(node, inputs) if key in split else dataclasses.replace(node, inputs=inputs)
            )
    return Graph(made, places[graph.output][0], {})


def _split_keys(graph: Graph) -> set[int]:
    keys = list(graph.nodes)
    kinds = [graph.nodes[key].kind for key in keys]
    last = max(i for i, key in enumerate(keys) if graph.nodes[key].groups == 2)
    while last + 1 < len(keys) and kinds[last + 1] in ("pool", "lrn"):
        last += 1
    return set(keys[kinds.index("conv") : last + 1])


def _half(node: Node, inputs: tuple[int, ...]) -> Node:
    return dataclasses.replace(
        node,
        inputs=inputs,
        shape=(*node.shape[:-1], node.shape[-1] // 2),
        channels=None if node.channels is None else node.channels // 2,
        details=tuple(word for word in node.details if word != "2 groups"),
    )


# --- one block ------------------------------------------------------------------------------------


def block_graph(graph: Graph, keys: tuple[int, ...]) -> Graph:
    """Returns one block as a graph of its own, with inputs in place of what it reads.

    Args:
      graph: of the network.
      keys: of the block's nodes.
    """
    nodes = {key: Node("input", "input", graph.nodes[key].shape) for key in externals(graph, keys)}
    nodes |= {key: graph.nodes[key] for key in keys}
    read = {i for key in keys for i in graph.nodes[key].inputs}
    last = [key for key in keys if key not in read]
    return Graph(nodes, last[-1], {f"output {i}": key for i, key in enumerate(last[:-1])})
