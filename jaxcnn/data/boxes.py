"""Bounding boxes: their overlap, and how crops and augmentation transform them.

A box is (top, left, bottom, right) as fractions of the height and width of the image, so that
(0, 0, 1, 1) is the whole image. The boxes of an image are an array [M,4], sorted by decreasing area
and padded with zeros. A box without area is padding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data.augment import pipeline
from jaxcnn.data.crops import Window

Array = jax.Array
MOST = 64  # boxes per image that are kept, the largest ones, of datasets of image files

# Augmentations that do not move pixels.
_STATIONARY = ("color_jitter", "lighting", "cutout", "random_erasing")


def area(boxes: Any) -> Any:
    """Computes the areas of boxes, [...,4] to [...]. The area of an inverted box is 0."""
    return (boxes[..., 2] - boxes[..., 0]).clip(0) * (boxes[..., 3] - boxes[..., 1]).clip(0)


def iou(first: Array, second: Array) -> Array:
    """Computes the intersection over union, which does not depend on the aspect ratio of the image.

    Args:
      first: boxes f32[...,4].
      second: boxes f32[...,4], of a shape that broadcasts with that of `first`.

    Returns:
      f32[...] in 0..1; 0 if neither box has an area.
    """
    intersection = area(
        jnp.concatenate(
            [
                jnp.maximum(first[..., :2], second[..., :2]),
                jnp.minimum(first[..., 2:], second[..., 2:]),
            ],
            -1,
        )
    )
    union = area(first) + area(second) - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def to_center(boxes: Array) -> Array:
    """Converts boxes f32[...,4] to (center x, center y, width, height), which VGG regresses."""
    top, left, bottom, right = (boxes[..., i] for i in range(4))
    return jnp.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)


def from_center(boxes: Array) -> Array:
    """Inverts `to_center`, f32[...,4] to f32[...,4]."""
    x, y, width, height = (boxes[..., i] for i in range(4))
    return jnp.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)


def pack(values: Sequence[Sequence[float]], most: int = MOST) -> np.ndarray:
    """Sorts boxes by decreasing area and pads or truncates them.

    Args:
      values: any number of boxes, [M,4].
      most: number of boxes to return.

    Returns:
      f32[most,4].
    """
    boxes = np.asarray(values, np.float32).reshape(-1, 4)
    boxes = boxes[np.argsort(-area(boxes), kind="stable")][:most]
    return np.concatenate([boxes, np.zeros((most - len(boxes), 4), np.float32)])


def through(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """Converts boxes from coordinates of the image to those of a window, without clipping.

    Args:
      boxes: f32[...,4], in an image of this height and width.
      window: the window, in pixels.
      height: height of the image in pixels.
      width: width of the image in pixels.

    Returns:
      f32[...,4]. Padding remains zero.
    """
    start = np.array([window.top, window.left] * 2)
    extent = np.array([window.bottom - window.top, window.right - window.left] * 2)
    pixels = boxes * np.array([height, width] * 2)
    transformed = ((pixels - start) / extent).astype(np.float32)
    return np.where(area(boxes)[..., None] > 0, transformed, np.float32(0))


def out_of(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """Inverts `through`: converts boxes from coordinates of a window to those of the image."""
    start = np.array([window.top, window.left] * 2)
    extent = np.array([window.bottom - window.top, window.right - window.left] * 2)
    return ((boxes * extent + start) / np.array([height, width] * 2)).astype(np.float32)


def visible(boxes: Any) -> Any:
    """Clips boxes [...,4] to the image."""
    return boxes.clip(0, 1)


def make_move(augment: Sequence[tuple[str, Any]]) -> Callable[[Array, Array, Any], Array]:
    """Creates the function that transforms boxes as augmentation transforms the images.

    Args:
      augment: see `jaxcnn.data.augment.pipeline.make_prepare`.

    Returns:
      `move(keys [N], boxes f32[N,M,4], (height, width)) -> f32[N,M,4]`. With the keys of the
      images, the boxes follow the pixels; they are clipped at the border.

    Raises:
      ValueError: boxes cannot follow one of the augmentations, such as a rotation.
    """
    augment = [(pipeline.current_name(name), amount) for name, amount in augment]
    for name, _ in augment:
        if name not in (*_MOVES, *_STATIONARY):
            raise ValueError(
                f"the augmentation {name!r} cannot be combined with boxes; those that can are "
                f"{', '.join((*_MOVES, *_STATIONARY))}"
            )

    def one(key: Array, boxes: Array, size: tuple[int, int]) -> Array:
        for i, (name, amount) in enumerate(augment):
            if name in _MOVES:
                boxes = _MOVES[name](jax.random.fold_in(key, i), boxes, size, amount)
        return visible(boxes)

    def move(keys: Array, boxes: Array, size: tuple[int, int]) -> Array:
        return jax.vmap(functools.partial(one, size=size))(keys, boxes)

    return move


def _flip(key: Array, boxes: Array, size: tuple[int, int], probability: float) -> Array:
    mirrored = jnp.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], -1)
    return jnp.where(jax.random.bernoulli(key, probability), mirrored, boxes)


def _crop(key: Array, boxes: Array, size: tuple[int, int], pad: int) -> Array:
    offset = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    shift = (pad - offset) / jnp.array(size)
    return visible(boxes + jnp.tile(shift, 2)[None])


_MOVES: dict[str, Callable[..., Array]] = {"flip": _flip, "pad_crop": _crop, "reflect_crop": _crop}
