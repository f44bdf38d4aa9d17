"""The graph of a network by its description in Keras' JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.weights.formats.graph import (
    Graph,
    Node,
    Window,
    affine,
    joined,
    more_zeros,
    outputs_of,
)

Arrays = dict[str, np.ndarray]
# The weights of a layer: by where it is in the network, and by its description.
Weights = Callable[[tuple[str, ...], Mapping[str, Any]], Arrays]

_MODELS = ("Functional", "Model", "Sequential")


def graph(config: Mapping[str, Any], weights: Weights) -> Graph:
    """Builds the graph of a network.

    Args:
      config: its description.
      weights: gives the weights of a layer: kernel, bias, scale, mean and var.

    Raises:
      ValueError: a layer has no weights, or the network has its channels first.
    """
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
    weights: Weights,
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
        sources = sources or ([last] if last is not None else [])
        if kind in _MODELS:
            found = _network(layer, sources, place, weights, shape)
            result = _Tensor(found[0])
        else:
            result = _tensor(layer, sources, weights(place, layer))
        tensors[name] = last = result
    outputs = (
        [] if isinstance(config["config"], list) else config["config"].get("output_layers", [])
    )
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
        raise ValueError(f"{name!r} has data_format channels_first, which is not supported")
    if kind == "ZeroPadding2D":
        return _Tensor(x, more_zeros(zeros, options["padding"]))
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
        facts = {"count_include_pad": bool(np.any(zeros))}
        return _Tensor(Node(pool, (x,), name, window=window.padded(*zeros), facts=facts))
    if kind == "Rescaling":
        return _Tensor(affine(x, options["scale"], options.get("offset", 0.0), name))
    if arrays:
        raise ValueError(f"layer {name!r} has the class {kind}, which is not supported")
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
