"""Reads Keras' files without Keras: .keras, .weights.h5, .h5, and layers models of TensorFlow.js.

Kernels are stored as (height, width, in, out), as here. Where a file has the description of the
network, its graph is read. Files with weights alone name their layers, and the names follow from
the order in which Keras' own networks create them, see `keras_names`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._checks import optional_package
from jaxcnn.weights.formats.graph import Graph, Node, Window, joined, outputs_of

Arrays = dict[str, np.ndarray]


class Layers(NamedTuple):
    """Layers without the graph that they form.

    Attributes:
      format: name of the framework.
      layers: in the order of the file, with their names.
    """

    format: str
    layers: list[Node]


def read_h5(path: Path) -> Graph | Layers:
    """Reads an .h5 file.

    Args:
      path: of the file.

    Raises:
      ValueError: the file is damaged or not of Keras, or h5py is not installed.
    """
    h5py = optional_package("h5py", "convert")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, None)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no file of Keras, or is damaged: {error}") from error


def read_zip(path: Path) -> Graph | Layers:
    """Reads a .keras file; arguments and errors as in `read_h5`."""
    h5py = optional_package("h5py", "convert")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            data = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(data, "r") as file:
            return _read(path, file, config)
    except (OSError, KeyError, RuntimeError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of Keras, or is damaged: {error}") from error


def read_tfjs(path: Path) -> Graph:
    """Reads the model.json of a layers model; the files of its weights are beside it.

    Args:
      path: of model.json.

    Raises:
      ValueError: a file of weights is missing or of another size, or the weights are quantized.
    """
    content = json.loads(path.read_text("utf-8"))
    topology = content.get("modelTopology") or {}
    config = topology.get("model_config", topology)
    arrays: dict[str, np.ndarray] = {}
    for group in content["weightsManifest"]:
        parts = [path.parent / name for name in group["paths"]]
        for part in parts:
            if not part.is_file():
                raise ValueError(f"{path} needs {part.name} beside it")
        data, start = b"".join(part.read_bytes() for part in parts), 0
        for entry in group["weights"]:
            if "quantization" in entry:
                raise ValueError(f"{path} has quantized weights: {entry['name']}")
            dtype = np.dtype(entry["dtype"]).newbyteorder("<")
            count = int(np.prod(entry["shape"], dtype=int))
            stop = start + count * dtype.itemsize
            if stop > len(data):
                raise ValueError(f"{path}: its weights are cut off in {entry['name']}")
            flat = np.frombuffer(data[start:stop], dtype)
            arrays[entry["name"]], start = flat.reshape(entry["shape"]), stop
    if "config" not in config:
        raise ValueError(f"{path} is no layers model: it describes no layers")
    return _graph(config, lambda where, layer: _of_layer(arrays, layer["name"]))


def _read(path: Path, file: Any, config: Any) -> Graph | Layers:
    root = file["model_weights"] if "model_weights" in file else file
    if config is None and "model_config" in file.attrs:
        config = json.loads(_text(file.attrs["model_config"]))
    if "layer_names" in root.attrs:  # before Keras 3
        weights = {
            _text(name): _legacy(root[_text(name)]) for name in root.attrs["layer_names"]
        }
        if config is None:
            return Layers("Keras", [n for name, w in weights.items() for n in _made(name, _parts(name, w))])
        flat = {key: array for named in weights.values() for key, array in named.items()}
        return _graph(config, lambda where, layer: _of_layer(flat, layer["name"]))
    top = next((root[key] for key in ("layers", "_layer_checkpoint_dependencies") if key in root), None)
    if top is None:
        raise ValueError(f"{path} is no file of Keras: it has no layers")
    if config is not None:
        return _graph(config, lambda where, layer: _variables(root, where, layer))
    found = [node for name, group in _groups(top) for node in _from_variables(name, group)]
    return Layers("Keras", found)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- weights ------------------------------------------------------------------------------------


def _legacy(group: Any) -> dict[str, np.ndarray]:
    """{"conv1/kernel": array} of a layer's group."""
    return {
        _text(name).partition(":")[0]: np.asarray(group[_text(name)])
        for name in group.attrs["weight_names"]
    }


_PARTS = {
    "gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var",
    "kernel": "kernel", "bias": "bias", "depthwise_kernel": "kernel",
    "W": "kernel", "b": "bias", "running_mean": "mean", "running_std": "var",  # the first version
}  # fmt: skip


def _parts(name: str, named: Mapping[str, np.ndarray]) -> Arrays:
    """The weights of a layer by what they are; of one that is no layer of a network here, none."""
    found = {}
    for key, array in named.items():
        word = key.rpartition("/")[2].removeprefix(f"{name}_")
        if word in _PARTS:
            found[_PARTS[word]] = array
    return found


def _of_layer(flat: Mapping[str, np.ndarray], name: str) -> Arrays:
    """The weights of a layer among those of all layers, such as "conv1/kernel"."""
    return _parts(name, {k: a for k, a in flat.items() if k.split("/")[-2:-1] == [name]})


def _made(name: str, arrays: Arrays) -> list[Node]:
    """The layer with these weights, if it is one."""
    if not arrays:
        return []
    if "kernel" not in arrays:
        channels = len(arrays["mean"])
        return [Node("norm", (Node("input", channels=channels),), name, arrays, epsilon=1e-3)]
    return [Node("conv" if arrays["kernel"].ndim == 4 else "dense", (), name, arrays)]


def _groups(top: Any) -> Iterator[tuple[str, Any]]:
    """(name, group) of each layer of a file of Keras 3; those of networks inside it come apart."""
    keys = sorted(top, key=lambda key: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", key)])
    for key in keys:
        if "layers" in top[key]:
            yield from _groups(top[key]["layers"])
        else:
            yield _text(top[key].attrs.get("name", key)), top[key]


def _from_variables(name: str, group: Any) -> list[Node]:
    arrays = _values(group)
    words = ("scale", "bias", "mean", "var")[-len(arrays) :]
    if arrays and arrays[0].ndim in (2, 4):
        words = ("kernel", "bias")
    return _made(name, dict(zip(words, arrays)))


def _values(group: Any) -> list[np.ndarray]:
    found = group["vars"] if "vars" in group else {}
    return [np.asarray(found[key]) for key in sorted(found, key=int)]


def _variables(root: Any, where: Sequence[str], layer: Mapping[str, Any]) -> Arrays:
    for key in where:
        if key == "layers" and key not in root:
            key = "_layer_checkpoint_dependencies"
        if key not in root:
            return {}
        root = root[key]
    words = ["kernel", "bias"]
    if layer["class_name"] == "BatchNormalization":
        options = layer["config"]
        kept = [("scale", options.get("scale", True)), ("bias", options.get("center", True))]
        words = [*(word for word, is_there in kept if is_there), "mean", "var"]
    return dict(zip(words, _values(root)))


# --- description of the network -----------------------------------------------------------------

_MODELS = ("Functional", "Model", "Sequential")


def _graph(config: Mapping[str, Any], weights: Any) -> Graph:
    """The graph of a network that `weights(where, layer)` gives the weights of."""
    shape: list[Any] = []
    ends = _network(config, [], (), weights, shape)
    size = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else None
    return Graph("Keras", outputs_of(ends), size)


class _Tensor(NamedTuple):
    node: Node
    zeros: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


def _network(
    config: Mapping[str, Any],
    given: Sequence[_Tensor],
    where: tuple[str, ...],
    weights: Any,
    shape: list[Any],
) -> list[Node]:
    """The outputs of a network, which may be a layer of another one."""
    layers = config["config"] if isinstance(config["config"], list) else config["config"]["layers"]
    tensors: dict[str, _Tensor] = {}
    counts: dict[str, int] = {}
    inputs, last = list(given), None
    for layer in layers:
        kind, name = layer["class_name"], layer["config"]["name"]
        layer = {**layer, "name": name}
        word = _snake(kind)
        number = counts.get(word, 0)
        counts[word] = number + 1
        place = (*where, "layers", f"{word}_{number}" if number else word)
        first = layer["config"].get("batch_input_shape") or layer["config"].get("batch_shape")
        if not shape and first:
            shape += first
        sources = [tensors[key] for key in _sources(layer.get("inbound_nodes")) if key in tensors]
        if kind == "InputLayer" or (not sources and last is None):
            start = inputs.pop(0) if inputs else _Tensor(Node("input", channels=_channels(first)))
            if kind == "InputLayer":
                tensors[name] = last = start
                continue
            sources = [start]
        sources = sources or [last]
        if kind in _MODELS:
            found = _network(layer, sources, place, weights, shape)
            result = _Tensor(found[0])
        else:
            result = _tensor(layer, sources, weights(place, layer))
        tensors[name] = last = result
    outputs = [] if isinstance(config["config"], list) else config["config"].get("output_layers", [])
    names = [entry[0] for entry in ([outputs] if _is_entry(outputs) else outputs)]
    return [tensors[name].node for name in names if name in tensors] or [last.node]  # type: ignore[union-attr]


def _is_entry(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)


def _channels(shape: Any) -> int:
    return shape[-1] if shape and isinstance(shape[-1], int) else 3


def _snake(name: str) -> str:
    """Keras' name of the variables of a class: "conv2d" for "Conv2D"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sources(nodes: Any) -> list[str]:
    """Names of the layers that the first call of a layer reads."""
    if not nodes:
        return []
    found: list[str] = []

    def search(value: Any) -> None:
        if isinstance(value, Mapping):
            if "keras_history" in value:
                found.append(value["keras_history"][0])
                return
            value = list(value.values())
        if _is_entry(value):
            found.append(value[0])
        elif isinstance(value, list):
            for item in value:
                search(item)

    search(nodes[0])
    return found


def _tensor(layer: Mapping[str, Any], given: Sequence[_Tensor], arrays: Arrays) -> _Tensor:
    kind, options, name = layer["class_name"], layer["config"], layer["name"]
    x, zeros = given[0]
    if options.get("data_format") == "channels_first":
        raise ValueError(f"{name!r} has its channels first")
    if kind == "ZeroPadding2D":
        return _Tensor(x, tuple(map(tuple, options["padding"])))  # type: ignore[arg-type]
    weighted = {"Conv2D": "conv", "DepthwiseConv2D": "conv", "Dense": "dense"}
    if kind == "BatchNormalization":
        _need(name, arrays, "mean", "var")
        return _Tensor(Node("norm", (x,), name, arrays, epsilon=options.get("epsilon", 1e-3)))
    if kind in weighted:
        _need(name, arrays, "kernel")
        if kind == "Dense":
            return _Tensor(Node("dense", (x,), name, arrays))
        return _Tensor(_convolution(kind, options, name, x, zeros, arrays))
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        window = _window(options, options["pool_size"], options["strides"] or options["pool_size"])
        pool = "max_pool" if kind == "MaxPooling2D" else "avg_pool"
        facts = {"count_include_pad": False}
        return _Tensor(Node(pool, (x,), name, window=window.padded(*zeros), facts=facts))
    kinds = {"Concatenate": "concat", "Add": "add", "Multiply": "mul", "Average": "add"}
    if len(given) > 1:
        return _Tensor(joined(kinds.get(kind, "add"), [t.node for t in given], name))
    return given[0]


def _need(name: str, arrays: Arrays, *words: str) -> None:
    for word in words:
        if word not in arrays:
            raise ValueError(f"layer {name!r} has no {word}")


def _convolution(
    kind: str, options: Mapping[str, Any], name: str, x: Node, zeros: Any, arrays: Arrays
) -> Node:
    kernel, groups = arrays["kernel"], options.get("groups") or 1
    if kind == "DepthwiseConv2D":
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    window = _window(options, kernel.shape[:2], options["strides"])
    window = window._replace(dilation=_both(options.get("dilation_rate") or 1)).padded(*zeros)
    arrays = {**arrays, "kernel": kernel}
    return Node("conv", (x,), name, arrays, groups=groups, window=window)


def _window(options: Mapping[str, Any], kernel: Any, stride: Any) -> Window:
    padding: Any = None if options["padding"].lower() == "same" else ((0, 0), (0, 0))
    return Window(_both(kernel), _both(stride), padding)


def _both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
