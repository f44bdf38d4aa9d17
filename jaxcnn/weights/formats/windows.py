"""Compares strides, padding and pooling of a network and a file, which no weights show."""

from __future__ import annotations

from collections.abc import Sequence

from jaxcnn.weights.formats.graph import Node

_SMALL = 6  # average pooling over larger windows is over all pixels


class OtherWindows(ValueError):
    """The weights fit, but a stride, a padding or a pooling differs."""


def compare(
    name: str,
    pairs: Sequence[tuple[Node, Node | None]],
    own: Sequence[Node],
    given: Sequence[Node],
) -> None:
    """Compares the pixels at which convolutions and poolings look.

    Args:
      name: of the network.
      pairs: of the network's layers and the file's.
      own: all layers of the network, those without weights too.
      given: all layers of the file.

    Raises:
      OtherWindows: they differ.
    """
    kinds = ("max_pool", "avg_pool", "lrn")
    mine = [node for node in own if node.kind in kinds]
    theirs = [node for node in given if node.kind in kinds and not _is_global(node)]
    for node, other in pairs:
        if other is not None and other.window is not None and node.window is not None:
            _compare_one(name, node, other)
    for node, other in zip(mine, theirs):
        if node.kind != other.kind:
            raise OtherWindows(_other(name, node, other))
        if node.kind != "lrn":
            _compare_one(name, node, other)
    if len(mine) != len(theirs):
        raise OtherWindows(
            f"these weights have the shapes of {name}, but it has {len(mine)} layers of pooling "
            f"and response normalization, and the file {len(theirs)}"
        )


def _is_global(node: Node) -> bool:
    if node.window is None:
        return False
    kernel = max(node.window.kernel)
    return kernel == 1 or (node.kind == "avg_pool" and kernel >= _SMALL)


def _compare_one(name: str, own: Node, given: Node) -> None:
    assert own.window is not None and given.window is not None
    if own.size is None:
        return
    if (
        own.window.kernel != given.window.kernel
        or own.window.stride != given.window.stride
        or own.window.placed(own.size) != given.window.placed(own.size)
    ):
        raise OtherWindows(_other(name, own, given))


def _other(name: str, own: Node, given: Node) -> str:
    return (
        f"these weights have the shapes of {name}, but its {_seen(own)} is {_seen(given)} in the "
        "file"
    )


def _seen(node: Node) -> str:
    if node.window is None:
        return node.described()
    window = node.window
    sides = "SAME" if window.padding is None else window.padding
    ceil = ", rounded up" if window.ceil else ""
    return f"{node.described()} with stride {window.stride}, padding {sides}{ceil}"
