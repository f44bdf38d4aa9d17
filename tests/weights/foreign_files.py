"""Writes networks of `foreign_nets` as files of other frameworks, byte by byte where possible."""

import io
import json
import struct
import zipfile

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
    layers.append(
        caffe_layer("Data", "data", (), ("data", "label"), (), {(36, 100): transform}, old)
    )
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
        after = [a["scale"], a["bias"]]
        return [
            caffe_layer("BatchNorm", inner, record.inputs, (inner,), sums, param, old),
            caffe_layer("Scale", record.name, (inner,), (record.name,), after, {}, old),
        ]
    if kind == "conv":
        numbers = {3: o["pad"], 4: o["kernel"], 5: o["groups"], 6: o["stride"]}
        params[10, 106] = b"".join(field(n, v) for n, v in numbers.items())
    if kind.endswith("_pool"):
        numbers = {1: int(kind == "avg_pool"), 2: o["kernel"], 3: o["stride"], 4: o["pad"]}
        params[19, 121] = b"".join(field(n, v) for n, v in numbers.items())
    if kind == "global":
        params[19, 121] = field(1, 1) + field(12, 1)
    if kind == "scaled":
        params[21, 122] = field(2, float(o["scale"])) + field(3, float(o["shift"]))
    kinds = {
        "scaled": "Power",
        "conv": "Convolution", "dense": "InnerProduct", "relu": "ReLU", "sigmoid": "Sigmoid",
        "max_pool": "Pooling", "avg_pool": "Pooling", "global": "Pooling", "lrn": "LRN",
        "concat": "Concat", "add": "Eltwise", "gate": "Scale",
    }  # fmt: skip
    return [
        caffe_layer(kinds[kind], record.name, record.inputs, (record.name,), blobs, params, old)
    ]


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
            if kind == "avg_pool" and o["zeros"]:
                sides = constant(f"{record.name}.pads", np.array([0, 0, *pads[:2]] * 2, np.int64))
                nodes.append(helper.make_node("Pad", [*inputs, sides], [f"{record.name}.pad"]))
                inputs, pads = (f"{record.name}.pad",), [0] * 4
            add(op, record, *inputs, strides=[o["stride"]] * 2, kernel_shape=[o["kernel"]] * 2, pads=pads)  # fmt: skip  # noqa: E501
        elif kind == "scaled":
            for word in ("scale", "shift"):
                constant(f"{record.name}.{word}", np.float32(o[word]))
            inner = f"{record.name}.product"
            nodes.append(helper.make_node("Mul", [*inputs, f"{record.name}.scale"], [inner]))
            add("Add", record, inner, f"{record.name}.shift")
        elif kind == "lrn":
            add("LRN", record, *inputs, size=5, bias=o["k"], alpha=o["alpha"], beta=0.75)
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


# --- Keras --------------------------------------------------------------------------------------

_KERAS = {
    "conv": "Conv2D", "dense": "Dense", "norm": "BatchNormalization", "relu": "Activation",
    "max_pool": "MaxPooling2D", "avg_pool": "AveragePooling2D", "global": "GlobalAveragePooling2D",
    "add": "Add", "concat": "Concatenate", "scaled": "Rescaling",
}  # fmt: skip


def keras_config(net, version):
    """The description of a network as version 2 or 3 of Keras writes it."""
    shape = [None, net.size, net.size, net.channels["data"]]
    key = "batch_shape" if version == 3 else "batch_input_shape"
    layers = [_keras_layer("InputLayer", "data", (), {key: shape}, version)]
    for record in net.records:
        o, inputs, kind = record.options, record.inputs, record.kind
        options = {}
        if kind == "conv" or kind.endswith("_pool"):
            options = {"strides": [o["stride"]] * 2, "padding": "valid"}
            options |= {"kernel_size" if kind == "conv" else "pool_size": [o["kernel"]] * 2}
            if o.get("after", o["pad"]) != o["pad"]:
                options["padding"] = "same"
            elif o["pad"]:
                pad, sides = f"{record.name}_pad", [[o["pad"]] * 2] * 2
                layers.append(
                    _keras_layer("ZeroPadding2D", pad, inputs, {"padding": sides}, version)
                )
                inputs = (pad,)
        if kind == "norm":
            options = {"epsilon": o["epsilon"], "scale": "scale" in record.arrays, "center": True}
        if kind == "scaled":
            options = {"scale": o["scale"], "offset": o["shift"]}
        layers.append(_keras_layer(_KERAS[kind], record.name, inputs, options, version))
    last = [net.records[-1].name, 0, 0]
    config = {"name": "net", "layers": layers, "output_layers": last if version == 3 else [last]}
    return {"class_name": "Functional", "config": config}


def _keras_layer(kind, name, inputs, options, version):
    if version == 3:
        tensors = [
            {"class_name": "__keras_tensor__", "config": {"keras_history": [i, 0, 0]}}
            for i in inputs
        ]
        args = [tensors] if len(tensors) > 1 else tensors
        nodes = [{"args": args, "kwargs": {}}] if inputs else []
    else:
        nodes = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
    config = {"name": name, **options}
    return {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}


_WORDS = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def keras_weights(record):
    """{Keras' name: array} of a layer, in Keras' order and layout."""
    a = record.arrays
    if record.kind == "norm":
        return {word: a[key] for key, word in _WORDS.items() if key in a}
    kernel = a["kernel"]
    kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
    return {"kernel": kernel, **({"bias": a["bias"]} if "bias" in a else {})}


def keras_h5(path, net, config=True, weights=None):
    """An .h5 file before Keras 3, of a model or of weights alone ({layer: {name: array}})."""
    import h5py

    weights = weights or {r.name: keras_weights(r) for r in net.records if r.arrays}
    with h5py.File(path, "w") as file:
        root = file
        if config:
            file.attrs["model_config"] = json.dumps(keras_config(net, 2))
            root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = root.create_group(name)
            names = [f"{name}/{word}:0" for word in arrays]
            group.attrs["weight_names"] = [n.encode() for n in names]
            for key, array in zip(names, arrays.values()):
                group[key] = array


def keras_zip(path, net):
    """A .keras file: its weights have the names of classes, numbered."""
    import h5py

    data, counts = io.BytesIO(), {}
    with h5py.File(data, "w") as file:
        for record in net.records:
            word = {"conv": "conv2d", "norm": "batch_normalization", "dense": "dense"}
            if record.kind not in word:
                continue
            word = word[record.kind]
            number = counts.get(word, 0)
            counts[word] = number + 1
            group = file.create_group(
                f"layers/{word}_{number}/vars" if number else f"layers/{word}/vars"
            )
            group.attrs["name"] = record.name
            for i, array in enumerate(keras_weights(record).values()):
                group[str(i)] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(keras_config(net, 3)))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", data.getvalue())


def tfjs(folder, net):
    """model.json and two files of weights beside it."""
    entries, data = [], b""
    for record in net.records:
        for word, array in keras_weights(record).items() if record.arrays else ():
            entry = {
                "name": f"{record.name}/{word}",
                "shape": list(array.shape),
                "dtype": "float32",
            }
            entries.append(entry)
            data += np.ascontiguousarray(array, "<f4").tobytes()
    (folder / "a.bin").write_bytes(data[:1001])
    (folder / "b.bin").write_bytes(data[1001:])
    manifest = [{"paths": ["a.bin", "b.bin"], "weights": entries}]
    topology = {"model_config": keras_config(net, 2)}
    content = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"
