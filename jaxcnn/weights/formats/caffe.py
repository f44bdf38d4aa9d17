"""Reads Caffe's trained networks (.caffemodel) without Caffe.

Layers of both versions are read: those with a number as their type (before 2015) and those with a
name. The file contains the description of the network, from which its graph is built. Convolutions
are stored as (out, in, height, width), and dense layers flatten in (channel, height, width) order.
BatchNorm is stored as sums, with the factor to divide them by as the third array; its scale and
bias are those of the Scale layer behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.weights.formats import protobuf
from jaxcnn.weights.formats.graph import (
    Graph,
    Node,
    Window,
    affine,
    joined,
    outputs_of,
    reads_images,
)

# The fields of caffe.proto that are needed. The values of a blob are a packed list of floats.
_SCHEMA = """
Net: repeated V1 layers = 2, repeated string input = 3, repeated int32 input_dim = 4, \
  repeated Shape input_shape = 8, repeated V2 layer = 100
V1: bytes old = 1, repeated string bottom = 2, repeated string top = 3, string name = 4, \
  int32 type = 5, repeated Blob blobs = 6, Convolution convolution_param = 10, \
  Lrn lrn_param = 18, Pooling pooling_param = 19, Power power_param = 21, \
  Eltwise eltwise_param = 24, \
  Transform transform_param = 36
V2: string name = 1, string type = 2, repeated string bottom = 3, repeated string top = 4, \
  repeated Blob blobs = 7, Transform transform_param = 100, Convolution convolution_param = 106, \
  Eltwise eltwise_param = 110, Lrn lrn_param = 118, Pooling pooling_param = 121, \
  Power power_param = 122, \
  Norm batch_norm_param = 139, Input input_param = 143
Shape: repeated int64 dim = 1
Blob: int32 num = 1, int32 channels = 2, int32 height = 3, int32 width = 4, \
  repeated bytes data = 5, Shape shape = 7
Convolution: repeated uint32 pad = 3, uint32 group = 5, repeated uint32 stride = 6, \
  uint32 pad_h = 9, uint32 pad_w = 10, uint32 stride_h = 13, uint32 stride_w = 14, \
  repeated uint32 dilation = 18
Pooling: int32 pool = 1, repeated uint32 kernel_size = 2, repeated uint32 stride = 3, \
  repeated uint32 pad = 4, uint32 kernel_h = 5, uint32 kernel_w = 6, uint32 stride_h = 7, \
  uint32 stride_w = 8, uint32 pad_h = 9, uint32 pad_w = 10, bool global_pooling = 12, \
  int32 round_mode = 13
Eltwise: int32 operation = 1
Power: float power = 1, float scale = 2, float shift = 3
Lrn: float k = 5
Norm: float eps = 3
Input: repeated Shape shape = 1
Transform: float scale = 1, uint32 crop_size = 3, repeated float mean_value = 5
"""

_V1_TYPES = {
    3: "Concat", 4: "Convolution", 5: "Data", 12: "ImageData", 14: "InnerProduct", 15: "LRN",
    17: "Pooling", 26: "Power", 22: "Split", 25: "Eltwise", 33: "Slice",
}  # fmt: skip
_PRODUCT = 0
_AVERAGE = 1


def read(path: Path) -> Graph:
    """Reads a network.

    Args:
      path: of a .caffemodel file.

    Raises:
      ValueError: the file is damaged, of another kind, or of the first version of the format.
    """
    net = protobuf.parse(path, _SCHEMA, "Net", "Caffe model")
    layers = net.layer or net.layers
    if not any(layer.blobs for layer in layers):
        raise ValueError(f"{path} is not a Caffe model: it has no layer with weights")
    try:
        return _graph(net, layers)
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a Caffe model: {error}") from error


def _graph(net: Any, layers: Any) -> Graph:
    blobs: dict[str, Node | None] = {}
    unread: dict[str, Node] = {}
    shapes = [list(net.input_dim), *(list(shape.dim) for shape in net.input_shape)]
    for name in net.input:
        blobs.setdefault(name, Node("input", channels=3))
    mean: tuple[float, ...] | None = None
    scale = 1.0
    for layer in layers:
        kind = layer.type if isinstance(layer.type, str) else _V1_TYPES.get(layer.type, "")
        bottoms = [blobs.get(name) for name in layer.bottom]
        if not layer.bottom:
            transform = layer.transform_param
            shapes += [[transform.crop_size] * 2] if transform.crop_size else []
            if kind == "Input":
                shapes += [list(shape.dim) for shape in layer.input_param.shape]
            mean = tuple(transform.mean_value) or mean
            scale = transform.scale or scale
            node = next((n for n in blobs.values() if n and n.kind == "input"), None)
            node = node or Node("input", channels=3)
            blobs.update(dict.fromkeys(layer.top[:1], node))  # the second are the labels
            continue
        given = [node for node in bottoms if node is not None]
        if given:
            node = _node(layer, kind, given)
            for name in layer.bottom:
                unread.pop(name, None)
            blobs.update(dict.fromkeys(layer.top, node))
            unread.update(dict.fromkeys(layer.top, node))
    size = next((shape[-1] for shape in shapes if len(shape) >= 2), None)
    return Graph("Caffe", outputs_of(unread.values()), size, mean, scale)


def _node(layer: Any, kind: str, given: list[Node]) -> Node:
    arrays = [_values(blob, layer.name) for blob in layer.blobs]
    x, name = given[0], layer.name
    if kind in ("Convolution", "InnerProduct") and not arrays:
        raise ValueError(f"layer {name!r} has no weights")
    if kind == "Convolution":
        param = layer.convolution_param
        kernel = arrays[0].transpose(2, 3, 1, 0)
        window = Window(
            kernel.shape[:2],
            _pair(param.stride, param.stride_h, param.stride_w, 1),
            _padding(param),
            dilation=_pair(param.dilation, 0, 0, 1),
        )
        found = {"kernel": kernel, **({"bias": arrays[1].ravel()} if arrays[1:] else {})}
        return Node("conv", (x,), name, found, groups=param.group or 1, window=window)
    if kind == "InnerProduct":
        kernel = arrays[0].reshape(arrays[0].shape[-2:]).T
        found = {"kernel": kernel, **({"bias": arrays[1].ravel()} if arrays[1:] else {})}
        return Node("dense", (x,), name, found, flattened="CHW")
    if kind == "BatchNorm":
        mean, variance, factor = arrays
        divisor = float(factor.ravel()[0]) or 1.0
        found = {"mean": mean.ravel() / divisor, "var": variance.ravel() / divisor}
        return Node("norm", (x,), name, found, epsilon=layer.batch_norm_param.eps or 1e-5)
    if kind == "Scale" and arrays:
        return affine(x, arrays[0], arrays[1] if arrays[1:] else 0.0, name)
    if kind == "Scale":
        return joined("mul", given, name)
    if kind == "Axpy":  # SENet's: gates, what they multiply, and what is added
        return joined("add", (joined("mul", given[:2]), *given[2:]), name)
    if kind == "Pooling":
        return _pooling(layer, x)
    if kind == "Power":
        return _power(layer, x)
    if kind == "LRN":
        return Node("lrn", (x,), name, facts={"k": layer.lrn_param.k or 1.0})
    if kind == "Concat":
        return joined("concat", given, name)
    if kind == "Eltwise":
        product = layer.eltwise_param.HasField("operation") and (
            layer.eltwise_param.operation == _PRODUCT
        )
        return joined("mul" if product else "add", given, name)
    if arrays:
        raise ValueError(
            f"layer {name!r} has the type {kind or layer.type}, which is not supported"
        )
    return x


def _pooling(layer: Any, x: Node) -> Node:
    param = layer.pooling_param
    if param.global_pooling:
        return x
    kernel = _pair(param.kernel_size, param.kernel_h, param.kernel_w, 1)
    stride = _pair(param.stride, param.stride_h, param.stride_w, 1)
    window = Window(kernel, stride, _padding(param), ceil=param.round_mode == 0)
    kind = "avg_pool" if param.pool == _AVERAGE else "max_pool"
    return Node(kind, (x,), layer.name, window=window, facts={"count_include_pad": True})


def _power(layer: Any, x: Node) -> Node:
    """(shift + scale * x) ** power; only of images, elsewhere it is the factor of a residual."""
    param = layer.power_param
    if x.kind != "input" and not reads_images(x):
        return x
    if param.HasField("power") and param.power != 1:
        raise ValueError(f"layer {layer.name!r} has the power {param.power:g}; only 1 is supported")
    return affine(x, param.scale if param.HasField("scale") else 1.0, param.shift, layer.name)


def _values(blob: Any, name: str) -> np.ndarray:
    found = protobuf.numbers(blob.data, np.float32)
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if np.prod(shape) != found.size:
        raise ValueError(f"layer {name!r} has {found.size} values for {shape}")
    return found.reshape(shape)


def _pair(both: Any, height: int, width: int, default: int) -> tuple[int, int]:
    if len(both):
        return both[0], both[-1]
    return height or default, width or default


def _padding(param: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = _pair(param.pad, param.pad_h, param.pad_w, 0)
    return (height, height), (width, width)
