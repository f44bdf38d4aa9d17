"""Finds the layer of a network for each name in a file that has only weights, such as Keras'.

These are the names of Keras' own networks (`keras.applications`). Layers without names of their own
are numbered in the order in which Keras creates them, which is the order of the calls here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn.weights.formats.graph import Node


def options(family: str) -> dict[str, Any]:
    """Returns fields of a network with which it computes what Keras' own does.

    Args:
      family: of the network.
    """
    epsilon = 1.001e-5 if family.startswith("resnet") else 1e-3
    found: dict[str, Any] = {"count_include_pad": False, "bn_epsilon": epsilon}
    if family == "resnet_v2":
        return found | {"keras": True}
    return found | {"stride_on": "1x1", "ceil_pool": False}


_NUMBERED = re.compile(r"(conv2d|batch_normalization|batchnormalization|convolution2d)(?:_(\d+))?$")
_BLOCK = re.compile(r"conv(\d)_block(\d+)_(\d)_(conv|bn)$")
_PREACTIVATION = re.compile(r"conv(\d)_block(\d+)_preact_bn$")
_FORMER_BLOCK = re.compile(r"(res|bn)(\d)([a-z])(\d*)_branch(1|2([abc]))$")
_EXPANSION = re.compile(r"block(35|17|8)_(\d+)_conv$")


def assign(own: Sequence[Node], layers: Sequence[Node]) -> list[tuple[Node, Node | None]]:
    """Pairs the layers of a network with those of a file by their names.

    Args:
      own: layers of the network, with their paths as names.
      layers: of the file.

    Returns:
      Pairs, in the order of the network's calls; layers of the network that the file lacks have
      none.
    """
    called = sorted(own, key=lambda node: node.facts["call"])
    preactivated = any(layer.name == "post_bn" for layer in layers)
    found: dict[str, Node] = {}
    numbered: dict[bool, list[tuple[int, Node]]] = {False: [], True: []}  # by "is a normalization"
    for layer in layers:
        name = layer.facts.get("place", layer.name)
        if match := _NUMBERED.match(name):
            numbered[layer.kind == "norm"].append((int(match[2] or 0), layer))
        else:
            found[_path(name, preactivated)] = layer
    kinds: Mapping[bool, Sequence[str]] = {False: ("conv",), True: ("norm",)}
    for is_norm, rows in numbered.items():
        free = [n for n in called if n.kind in kinds[is_norm] and n.name not in found]
        rows.sort(key=lambda row: row[0])
        found |= {node.name: layer for node, (_, layer) in zip(free, rows)}
        found |= {layer.name: layer for _, layer in rows[len(free) :]}  # too many
    heads = [n for n in called if n.kind == "dense"]
    dense = [layer for name, layer in found.items() if layer.kind == "dense" and "/" not in name]
    if len(heads) == len(dense):  # in the order of the file, whatever their names
        found = {k: v for k, v in found.items() if v not in dense}
        found |= {node.name: layer for node, layer in zip(heads, dense)}
    return [(node, found.pop(node.name, None)) for node in called] + [
        (Node("unknown"), layer) for layer in found.values()
    ]


def _path(name: str, preactivated: bool) -> str:
    """The path of a layer of Keras' networks; the name itself of one of others."""
    if match := _BLOCK.match(name):
        stage, block, number, kind = match.groups()
        if preactivated and kind == "bn":  # the block's first has another name
            number = str(int(number) + 1)
        layer = f"{kind}{number}" if number != "0" else f"proj_{kind}"
        return f"stage{int(stage) - 1}_block{block}/{layer}"
    if match := _PREACTIVATION.match(name):
        return f"stage{int(match[1]) - 1}_block{match[2]}/bn1"
    if match := _FORMER_BLOCK.match(name):
        kind, stage, letter, number, branch, part = match.groups()
        # Caffe's names count a, b1, b2, ... in long stages, and a, b, c in short ones.
        block = int(number) + 1 if number else "abcdefghijklmnopqrstuvwxyz".index(letter) + 1
        word = "conv" if kind == "res" else "bn"
        layer = f"proj_{word}" if branch == "1" else f"{word}{'abc'.index(part) + 1}"
        return f"stage{int(stage) - 1}_block{block}/{layer}"
    if match := _EXPANSION.match(name):
        stage = {"35": 1, "17": 2, "8": 3}[match[1]]
        return f"stage{stage}_block{match[2]}/expand"
    if match := re.fullmatch(r"block(\d)_conv(\d)", name):
        return f"block{match[1]}/conv{match[2]}"
    return _FIRST_AND_LAST.get(name, name)


_FIRST_AND_LAST = {
    "conv1_conv": "stem_conv",
    "conv1": "stem_conv",
    "conv1_bn": "stem_bn",
    "bn_conv1": "stem_bn",
    "post_bn": "final_bn",
    "conv_7b": "last/conv",
    "conv_7b_bn": "last/bn",
}
