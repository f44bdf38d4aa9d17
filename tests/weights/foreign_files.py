"""Writes networks of `foreign_nets` as files of other frameworks, byte by byte where possible."""

import struct

import numpy as np

# --- Caffe --------------------------------------------------------------------------------------


def varint(value):
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number, value):
    """A field of a protocol buffer: an integer, a float, a text, bytes, or a packed array."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, (int, np.integer)):
        return varint(number << 3) + varint(int(value))
    data = value.encode() if isinstance(value, str) else bytes(value)
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(array, old):
    data = field(5, np.ascontiguousarray(array, "<f4").tobytes())
    if old:  # four numbers instead of a shape
        shape = (1,) * (4 - array.ndim) + array.shape
        return b"".join(field(i + 1, n) for i, n in enumerate(shape)) + data
    return field(7, field(1, b"".join(map(varint, array.shape)))) + data


_V1 = {
    "Convolution": 4, "InnerProduct": 14, "Pooling": 17, "Concat": 3, "Eltwise": 25, "LRN": 15,
    "ReLU": 18, "Data": 5, "SoftmaxWithLoss": 21, "Sigmoid": 19,
}  # fmt: skip


def caffe_layer(kind, name, bottoms, tops, blobs, params, old):
    """A layer of either version; `params` is {(number of version 1, of version 2): bytes}."""
    place = {"name": 4, "bottom": 2, "top": 3, "blobs": 6} if old else {"name": 1, "bottom": 3, "top": 4, "blobs": 7}  # fmt: skip  # noqa: E501
    found = field(place["name"], name)
    found += field(5, _V1[kind]) if old else field(2, kind)
    found += b"".join(field(place["bottom"], b) for b in bottoms)
    found += b"".join(field(place["top"], t) for t in tops)
    found += b"".join(field(place["blobs"], blob(a, old)) for a in blobs)
    return found + b"".join(field(n[not old], data) for n, data in params.items())


def caffe(net, old=False, mean=(), scale=None):
    """A .caffemodel with a data layer, normalizations as two layers, and losses."""
    layers = []
    transform = field(3, net.size) + b"".join(field(5, float(m)) for m in mean)
    transform += b"" if scale is None else field(1, float(scale))
    layers.append(caffe_layer("Data", "data", (), ("data", "label"), (), {(36, 100): transform}, old))
    for record in net.records:
        layers += _caffe_record(record, old)
    last = net.records[-1].name
    layers.append(caffe_layer("SoftmaxWithLoss", "loss", (last, "label"), ("loss",), (), {}, old))
    number = 2 if old else 100
    return field(1, "net") + b"".join(field(number, layer) for layer in layers)


def _caffe_record(record, old):
    o, a, params = record.options, record.arrays, {}
    kind, blobs = record.kind, [a[k] for k in ("kernel", "bias") if k in a]
    if kind == "norm":
        factor = 4.0  # sums over this weight
        sums = [a["mean"] * factor, a["var"] * factor, np.array([factor])]
        inner = f"{record.name}/norm"
        param = {(0, 139): field(3, float(o["epsilon"]))}
        return [
            caffe_layer("BatchNorm", inner, record.inputs, (inner,), sums, param, old),
            caffe_layer("Scale", record.name, (inner,), (record.name,), [a["scale"], a["bias"]], {}, old),
        ]  # fmt: skip
    if kind == "conv":
        numbers = {3: o["pad"], 4: o["kernel"], 5: o["groups"], 6: o["stride"]}
        params[10, 106] = b"".join(field(n, v) for n, v in numbers.items())
    if kind.endswith("_pool"):
        numbers = {1: int(kind == "avg_pool"), 2: o["kernel"], 3: o["stride"], 4: o["pad"]}
        params[19, 121] = b"".join(field(n, v) for n, v in numbers.items())
    if kind == "global":
        params[19, 121] = field(1, 1) + field(12, 1)
    kinds = {
        "conv": "Convolution", "dense": "InnerProduct", "relu": "ReLU", "sigmoid": "Sigmoid",
        "max_pool": "Pooling", "avg_pool": "Pooling", "global": "Pooling", "lrn": "LRN",
        "concat": "Concat", "add": "Eltwise", "gate": "Scale",
    }  # fmt: skip
    return [caffe_layer(kinds[kind], record.name, record.inputs, (record.name,), blobs, params, old)]


# --- ONNX ---------------------------------------------------------------------------------------


def onnx(net, outputs, fold=False):
    """An ONNX model by the package onnx; `fold` puts normalizations into convolutions."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, folded = [], [], {}

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    readers = {}
    for record in net.records:
        for name in record.inputs:
            readers.setdefault(name, []).append(record)

    def add(op, record, *inputs, **attributes):
        given = [folded.get(name, name) for name in inputs]
        nodes.append(helper.make_node(op, given, [record.name], name=record.name, **attributes))

    for record in net.records:
        o, a, inputs, kind = record.options, dict(record.arrays), record.inputs, record.kind
        if kind == "conv":
            norms = [r for r in readers.get(record.name, []) if r.kind == "norm"]
            if fold and norms:
                n = norms[0].arrays
                factor = n["scale"] / np.sqrt(n["var"] + norms[0].options["epsilon"])
                a["bias"] = (a.get("bias", 0) - n["mean"]) * factor + n["bias"]
                a["kernel"] = a["kernel"] * factor[:, None, None, None]
                folded[norms[0].name] = record.name
            names = [constant(f"{record.name}.{k}", v.astype(np.float32)) for k, v in a.items()]
            add("Conv", record, *inputs, *names, strides=[o["stride"]] * 2,
                pads=[o["pad"]] * 4, group=o["groups"], kernel_shape=[o["kernel"]] * 2)  # fmt: skip
        elif kind == "norm" and record.name not in folded:
            names = [constant(f"{record.name}.{k}", a[k]) for k in ("scale", "bias", "mean", "var")]
            add("BatchNormalization", record, *inputs, *names, epsilon=o["epsilon"])
        elif kind == "dense":
            flat = f"{record.name}.flat"
            source = folded.get(inputs[0], inputs[0])
            nodes.append(helper.make_node("Flatten", [source], [flat]))
            names = [constant(f"{record.name}.{k}", v) for k, v in a.items()]
            add("Gemm", record, flat, *names, transB=1)
        elif kind.endswith("_pool"):
            op = "MaxPool" if kind == "max_pool" else "AveragePool"
            pads = [o["pad"]] * 2 + [o["after"]] * 2
            add(op, record, *inputs, strides=[o["stride"]] * 2, kernel_shape=[o["kernel"]] * 2, pads=pads)  # fmt: skip  # noqa: E501
        elif kind != "norm":
            ops = {"relu": "Relu", "global": "GlobalAveragePool", "add": "Add", "concat": "Concat"}
            add(ops[kind], record, *inputs, **({"axis": 1} if kind == "concat" else {}))
    shape = [None, net.channels["data"], net.size, net.size]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, None]) for n in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
