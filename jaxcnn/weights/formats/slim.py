"""Finds the layers of TF-Slim's networks by the names of their variables.

The names of residual networks and VGG give the place of a layer. Those of Inceptions give the
module, the branch and the position in it, so that their sorted order is the order of the calls
here: `InceptionV3/Mixed_6b/Branch_1/Conv2d_0b_1x7` is the second convolution of its branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcnn.weights.formats.graph import Layers, Node

_WORDS = {
    "weights": "kernel", "depthwise_weights": "kernel", "pointwise_weights": "kernel",
    "biases": "bias", "gamma": "scale", "beta": "bias", "moving_mean": "mean",
    "moving_variance": "var",
}  # fmt: skip
_VARIABLE = re.compile(rf"(Inception\w+|resnet_v[12]_\d+|vgg_\w+)/(.+)/({'|'.join(_WORDS)})")
_UNIT = re.compile(r"block(\d)/unit_(\d+)/bottleneck_v([12])/(\w+?)(\d?)(/BatchNorm)?")
_EPSILON = 1e-3  # of Inceptions
_ENDS = {"conv1": "stem_conv", "conv1/BatchNorm": "stem_bn", "postnorm": "final_bn", "logits": "fc"}
_WITH_BACKGROUND = 1001  # outputs for ImageNet; the first is for an image of no class
_RESNET_V2_SIZE = 299  # of the images of the published ones

# Where the parts of Inceptions stand whose names do not say it.
_PLACES = {
    "Repeat": "5c", "Repeat_1": "6b", "AuxLogits": "6z", "Repeat_2": "7b", "Block8": "7c",
    "Conv2d_7b_1x1": "7d", "Logits": "8a",
}  # fmt: skip


def options(scope: str) -> dict[str, Any]:
    """Returns fields of a network with which it computes what TF-Slim's does.

    Args:
      scope: with which the names of its variables begin.
    """
    if scope.startswith("Inception"):
        return {"count_include_pad": False, "bn_epsilon": _EPSILON, "same_padding": True}
    last = {"keras": True} if "_v2_" in scope else {"stride_last": True}
    return {"bn_epsilon": 1e-5, "stride_on": "3x3", "ceil_pool": True, **last}


def layers(arrays: Mapping[str, np.ndarray]) -> Layers | None:
    """Sorts variables into layers.

    Args:
      arrays: {name of the variable: array}.

    Returns:
      The layers; None if the names are not those of TF-Slim.

    Raises:
      ValueError: the variables are of several networks.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    scopes = set()
    for name, array in arrays.items():
        if match := _VARIABLE.fullmatch(name):
            scope, layer, word = match.groups()
            scopes.add(scope)
            # A separable convolution is two, the first of which does not mix channels.
            layer += f"/{word}" if word in ("depthwise_weights", "pointwise_weights") else ""
            found.setdefault(layer, {})[_WORDS[word]] = array
    if not found:
        return None
    if len(scopes) > 1:
        raise ValueError(f"it has variables of {', '.join(sorted(scopes))}")
    (scope,) = scopes
    names = sorted(found, key=_position) if scope.startswith("Inception") else sorted(found)
    nodes = [_layer(scope, name, found[name]) for name in names]
    _number(nodes)
    size = _RESNET_V2_SIZE if "_v2_" in scope else None
    return Layers("TF-Slim", nodes, scope=scope, size=size)


def without_background(found: Layers) -> bool:
    """Removes the output for images of no class, if a network has one; returns whether it had."""
    ends = [n for n in found.layers if n.kind == "dense" and n.channels == _WITH_BACKGROUND]
    for node in ends:
        node.arrays = {name: array[..., 1:] for name, array in node.arrays.items()}
        node.shape, node.channels = node.arrays["kernel"].shape, _WITH_BACKGROUND - 1
    return bool(ends)


def _layer(scope: str, name: str, arrays: dict[str, np.ndarray]) -> Node:
    """A layer; its place is a path in networks of jaxcnn, or else the order tells it."""
    place = _inception_place(name) if scope.startswith("Inception") else _place(name)
    facts = {} if place is None else {"place": place}
    name = f"{scope}/{name}"
    if "kernel" not in arrays:
        channels = arrays["bias"].size if "bias" in arrays else 0
        if "mean" not in arrays and place is None and channels:
            # The bias of a separable convolution, which is not normalized.
            zeros = np.zeros(channels, np.float32)
            arrays = {"mean": zeros, "var": zeros + np.float32(1 - _EPSILON), **arrays}
        if not {"mean", "var"} <= arrays.keys():
            raise ValueError(f"layer {name} has no weights")
        return Node("norm", (Node("input", channels=channels),), name, arrays, facts=facts)
    kernel = arrays["kernel"]
    if name.endswith("depthwise_weights"):  # (height, width, in, multiplier)
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    kind = "dense" if place in ("fc", "aux1_head/fc", "fc6", "fc7", "fc8") else "conv"
    return Node(kind, (), name, {**arrays, "kernel": kernel}, facts=facts)


def _place(name: str) -> str:
    """The path of a layer of a residual network or VGG."""
    if match := _UNIT.fullmatch(name):
        stage, block, version, word, number, norm = match.groups()
        path = f"stage{stage}_block{block}"
        if word == "preact":
            return f"{path}/bn1"
        if word == "shortcut":
            return f"{path}/proj_{'bn' if norm else 'conv'}"
        before = norm and version == "2"  # the normalization is that before the next convolution
        return f"{path}/{'bn' if norm else 'conv'}{int(number) + 1 if before else number}"
    if match := re.fullmatch(r"conv(\d)/conv\d_(\d)", name):
        return f"block{match[1]}/conv{match[2]}"
    return _ENDS.get(name, name)


def _inception_place(name: str) -> str | None:
    """The path of a classifier or of a layer of the auxiliary head; None for all others."""
    top, _, rest = name.partition("/")
    layer, _, norm = rest.partition("/")
    if top == "Logits":
        return "fc"
    if top != "AuxLogits":
        return None
    conv = {"Conv2d_1b_1x1": "conv1", "Conv2d_2a_5x5": "conv2", "Conv2d_2a": "conv2"}.get(layer)
    return f"aux1_head/{conv}/{'bn' if norm else 'conv'}" if conv else "aux1_head/fc"


def _position(name: str) -> tuple[Any, ...]:
    """Sorts the layers of an Inception in the order of their calls."""
    top, *parts = name.split("/")
    found: list[Any] = [_PLACES.get(top) or _label(top)]
    if top.startswith("Repeat") and parts:
        found.append(int(parts.pop(0).rpartition("_")[2]))
    branch = parts.pop(0) if parts and parts[0].startswith("Branch") else "Z"  # after all branches
    return (*found, branch, *map(_label, parts))


def _label(part: str) -> str:
    """The position and the kernel in a layer's name, "0b_1x7" in "Conv2d_0b_1x7"."""
    match = re.search(r"(?<=_)\d[a-z](_.*)?$", part)
    return match[0] if match else part


def _number(nodes: list[Node]) -> None:
    """Gives the layers without a place the next number of their kind, as Keras' layers have."""
    for kind, word in (("conv", "conv2d"), ("norm", "batch_normalization")):
        free = [node for node in nodes if node.kind == kind and "place" not in node.facts]
        for i, node in enumerate(free):
            node.facts["place"] = f"{word}_{i}"
