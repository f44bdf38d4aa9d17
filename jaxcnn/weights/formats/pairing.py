"""Pairs the layers of a network with those of a file."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

from jaxcnn.weights.formats.graph import LAYERS, Node
from jaxcnn.weights.mismatch import of_that_size

WEIGHTED = (*LAYERS, "norm")


def pair(name: str, own: Sequence[Node], given: Sequence[Node]) -> list[tuple[Node, Node | None]]:
    """Pairs the layers of a network with those of a file, in their order.

    Args:
      name: of the network.
      own: its layers.
      given: those of the file.

    Returns:
      Pairs; a normalization that the file has folded into the layer before has none.

    Raises:
      ValueError: a layer differs. The message names the first one.
    """
    mine = [node for node in own if node.kind in WEIGHTED]
    theirs = [node for node in given if node.kind in WEIGHTED]
    pairs: list[tuple[Node, Node | None]] = []
    rest = collections.deque(theirs)
    for node in mine:
        if rest and is_same(node, rest[0]):
            pairs.append((node, rest.popleft()))
        elif node.kind == "norm" and node.inputs[0].kind in LAYERS:
            pairs.append((node, None))
        else:
            raise ValueError(difference(name, len(pairs), node, rest[0] if rest else None, theirs))
    if rest:
        raise ValueError(difference(name, len(pairs), None, rest[0], theirs))
    return pairs


def is_same(own: Node, given: Node) -> bool:
    """Returns whether layers of a network and of a file are of the same kind and shape."""
    if "norm" in (own.kind, given.kind):
        return own.kind == given.kind and own.channels == given.channels
    if len(own.shape) == len(given.shape):
        return own.shape == given.shape
    return own.shape[-1] == given.shape[-1] and math.prod(own.shape) == math.prod(given.shape)


def difference(
    name: str, position: int, own: Node | None, given: Node | None, theirs: Sequence[Node]
) -> str:
    """Describes a layer that differs.

    Args:
      name: of the network.
      position: of the layer.
      own: the layer of the network, if it has one there.
      given: the layer of the file, if it has one there.
      theirs: all layers of the file.
    """
    here = "nothing" if own is None else own.described()
    there = "nothing" if given is None else given.described()
    count = sum(a.size for n in theirs for k, a in n.arrays.items() if k not in ("mean", "var"))
    same = [other for other in of_that_size(count) if other != name]
    hint = f"; they have as many parameters as {', '.join(same)}" if same else ""
    return (
        f"these weights do not fit {name}: layer {position + 1} is {here} in the network and "
        f"{there} in the file{hint}"
    )
