"""Reads the weights that the package flaxmodels publishes: its VGG and ResNet, as .h5.

They are torchvision's, with kernels as (height, width, in, out). The first dense layer of VGG
flattens in (channel, height, width) order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcnn.weights.files import MOST_UNPACKED
from jaxcnn.weights.formats.graph import Node

_ENDS = {"conv1": "stem_conv", "bn1": "stem_bn"}
_LAST_MAP = 512  # channels, of VGG


def is_of_flaxmodels(file: Any) -> bool:
    """Returns whether an open HDF5 file has such weights."""
    return any(name in file and "weight" in file[name] for name in ("conv1", "conv1_1"))


def layers(file: Any) -> list[Node]:
    """Reads the layers of an open HDF5 file, named as in networks of jaxcnn."""
    return [_layer(name, arrays) for name, arrays in _groups(file, "")]


def values_of(dataset: Any) -> np.ndarray:
    """Reads a data set of an HDF5 file, unless it is larger than what a file of this size can hold.

    Args:
      dataset: of h5py.

    Raises:
      ValueError: it is larger.
    """
    if dataset.nbytes > MOST_UNPACKED * dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} declares {dataset.nbytes:,} bytes")
    return np.asarray(dataset)


def _groups(group: Any, prefix: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    arrays = {key: values_of(value) for key, value in group.items() if hasattr(value, "dtype")}
    if arrays:
        yield prefix.rstrip("/"), arrays
    for key, value in group.items():
        if key not in arrays:
            yield from _groups(value, f"{prefix}{key}/")


def _layer(name: str, arrays: dict[str, np.ndarray]) -> Node:
    name = _path(name)
    if "weight" not in arrays:
        channels = len(arrays["mean"])
        return Node("norm", (Node("input", channels=channels),), name, arrays, epsilon=1e-5)
    kernel = arrays["weight"]
    arrays = {"kernel": kernel, **({"bias": arrays["bias"]} if "bias" in arrays else {})}
    if kernel.ndim == 4:
        return Node("conv", (), name, arrays)
    before = Node("input", channels=_LAST_MAP if name == "fc6" else len(kernel))
    return Node("dense", (before,), name, arrays, flattened="CHW")


def _path(name: str) -> str:
    if match := re.fullmatch(r"layer(\d)/block(\d+)/(.+)", name):
        layer = match[3].replace("downsample/", "proj_")
        return f"stage{match[1]}_block{int(match[2]) + 1}/{layer}"
    if match := re.fullmatch(r"conv(\d)_(\d)", name):
        return f"block{match[1]}/conv{match[2]}"
    return _ENDS.get(name, name)
