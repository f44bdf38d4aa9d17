"""An ONNX graph under construction, whose tensors fold scales and shifts into convolutions.

The arrays of a network are [N,H,W,C], those of ONNX's convolutions and pools [N,C,H,W]. A `Tensor`
has the former shape, and is computed in either order of its axes; the graph transposes where an
operation needs the other one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcnn._checks import optional_package

Shape = tuple[Any, ...]  # the first entry may be the symbolic batch size
Numbers = Any  # a float, or an array that broadcasts to the shape of a tensor

LAST, FIRST = "channels last", "channels first"  # FIRST only of tensors with four axes
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_OPSET, _IR_VERSION = 18, 8  # the oldest in which every reduction takes its axes as an input


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor that depends on the images. It is computed when an operation first needs it.

    Attributes:
      shape: of the array in JAX; an axis of length 1 may stand for any length, since ONNX
        broadcasts.
      names: {order of the axes: name in the graph}, of what has been computed.
      linear: of a convolution or a matrix product: `linear(scale, shift)` adds its node, followed
        by a scale and a shift for each output channel, and returns the name.
      order: the order of axes that `linear` computes.
      base: the tensor is scale * base + shift.
      scale, shift: see `base`.
      is_read_once: whether only one operation reads it.
    """

    shape: Shape
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    linear: Callable[[Numbers, Numbers], str] | None = None
    order: str = LAST
    base: Tensor | None = None
    scale: Numbers = 1.0
    shift: Numbers = 0.0
    is_read_once: bool = True

    def affine(self, scale: Numbers, shift: Numbers) -> Tensor:
        """Returns scale * self + shift; nothing is added to the graph yet."""
        scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
        shape = broadcast_shape(self.shape, scale.shape, shift.shape)
        if self.base is not None and not self.names and self.is_read_once:
            scale, shift = self.scale * scale, self.shift * scale + shift
            return Tensor(shape, base=self.base, scale=scale, shift=shift)
        return Tensor(shape, base=self, scale=scale, shift=shift)


def broadcast_shape(*shapes: Shape) -> Shape:
    """Computes the shape to which shapes broadcast; the batch size may be symbolic."""
    rank = max(map(len, shapes))
    full = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((n for n in sizes if not _is_one(n)), 1) for sizes in zip(*full))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def axes_of(layout: str, axes: Sequence[int]) -> list[int]:
    """Translates axes of an array [N,H,W,C] to those of a tensor in an order of its axes."""
    return [_TO_FIRST.index(axis) if layout == FIRST else axis for axis in axes]


class Graph:
    """Nodes and constants of an ONNX graph."""

    def __init__(self) -> None:
        self._onnx = optional_package("onnx", "onnx")
        self._nodes: list[Any] = []
        self._constants: dict[Any, tuple[str, np.ndarray]] = {}

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node.

        Args:
          kind: operation of ONNX.
          inputs: names of its inputs.
          outputs: number of its outputs.
          **attributes: of the node.

        Returns:
          The name of its output, or a list of names if there are several.
        """
        names = [f"{kind.lower()}_{len(self._nodes)}" + f"_{i}" * (i > 0) for i in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Adds a constant, small ones only once, and returns its name."""
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        key: Any = len(self._constants)
        if array.size <= 64:
            key = (array.dtype.str, array.shape, array.tobytes())
        return self._constants.setdefault(key, (f"constant_{len(self._constants)}", array))[0]

    def name(self, tensor: Tensor, layout: str | None = None) -> str:
        """Returns the name of a tensor, after adding what computes it.

        Args:
          tensor: to be computed.
          layout: order of its axes; None for the one in which it is computed.
        """
        if not tensor.names:
            self._compute(tensor)
        if layout is None:
            return next(iter(tensor.names.values()))
        if layout not in tensor.names:
            axes = _TO_FIRST if layout == FIRST else _TO_LAST
            tensor.names[layout] = self.add("Transpose", [self.name(tensor)], perm=axes)
        return tensor.names[layout]

    def layout(self, *tensors: Tensor) -> str:
        """Returns the order of axes in which an operation should read tensors."""
        for tensor in tensors:
            self.name(tensor)
        orders = [order for tensor in tensors for order in tensor.names]
        return FIRST if FIRST in orders and all(len(t.shape) == 4 for t in tensors) else LAST

    def operand(self, value: Tensor | np.ndarray, layout: str) -> str:
        """Returns the name of a tensor or of a constant that broadcasts to one."""
        if isinstance(value, Tensor):
            return self.name(value, layout)
        if np.ndim(value) == 4 and layout == FIRST:
            value = np.transpose(value, _TO_FIRST)
        return self.constant(value, None if value.dtype == bool else np.float32)

    def _compute(self, tensor: Tensor) -> None:
        base, scale, shift = tensor.base, tensor.scale, tensor.shift
        if tensor.linear is not None:
            tensor.names[tensor.order] = tensor.linear(1.0, 0.0)
            return
        assert base is not None
        if base.linear and not base.names and base.is_read_once and _per_channel(scale, shift):
            tensor.names[base.order] = base.linear(scale, shift)
            return
        layout = self.layout(base)
        name = self.name(base, layout)
        if np.any(scale != 1):
            name = self.add("Mul", [name, self.operand(scale, layout)])
        if np.any(shift != 0):
            name = self.add("Add", [name, self.operand(shift, layout)])
        tensor.names[layout] = name

    def model(self, name: str, images: Any, output: Any, result: str) -> Any:
        """Makes the ONNX model.

        Args:
          name: of the graph.
          images: description of its input, made by `onnx.helper`.
          output: likewise, of its output.
          result: name in the graph of what is returned.
        """
        import jaxcnn

        make, nodes = self._onnx.helper, _needed(self._nodes, result)
        used = {name for node in nodes for name in node.input}
        constants = [
            self._onnx.numpy_helper.from_array(array, name)
            for name, array in self._constants.values()
            if name in used
        ]
        nodes = [*nodes, make.make_node("Identity", [result], [output.name])]
        graph = make.make_graph(nodes, name, [images], [output], constants)
        return make.make_model(
            graph,
            opset_imports=[make.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="jaxcnn",
            producer_version=jaxcnn.__version__,
        )


def _per_channel(*values: Numbers) -> bool:
    """Whether each value is one number, or one number per channel, the last axis."""
    return all(np.size(value) == np.shape(value)[-1] for value in values if np.ndim(value))


def _needed(nodes: Sequence[Any], result: str) -> list[Any]:
    """The nodes that a result depends on."""
    wanted, kept = {result}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
