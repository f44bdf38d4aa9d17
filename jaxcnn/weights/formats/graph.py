"""Networks as graphs of layers, in an order that does not depend on who wrote them down.

A file of another framework and a network of jaxcnn both become a graph of `Node`s. Only layers that
have weights or windows are nodes; what lies between them (ReLU, reshaping, dropout) is left out.
Concatenations have ordered inputs. Sums and products do not, so that their inputs are sorted by
what the layers below them look like. Two graphs of the same network thus list their layers in the
same order, whatever the names and the order in the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[int, int]

LAYERS = ("conv", "dense")
_COMMUTATIVE = ("add", "mul")
_CODES = {"input": 1, "layer": 2, "concat": 3, "add": 4, "mul": 5}  # hashes of texts are random


class Window(NamedTuple):
    """Window of a convolution or pooling.

    Attributes:
      kernel, stride: (height, width).
      padding: ((top, bottom), (left, right)), or None for TensorFlow's "SAME".
      ceil: whether the output size is rounded up, as in Caffe's pooling.
      dilation: (height, width).
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] | None = ((0, 0), (0, 0))
    ceil: bool = False
    dilation: Pair = (1, 1)

    def placed(self, size: Sequence[int]) -> tuple[Pair, ...]:
        """Returns (output size, zeros before the first row or column) for each axis.

        Args:
          size: (height, width) of the input.
        """
        return tuple(self._along(axis, n) for axis, n in enumerate(size))

    def padded(self, rows: Pair, columns: Pair) -> Window:
        """Returns the window with more zeros around the image.

        Args:
          rows: above and below.
          columns: on the left and on the right.

        Raises:
          ValueError: there are any, and the padding is TensorFlow's.
        """
        if self.padding is not None:
            return self._replace(padding=more_zeros(self.padding, (rows, columns)))
        if any((*rows, *columns)):
            raise ValueError('zeros before a window with "same" padding are not supported')
        return self

    def _along(self, axis: int, n: int) -> Pair:
        kernel = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        stride = self.stride[axis]
        if self.padding is None:
            out = -(-n // stride)
            return out, max((out - 1) * stride + kernel - n, 0) // 2
        low, high = self.padding[axis]
        space = n + low + high - kernel
        out = (-(-space // stride) if self.ceil else space // stride) + 1
        if self.ceil and (low or high) and (out - 1) * stride >= n + low:
            out -= 1
        return out, low


def more_zeros(zeros: tuple[Pair, Pair], more: Sequence[Sequence[int]]) -> tuple[Pair, Pair]:
    """Adds zeros around an image to others: ((above, below), (left, right))."""
    (top, bottom), (left, right) = zeros
    (above, below), (before, after) = more
    return (top + above, bottom + below), (left + before, right + after)


@dataclasses.dataclass(eq=False)
class Node:
    """A layer of a network.

    Attributes:
      kind: "input", "conv", "dense", "norm", "max_pool", "avg_pool", "lrn", "pad", "concat", "add"
        or "mul".
      inputs: the layers that it reads.
      name: in the file, or the path of the module in the variables of a network of jaxcnn.
      arrays: kernel f[kh,kw,in/groups,out] or f[in,out] and bias; of "norm" mean, var, and scale
        and bias where it has them.
      shape: of the kernel.
      groups: of a convolution.
      window: of a convolution or pooling.
      size: (height, width) of the input, where known.
      channels: of the output.
      epsilon: of "norm".
      flattened: how a dense layer's inputs are ordered, "HWC" or "CHW".
      facts: other attributes.
      key: a number that depends on the layers from the images to this one, not on their names.
    """

    kind: str
    inputs: tuple[Node, ...] = ()
    name: str = ""
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = ()
    groups: int = 1
    window: Window | None = None
    size: Pair | None = None
    channels: int = 0
    epsilon: float = 0.0
    flattened: str = "HWC"
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    key: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if "kernel" in self.arrays:
            self.shape = self.arrays["kernel"].shape
        if self.kind in LAYERS:
            self.channels = self.shape[-1]
        elif "mean" in self.arrays:
            self.channels = self.arrays["mean"].size
        elif not self.channels and self.kind == "concat":
            self.channels = sum(node.channels for node in self.inputs)
        elif not self.channels and self.inputs:
            self.channels = max(node.channels for node in self.inputs)
        below = [node.key for node in self.inputs]
        if self.kind in LAYERS:
            rows = int(np.prod(self.shape[:-1]))
            self.key = hash((_CODES["layer"], rows, self.shape[-1], *below))
        elif self.kind == "concat":
            parts = [p for node in self.inputs for p in node.parts]
            self.key = hash((_CODES["concat"], *parts))
        elif self.kind in _COMMUTATIVE:
            self.key = hash((_CODES[self.kind], *sorted(below)))
        else:
            self.key = below[0] if below else _CODES["input"]

    @property
    def parts(self) -> list[int]:
        """Keys of what a concatenation consists of, concatenations inside it taken apart."""
        if self.kind != "concat":
            return [self.key]
        return [part for node in self.inputs for part in node.parts]

    def in_order(self) -> tuple[Node, ...]:
        """Returns the inputs; those of a sum or product in an order that depends on the layers."""
        if self.kind in _COMMUTATIVE:
            return tuple(sorted(self.inputs, key=lambda node: node.key))
        return self.inputs

    def described(self) -> str:
        """Returns the name and the shape, as 'conv1 7x7x3x64'."""
        if self.kind == "norm":
            return f"{self.name} (normalization of {self.channels} channels)"
        if self.window is not None and not self.shape:
            kernel = "x".join(map(str, self.window.kernel))
            return f"{self.name} ({self.kind.replace('_', ' ')}, {kernel})"
        return f"{self.name} {'x'.join(map(str, self.shape))}".strip()


def joined(kind: str, nodes: Iterable[Node], name: str = "") -> Node:
    """Creates a concatenation, sum or product of what are different nodes; one is returned as is.

    Args:
      kind: "concat", "add" or "mul".
      nodes: the inputs.
      name: of the node.
    """
    found = tuple(dict.fromkeys(nodes))
    if len(found) == 2 and kind != "concat":
        # Response normalization multiplies its input by a function of it.
        for a, b in (found, found[::-1]):
            if a.kind == "lrn" and a.inputs == (b,):
                return a
    return found[0] if len(found) == 1 else Node(kind, found, name)


def ordered(outputs: Sequence[Node]) -> list[Node]:
    """Lists the nodes with weights or windows, each after those that it reads.

    Args:
      outputs: of the network, the most important first.
    """
    found: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(outputs)]
    while stack:
        node, done = stack.pop()
        if done:
            if node.kind not in ("input", "pad", "concat", *_COMMUTATIVE):
                found.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        stack += [(child, False) for child in reversed(node.in_order())]
    return found


def outputs_of(ends: Iterable[Node]) -> list[Node]:
    """Returns the outputs of a network, those with the most layers below them first.

    Args:
      ends: nodes that may be outputs; those that another one reads are not.
    """
    below = {node: ordered([node]) for node in ends}
    inner = {n for node, found in below.items() for n in found if n is not node}
    depth = {node: sum(n.kind in LAYERS for n in found) for node, found in below.items()}
    return sorted((n for n in depth if depth[n] and n not in inner), key=lambda n: -depth[n])


class Graph(NamedTuple):
    """A network in a file of another framework.

    Attributes:
      format: name of the framework.
      outputs: the layers that no other layer reads, the most important first.
      size: height of the images, where the file says it.
      mean, scale: of BGR images where the file says them: means of pixels in [0,255], and the
        factor after their subtraction.
    """

    format: str
    outputs: list[Node]
    size: int | None = None
    mean: tuple[float, ...] | None = None
    scale: float = 1.0


class Layers(NamedTuple):
    """Layers without the graph that they form.

    Attributes:
      format: name of the framework.
      layers: in the order of the file, with their names.
      named: whether the names are those of the layers, not numbers that the file has given them.
      scope: of TF-Slim: with which the names of the network's variables begin.
      size: height of the images, where the names say it.
    """

    format: str
    layers: list[Node]
    named: bool = True
    scope: str = ""
    size: int | None = None


def reads_images(node: Node) -> bool:
    """Returns whether a layer normalizes the images."""
    return node.kind == "norm" and node.inputs[0].kind == "input"


def affine(node: Node, scale: Any, bias: Any, name: str) -> Node:
    """Multiplies a layer's channels and adds to them.

    What follows a normalization becomes its scale and bias; otherwise the result is a normalization
    with mean 0 and variance 1.

    Args:
      node: the layer.
      scale: f[C] or a number.
      bias: likewise.
      name: of the result.
    """
    channels = node.channels
    scale, bias = (np.broadcast_to(np.ravel(a), channels).astype(np.float32) for a in (scale, bias))
    if node.kind != "norm":
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        arrays = {"mean": zeros, "var": ones, "scale": scale, "bias": bias}
        return Node("norm", (node,), name, arrays, facts={"affine": True})
    arrays = dict(node.arrays)
    arrays["bias"] = scale * arrays.get("bias", 0) + bias
    if "scale" in arrays or not np.all(scale == 1):
        arrays["scale"] = scale * arrays.get("scale", 1)
    return Node(
        "norm", node.inputs, node.name, arrays, epsilon=node.epsilon, facts=dict(node.facts)
    )
