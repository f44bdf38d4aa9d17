"""Boxes in images: their overlap, and how they follow what is done to an image.

A box is (top, left, bottom, right) in shares of the height and width, so that (0, 0, 1, 1) is all
of the image. An image has [M,4] of them, the largest first, filled up with zeros: a box without
area is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data.augment import pipeline
from jaxcnn.data.crops import Window

Array = jax.Array
MOST = 16  # boxes of an image that are kept; of the files of photos

# Augmentations that leave every pixel where it is, or erase some.
_STILL = ("color_jitter", "lighting", "cutout", "random_erasing")


def area(boxes: Any) -> Any:
    """[...,4] to [...]; 0 where a box is upside down."""
    return (boxes[..., 2] - boxes[..., 0]).clip(0) * (boxes[..., 3] - boxes[..., 1]).clip(0)


def iou(first: Array, second: Array) -> Array:
    """Intersection over union of boxes [...,4], of shapes that broadcast: [...], 0 to 1.

    0 where neither has an area. Stretching an image changes nothing.
    """
    inside = area(
        jnp.concatenate(
            [
                jnp.maximum(first[..., :2], second[..., :2]),
                jnp.minimum(first[..., 2:], second[..., 2:]),
            ],
            -1,
        )
    )
    union = area(first) + area(second) - inside
    return jnp.where(union > 0, inside / jnp.where(union > 0, union, 1), 0)


def to_center(boxes: Array) -> Array:
    """(top, left, bottom, right) to (center x, center y, width, height), as VGG regresses them."""
    top, left, bottom, right = (boxes[..., i] for i in range(4))
    return jnp.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], -1)


def from_center(boxes: Array) -> Array:
    """The inverse of `to_center`."""
    x, y, width, height = (boxes[..., i] for i in range(4))
    return jnp.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)


def pack(found: Sequence[Sequence[float]], most: int = MOST) -> np.ndarray:
    """Any number of boxes as f32[most,4], the largest first; what is too many is dropped."""
    boxes = np.asarray(found, np.float32).reshape(-1, 4)
    boxes = boxes[np.argsort(-area(boxes), kind="stable")][:most]
    return np.concatenate([boxes, np.zeros((most - len(boxes), 4), np.float32)])


def through(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """Boxes f32[...,4] of an image of this size as they lie in a window of it, also outside."""
    start = np.array([window.top, window.left] * 2)
    extent = np.array([window.bottom - window.top, window.right - window.left] * 2)
    pixels = boxes * np.array([height, width] * 2)
    there = ((pixels - start) / extent).astype(np.float32)
    return np.where(area(boxes)[..., None] > 0, there, np.float32(0))


def out_of(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """The inverse of `through`: boxes in the window to boxes of the image."""
    start = np.array([window.top, window.left] * 2)
    extent = np.array([window.bottom - window.top, window.right - window.left] * 2)
    return ((boxes * extent + start) / np.array([height, width] * 2)).astype(np.float32)


def visible(boxes: Any) -> Any:
    """What of boxes [...,4] lies in the image."""
    return boxes.clip(0, 1)


def make_move(augment: Sequence[tuple[str, Any]]) -> Callable[[Array, Array, Any], Array]:
    """Makes `move(keys [N], boxes f32[N,M,4], (height, width)) -> f32[N,M,4]`.

    The boxes go where `jaxcnn.data.augment.pipeline.make_prepare` of the same steps and keys moves
    the pixels, and are cut off at the border.

    Raises:
      ValueError: an augmentation turns or bends the image: boxes do not follow it.
    """
    augment = [(pipeline.current_name(name), amount) for name, amount in augment]
    for name, _ in augment:
        if name not in (*_MOVES, *_STILL):
            raise ValueError(
                f"boxes do not follow the augmentation {name!r}; "
                f"those they follow are {', '.join((*_MOVES, *_STILL))}"
            )

    def one(key: Array, boxes: Array, size: tuple[int, int]) -> Array:
        for i, (name, amount) in enumerate(augment):
            if name in _MOVES:
                boxes = _MOVES[name](jax.random.fold_in(key, i), boxes, size, amount)
        return visible(boxes)

    return lambda keys, boxes, size: jax.vmap(lambda key, own: one(key, own, size))(keys, boxes)


def _flip(key: Array, boxes: Array, size: tuple[int, int], probability: float) -> Array:
    mirrored = jnp.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], -1)
    return jnp.where(jax.random.bernoulli(key, probability), mirrored, boxes)


def _crop(key: Array, boxes: Array, size: tuple[int, int], pad: int) -> Array:
    offset = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    shift = (pad - offset) / jnp.array(size)
    return visible(boxes + jnp.tile(shift, 2)[None])


_MOVES: dict[str, Callable[..., Array]] = {"flip": _flip, "pad_crop": _crop, "reflect_crop": _crop}
