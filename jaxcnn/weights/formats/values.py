"""Converts the weights of a file's layers to those of a network's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxcnn.weights.formats.graph import Node

Arrays = dict[str, np.ndarray]


def arrays(name: str, pairs: Sequence[tuple[Node, Node | None]], epsilon: float) -> Arrays:
    """Converts the weights of pairs of layers to jaxcnn's own files.

    Args:
      name: of the network.
      pairs: of the network's layers and the file's.
      epsilon: that the network's normalizations add to the variance.

    Returns:
      {key: array}.

    Raises:
      ValueError: a layer of the file has a bias for which the network has no place.
    """
    normalized = {node.inputs[0] for node, _ in pairs if node.kind == "norm"}
    partners = dict(pairs)
    found: Arrays = {}
    for node, given in pairs:
        if node.kind == "norm":
            layer = partners.get(node.inputs[0])
            bias = None if layer is None or _has_bias(node.inputs[0]) else layer.arrays.get("bias")
            found |= _norm(node, given, bias, epsilon)
            continue
        assert given is not None
        found[f"params/{node.name}/kernel"] = _kernel(given).reshape(node.shape)
        if _has_bias(node):
            bias = given.arrays.get("bias", np.zeros(node.channels, np.float32))
            found[f"params/{node.name}/bias"] = bias
        elif "bias" in given.arrays and node not in normalized:
            raise ValueError(
                f"these weights do not fit {name}: {given.name} of the file has a bias, and "
                f"{node.name} has none"
            )
    return found


def _has_bias(node: Node) -> bool:
    return bool(node.facts.get("bias"))


def _norm(node: Node, given: Node | None, bias: np.ndarray | None, epsilon: float) -> Arrays:
    """A normalization; the bias of the convolution before it, if it has one there, is folded in."""
    zeros, ones = np.zeros(node.channels, np.float32), np.ones(node.channels, np.float32)
    if given is None:  # folded into the convolution: nothing but the bias remains
        mean, var, scale, offset = zeros, ones - np.float32(epsilon), ones, zeros
        offset = zeros if bias is None else bias
    else:
        arrays = given.arrays
        more = np.float64(given.epsilon) - np.float64(np.float32(epsilon))
        mean, var = arrays["mean"], np.asarray(arrays["var"], np.float64) + more
        mean = mean if bias is None else mean - bias
        scale, offset = arrays.get("scale", ones), arrays.get("bias", zeros)
    found = {
        f"batch_stats/{node.name}/mean": mean,
        f"batch_stats/{node.name}/var": np.asarray(var, np.float32),
    }
    if node.facts.get("bias"):
        found[f"params/{node.name}/bias"] = offset
    if node.facts.get("scale"):
        found[f"params/{node.name}/scale"] = scale
    return found


def _kernel(given: Node) -> np.ndarray:
    """The kernel, with the inputs of a dense layer in (height, width, channel) order."""
    kernel = given.arrays["kernel"]
    if kernel.ndim != 2 or given.flattened == "HWC":
        return kernel
    channels = given.inputs[0].channels
    if len(kernel) <= channels:
        return kernel
    side = math.isqrt(len(kernel) // channels)
    if side * side * channels != len(kernel):
        raise ValueError(
            f"{given.described()} reads {channels} channels of a map that is not square"
        )
    maps = kernel.reshape(channels, side, side, -1)
    return maps.transpose(1, 2, 0, 3).reshape(kernel.shape)
