"""Reads Keras' files without Keras: .keras, .weights.h5, .h5, and layers models of TensorFlow.js.

Kernels are stored as (height, width, in, out), as here. Where a file has the description of the
network, its graph is read. Files with weights alone name their layers, and the names follow from
the order in which Keras' own networks create them, see `keras_names`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._checks import optional_package
from jaxcnn.weights.formats import flaxmodels, keras_config
from jaxcnn.weights.formats.graph import Graph, Layers, Node

Arrays = dict[str, np.ndarray]


def read_h5(path: Path) -> Graph | Layers:
    """Reads an .h5 file of Keras or flaxmodels.

    Args:
      path: of the file.

    Raises:
      ValueError: the file is damaged or not of Keras, or h5py is not installed.
    """
    h5py = optional_package("h5py", "convert")
    with _errors_named(path), h5py.File(path, "r") as file:
        if flaxmodels.is_of_flaxmodels(file):
            return Layers("flaxmodels", flaxmodels.layers(file))
        return _read(file, None)


def read_zip(path: Path) -> Graph | Layers:
    """Reads a .keras file; arguments and errors as in `read_h5`."""
    h5py = optional_package("h5py", "convert")
    with _errors_named(path):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            data = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(data, "r") as file:
            return _read(file, config)


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turns the errors that a damaged file causes into a ValueError that names the file."""
    try:
        yield
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a Keras file, or is damaged: {error}") from error
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_tfjs(path: Path) -> Graph:
    """Reads the model.json of a layers model; the files of its weights are beside it.

    Args:
      path: of model.json.

    Raises:
      ValueError: a file of weights is missing or of another size, or the weights are quantized.
    """
    with _errors_named(path):
        content = json.loads(path.read_text("utf-8"))
        topology = content.get("modelTopology") or {}
        config = topology.get("model_config", topology)
        if "config" not in config:
            raise ValueError("it describes no layers")
        groups = content["weightsManifest"]
        arrays = {name: a for group in groups for name, a in _tfjs_group(path.parent, group)}
        return keras_config.graph(
            config, lambda where, layer: _of_layer({"": arrays}, layer["name"])
        )


def _tfjs_group(folder: Path, group: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of the weights in some files, which are parts of one."""
    for name in group["paths"]:
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"the file {name} must be in the same folder")
    data, start = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
    for entry in group["weights"]:
        if "quantization" in entry:
            raise ValueError(f"{entry['name']} is quantized")
        dtype = np.dtype(entry["dtype"]).newbyteorder("<")
        stop = start + math.prod(entry["shape"]) * dtype.itemsize
        if stop > len(data):
            raise ValueError(f"its weights are cut off in {entry['name']}")
        yield entry["name"], np.frombuffer(data[start:stop], dtype).reshape(entry["shape"])
        start = stop


def _read(file: Any, config: Any) -> Graph | Layers:
    root = file.get("model_weights", file)
    if config is None and "model_config" in file.attrs:
        config = json.loads(_text(file.attrs["model_config"]))
    if "layer_names" in root.attrs:  # before Keras 3
        groups = {_text(name): _legacy(root[_text(name)]) for name in root.attrs["layer_names"]}
        if config is not None:
            return keras_config.graph(config, lambda where, layer: _of_layer(groups, layer["name"]))
        layers = itertools.chain.from_iterable(_apart(n, named) for n, named in groups.items())
        return Layers("Keras", [node for name, named in layers for node in _made(name, named)])
    tops = [root[key] for key in ("layers", "_layer_checkpoint_dependencies") if key in root]
    if not tops:
        raise ValueError("it has no layers")
    if config is not None:
        return keras_config.graph(config, lambda where, layer: _variables(root, where, layer))
    named = list(_groups(tops[0]))
    found = [node for name, group in named for node in _from_variables(name, group)]
    return Layers("Keras", found, any("name" in group["vars"].attrs for _, group in named))


def named_layers(arrays: Arrays) -> Layers:
    """Sorts weights into layers by their names.

    Args:
      arrays: {"conv1/kernel": array}.

    Raises:
      ValueError: a layer is neither a convolution nor a normalization.
    """
    layers = _apart("", arrays)
    return Layers("Keras", [node for name, named in layers for node in _made(name, named)])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- weights ------------------------------------------------------------------------------------


def _legacy(group: Any) -> dict[str, np.ndarray]:
    """{"conv1/kernel": array} of a layer's group."""
    return {
        _text(name).partition(":")[0]: flaxmodels.values_of(group[_text(name)])
        for name in group.attrs["weight_names"]
    }


_PARTS = {
    "gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var",
    "kernel": "kernel", "bias": "bias", "depthwise_kernel": "kernel",
    "W": "kernel", "b": "bias", "running_mean": "mean", "running_std": "var",  # the first version
}  # fmt: skip


def _apart(name: str, named: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Arrays]]:
    """(name, weights) of a layer, or of each layer of a network inside the network."""
    inner: dict[str, dict[str, np.ndarray]] = {}
    for key, array in named.items():
        inner.setdefault(_layer_in(key), {})[key] = array
    if len(inner) == 1:
        yield name, _parts(name, named)
    else:
        yield from ((layer, _parts(layer, arrays)) for layer, arrays in inner.items())


def _layer_in(key: str) -> str:
    """The layer in the name of its weights, "conv1" in "model/conv1/kernel"."""
    return key.rpartition("/")[0].rpartition("/")[2]


def _parts(name: str, named: Mapping[str, np.ndarray]) -> Arrays:
    """The weights of a layer by their role; {} for a layer of an unsupported kind."""
    found = {}
    for key, array in named.items():
        word = key.rpartition("/")[2].removeprefix(f"{name}_")
        word = re.sub(r"_\d+$", "", word)  # TensorFlow numbers what has the same name
        if word in _PARTS:
            found[_PARTS[word]] = array
    return found


def _of_layer(groups: Mapping[str, Mapping[str, np.ndarray]], name: str) -> Arrays:
    """The weights of a layer, which has a group of its own or is in that of a network."""
    if name in groups:
        return _parts(name, groups[name])
    found = {k: a for named in groups.values() for k, a in named.items() if _layer_in(k) == name}
    return _parts(name, found)


def _made(name: str, arrays: Arrays) -> list[Node]:
    """The layer with these weights; [] without weights."""
    if not arrays:
        return []
    if "kernel" not in arrays:
        if "mean" not in arrays:
            raise ValueError(f"layer {name!r} is neither a convolution nor a normalization")
        channels = len(arrays["mean"])
        return [Node("norm", (Node("input", channels=channels),), name, arrays, epsilon=1e-3)]
    return [Node("conv" if arrays["kernel"].ndim == 4 else "dense", (), name, arrays)]


def _groups(top: Any) -> Iterator[tuple[str, Any]]:
    """(name, group) of each layer of a file of Keras 3; those of networks inside it come apart."""
    for key in sorted(top, key=_natural):
        if "layers" in top[key]:
            yield from _groups(top[key]["layers"])
        elif "vars" in top[key]:
            yield _text(top[key]["vars"].attrs.get("name", key)), top[key]


def _natural(key: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _from_variables(name: str, group: Any) -> list[Node]:
    arrays = _values(group)
    words = ("scale", "bias", "mean", "var")[-len(arrays) :]
    if arrays and arrays[0].ndim in (2, 4):
        words = ("kernel", "bias")
    return _made(name, dict(zip(words, arrays)))


def _values(group: Any) -> list[np.ndarray]:
    found = group["vars"]
    return [flaxmodels.values_of(found[key]) for key in sorted(found, key=int)]


def _variables(root: Any, where: Sequence[str], layer: Mapping[str, Any]) -> Arrays:
    for key in where:
        if key == "layers" and key not in root:
            key = "_layer_checkpoint_dependencies"
        if key not in root:
            return {}
        root = root[key]
    if "vars" not in root:
        return {}
    words = ["kernel", "bias"]
    if layer["class_name"] == "BatchNormalization":
        options = layer["config"]
        kept = [("scale", options.get("scale", True)), ("bias", options.get("center", True))]
        words = [*(word for word, is_there in kept if is_there), "mean", "var"]
    return dict(zip(words, _values(root)))
