"""Preprocessing of images for a network, and channel statistics for normalization."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Channels = tuple[float, ...]
Normalization = tuple[Channels, Channels]

# Mean and standard deviation of each channel, for pixels in [0,1], over the training images of
# ImageNet. Most published networks use them.
IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Maps to [-1,1], for the Inception networks.
HALF: Normalization = ((0.5,) * 3, (0.5,) * 3)
# Statistics of the training splits of small datasets.
STATISTICS: dict[str, Normalization] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image is converted to the input of a network.

    Attributes:
      size: height and width of the input.
      crop: fraction of the shorter side that is visible: the shorter side of the image is resized
        to floor(size / crop), and the center is cropped.
      interpolation: "bilinear" or "bicubic", for resizing.
      mean, std: mean and standard deviation of each channel, for pixels in [0,1].
    """

    size: int
    crop: float
    interpolation: str
    mean: Channels
    std: Channels


def to_dict(preprocessing: Preprocessing) -> dict[str, Any]:
    """Converts a preprocessing to a dictionary for JSON; `from_dict` is the inverse."""
    return dataclasses.asdict(preprocessing)


def from_dict(fields: Mapping[str, Any]) -> Preprocessing:
    """Converts a JSON object written by `to_dict` to a preprocessing.

    Args:
      fields: the JSON object.

    Raises:
      ValueError: a field is missing, unknown or invalid.
    """
    if not isinstance(fields, Mapping) or fields.keys() != _VALID.keys():
        raise ValueError(f"a preprocessing must have {', '.join(_VALID)}; it is {fields!r:.80}")
    for name, is_valid in _VALID.items():
        if not is_valid(fields[name]):
            raise ValueError(f"a preprocessing has {name} {fields[name]!r:.80}")
    return Preprocessing(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def to_pixels(images: np.ndarray, mean: Channels, std: Channels) -> np.ndarray:
    """Undoes the normalization of images, and rounds and clips them to whole gray levels.

    Args:
      images: f32[...,C].
      mean: of each channel, for pixels in [0,1].
      std: standard deviation of each channel.

    Returns:
      u8[...,C].
    """
    pixels = images * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.clip(np.round(255 * pixels), 0, 255).astype(np.uint8)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_channels(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_number, value))


_VALID: dict[str, Callable[[Any], bool]] = {
    "size": lambda value: type(value) is int and 0 < value <= 2**14,
    "crop": lambda value: _is_number(value) and 0.01 <= value <= 1,
    "interpolation": lambda value: value in ("bilinear", "bicubic"),
    "mean": _is_channels,
    "std": lambda value: _is_channels(value) and min(value) > 0,
}
