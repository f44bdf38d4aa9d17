"""Reads ONNX models without ONNX.

Convolutions and normalizations are recognized even if an exporter has folded one into the other or
has written a normalization as a product and a sum. Only the parts of a graph that depend on the
images become layers; the rest is computed from the constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxcnn.weights.formats import protobuf
from jaxcnn.weights.formats.graph import (
    LAYERS,
    Graph,
    Node,
    Window,
    affine,
    joined,
    more_zeros,
    outputs_of,
    reads_images,
)

_SCHEMA = """
Model: string producer_name = 2, Graph graph = 7
Graph: repeated Operation node = 1, repeated Tensor initializer = 5, repeated Value input = 11, \
  repeated Value output = 12
Operation: repeated string input = 1, repeated string output = 2, string name = 3, \
  string op_type = 4, repeated Attribute attribute = 5
Attribute: string name = 1, float f = 2, int64 i = 3, bytes s = 4, Tensor t = 5, \
  repeated float floats = 7, repeated int64 ints = 8
Tensor: repeated int64 dims = 1, int32 data_type = 2, repeated bytes float_data = 4, \
  repeated int32 int32_data = 5, repeated int64 int64_data = 7, string name = 8, \
  bytes raw_data = 9, repeated bytes double_data = 10, int32 data_location = 14
Value: string name = 1, Type type = 2
Type: TensorType tensor_type = 1
TensorType: TensorShape shape = 2
TensorShape: repeated Dimension dim = 1
Dimension: int64 dim_value = 1
"""

_DTYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64, 16: ml_dtypes.bfloat16,
}  # fmt: skip


class Value(NamedTuple):
    """What an edge of the graph carries.

    Attributes:
      node: the layer.
      channels_last: whether the channels are the last axis.
      zeros: around the image: (above, below), (left, right).
    """

    node: Node
    channels_last: bool = False
    zeros: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


def read(path: Path) -> Graph:
    """Reads a network.

    Args:
      path: of an .onnx file.

    Raises:
      ValueError: the file is damaged or of another kind, or keeps its weights in other files.
    """
    model = protobuf.parse(path, _SCHEMA, "Model", "ONNX model")
    if not model.graph.node:
        raise ValueError(f"{path} is not an ONNX model, or is damaged: it has no graph")
    try:
        return _graph(model.graph)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as ONNX: {error}") from error


def _graph(graph: Any) -> Graph:
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    values: dict[str, Value] = {}
    size = None
    for value in graph.input:
        if value.name not in constants:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
            size = (shape[1 if last else 2] or None) if len(shape) == 4 else None
            channels = shape[3 if last else 1] if len(shape) == 4 else 3
            values[value.name] = Value(Node("input", channels=channels or 3), last)
    for operation in graph.node:
        step = _Step(operation, constants, values)
        if not any(name in values for name in operation.input):
            constants |= step.constant()
        elif operation.op_type not in ("Shape", "Size"):
            values |= dict.fromkeys(operation.output, step.value())
    ends = [values[output.name].node for output in graph.output if output.name in values]
    return Graph("ONNX", outputs_of(ends), size)


def _array(tensor: Any) -> np.ndarray:
    if tensor.data_location:
        raise ValueError(f"the weights of {tensor.name!r} are in another file")
    if tensor.data_type not in _DTYPES:
        raise ValueError(f"{tensor.name!r} is of the unknown type {tensor.data_type}")
    dtype, shape = np.dtype(_DTYPES[tensor.data_type]), tuple(tensor.dims)
    if tensor.raw_data:
        found = protobuf.numbers([tensor.raw_data], dtype)
    elif tensor.float_data:
        found = protobuf.numbers(tensor.float_data, np.float32)
    elif tensor.double_data:
        found = protobuf.numbers(tensor.double_data, np.float64)
    elif tensor.int32_data and dtype.itemsize == 2:  # halves are stored as the bits of integers
        found = np.array(tensor.int32_data, np.uint16).view(dtype)
    else:
        found = np.array(tensor.int32_data or tensor.int64_data, dtype)
    if found.size != np.prod(shape, dtype=int):
        raise ValueError(f"{tensor.name!r} has {found.size} values for {list(shape)}")
    return found.reshape(shape)


def _transpose(x: np.ndarray, perm: Any = None) -> np.ndarray:
    return x.transpose(perm or None)


def _reshape(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


# What exporters leave to be computed from weights alone.
_CONSTANTS: dict[str, Callable[..., np.ndarray]] = {
    "Identity": lambda x: x,
    "Cast": lambda x: x,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": lambda x, *_: x,  # only vectors of channels, whose shape does not matter
    "Squeeze": lambda x, *_: x,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Neg": np.negative,
}
# Operations with weights that no network of jaxcnn has.
_UNKNOWN = (
    "ConvTranspose", "PRelu", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "LSTM", "GRU", "RNN",
)  # fmt: skip
_INVERSE = {"Sub": "Add", "Div": "Mul"}


class _Step:
    """One operation of a graph.

    Attributes:
      kind, name: of the operation.
      inputs: names of what it reads.
    """

    def __init__(
        self, operation: Any, constants: Mapping[str, np.ndarray], values: Mapping[str, Value]
    ):
        self.operation, self.constants = operation, constants
        self.kind, self.inputs = operation.op_type, list(operation.input)
        self.name = operation.name or operation.output[0]
        self.given = [values[name] for name in self.inputs if name in values]
        self.attributes = {a.name: a for a in operation.attribute}

    def constant(self) -> dict[str, np.ndarray]:
        """The results of an operation on constants; nothing of one that weights do not need."""
        output = self.operation.output[0]
        if self.kind == "Constant":
            value = self.attributes.get("value")
            if value is not None and value.t.data_type in _DTYPES:
                return {output: _array(value.t)}
            return {}
        arrays = [self.constants.get(name) for name in self.inputs]
        if self.kind == "ConstantOfShape" and arrays[0] is not None:
            given = self.attributes.get("value")
            value = np.zeros(1, np.float32) if given is None else _array(given.t)
            return {output: np.full(arrays[0], value[0])}
        if self.kind not in _CONSTANTS or any(array is None for array in arrays):
            return {}
        options = {"perm": self.ints("perm", ())} if self.kind == "Transpose" else {}
        return {output: _CONSTANTS[self.kind](*arrays, **options)}

    def ints(self, name: str, default: Any) -> Any:
        found = self.attributes.get(name)
        return default if found is None else tuple(found.ints)

    def number(self, name: str, default: float) -> Any:
        found = self.attributes.get(name)
        return default if found is None else (found.f if isinstance(default, float) else found.i)

    def array(self, position: int) -> np.ndarray | None:
        """The constant among the inputs at a position, if there is one."""
        name = self.inputs[position] if position < len(self.inputs) else ""
        if name and name not in self.constants:
            raise ValueError(f"{self.kind} {self.name!r} reads {name!r}, which is not a constant")
        return self.constants[name] if name else None

    def value(self) -> Value:
        """What the operation computes from the images."""
        first = self.given[0]
        x, last, _ = first
        if self.kind in _UNKNOWN:
            raise ValueError(f"{self.name!r} has the kind {self.kind}, which is not supported")
        if self.kind == "Conv":
            return Value(self.convolution(x))
        if self.kind in ("Gemm", "MatMul"):
            return Value(self.dense(x, last), last)
        if self.kind == "BatchNormalization":
            return Value(self.normalization(x), last)
        if self.kind in ("MaxPool", "AveragePool"):
            return Value(self.pooling(x), last)
        if self.kind == "LRN":
            facts = {"k": self.number("bias", 1.0), "alpha": self.number("alpha", 1e-4)}
            return Value(Node("lrn", (x,), self.name, facts=facts), last)
        if self.kind in ("Add", "Sub", "Mul", "Div") and len(self.given) == 1:
            return Value(self.by_constant(x), last)
        if self.kind == "Transpose":
            moved = {(0, 2, 3, 1): True, (0, 3, 1, 2): False}
            return Value(x, moved.get(self.ints("perm", ()), last), first.zeros)
        if self.kind == "Pad":
            return Value(x, last, more_zeros(first.zeros, self.zeros(last)))
        if len(self.given) == 1:
            return first
        if self.kind == "Concat":
            return Value(joined("concat", [v.node for v in self.given], self.name), last)
        kind = "mul" if self.kind == "Mul" else "add"
        return Value(joined(kind, [v.node for v in self.given], self.name), last)

    def convolution(self, x: Node) -> Node:
        kernel, bias = self.array(1), self.array(2)
        if kernel is None or kernel.ndim != 4:
            raise ValueError(f"Conv {self.name!r} has no kernel of four dimensions")
        kernel = kernel.transpose(2, 3, 1, 0)
        arrays = {"kernel": kernel, **({} if bias is None else {"bias": bias})}
        groups = self.number("group", 1)
        return Node("conv", (x,), self.name, arrays, groups=groups, window=self.window(kernel))

    def window(self, kernel: np.ndarray | None = None) -> Window:
        sizes = self.ints("kernel_shape", None if kernel is None else kernel.shape[:2])
        stride = self.ints("strides", (1, 1))
        top, left, bottom, right = self.ints("pads", (0, 0, 0, 0))
        padding: Any = ((top, bottom), (left, right))
        auto = self.attributes.get("auto_pad")
        if auto is not None and auto.s == b"SAME_UPPER":
            padding = None
        if auto is not None and auto.s == b"SAME_LOWER":
            if stride != (1, 1) or not all(size % 2 for size in sizes):
                raise ValueError(
                    f"{self.kind} {self.name!r} has auto_pad SAME_LOWER, which is not supported"
                )
            padding = None
        ceil = bool(self.number("ceil_mode", 0))
        window = Window(tuple(sizes), stride, padding, ceil, self.ints("dilations", (1, 1)))
        return window.padded(*self.given[0].zeros)

    def zeros(self, channels_last: bool) -> Any:
        """The rows and columns that a Pad operation adds."""
        pads = self.ints("pads", ())
        if not pads and (array := self.array(1)) is not None:
            pads = tuple(array.ravel())
        axes = (1, 2) if channels_last else (2, 3)
        return tuple((int(pads[axis]), int(pads[axis + 4])) for axis in axes)

    def dense(self, x: Node, channels_last: bool) -> Node:
        kernel = self.array(1)
        if kernel is None or kernel.ndim != 2:
            raise ValueError(f"{self.kind} {self.name!r} has no matrix of weights")
        arrays = {"kernel": kernel}
        if self.kind == "Gemm":
            if self.number("transA", 0):
                raise ValueError(f"Gemm {self.name!r} has transA, which is not supported")
            kernel = kernel.T if self.number("transB", 0) else kernel
            alpha = self.number("alpha", 1.0)
            arrays["kernel"] = kernel if alpha == 1 else kernel * alpha
            bias = self.array(2)
            if bias is not None:
                arrays["bias"] = bias.ravel() * self.number("beta", 1.0)
        flattened = "HWC" if channels_last else "CHW"
        return Node("dense", (x,), self.name, arrays, flattened=flattened)

    def normalization(self, x: Node) -> Node:
        names = ("scale", "bias", "mean", "var")
        arrays = {name: self.array(i + 1) for i, name in enumerate(names)}
        found = {name: np.ravel(array) for name, array in arrays.items() if array is not None}
        return Node("norm", (x,), self.name, found, epsilon=self.number("epsilon", 1e-5))

    def pooling(self, x: Node) -> Node:
        kind = "max_pool" if self.kind == "MaxPool" else "avg_pool"
        counted = bool(self.number("count_include_pad", 0)) or np.any(self.given[0].zeros)
        facts = {"count_include_pad": bool(counted)}
        return Node(kind, (x,), self.name, window=self.window(), facts=facts)

    def by_constant(self, x: Node) -> Node:
        """A sum or product with a constant: a bias, a normalization, or a number."""
        name = next(name for name in self.inputs if name in self.constants)
        constant: np.ndarray = np.asarray(self.constants[name], np.float32)
        if self.kind in _INVERSE and self.inputs[0] == name:
            raise ValueError(f"{self.kind} {self.name!r} has a constant as its first input")
        adds = _INVERSE.get(self.kind, self.kind) == "Add"
        if self.kind in _INVERSE:
            constant = -constant if adds else 1 / constant
        if adds and x.kind in LAYERS and "bias" not in x.arrays:
            arrays = {**x.arrays, "bias": np.broadcast_to(constant.ravel(), x.channels)}
            return Node(
                x.kind, x.inputs, x.name, arrays,
                groups=x.groups, window=x.window, flattened=x.flattened,
            )  # fmt: skip
        if x.kind == "avg_pool" and not adds and constant.size not in (1, x.channels):
            x.facts["count_include_pad"] = False  # divided by the pixels of each window
            return x
        if constant.size not in (1, x.channels):
            raise ValueError(
                f"{self.kind} {self.name!r} has {constant.size} values for {x.channels} channels"
            )
        of_images = x.kind == "input" or reads_images(x)
        if constant.size == 1 and not of_images and not (x.kind == "norm" and adds):
            return x  # the factor of a residual
        return affine(x, 1.0 if adds else constant, constant if adds else 0.0, self.name)
