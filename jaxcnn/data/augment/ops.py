"""The image operations of learned augmentation policies, rounded as in Pillow.

Every operation maps f32[H,W,3] with integer values 0..255 to the same. The operation may be drawn
on the device, in which case a batch computes all of them; they are therefore arranged to share
work. All pointwise operations use one lookup in a table of 256 values per channel, and all
geometric operations use one affine transformation.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

_TABLES = (
    "identity",
    "autocontrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "solarize_add",
    "brightness",
    "contrast",
)
_BLENDS = ("color", "sharpness")
_MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPS = (*_TABLES, *_BLENDS, *_MOVES)


def apply(image: Array, op: Array | int, argument: Array | float, fill: Sequence[float]) -> Array:
    """Applies one operation to an image.

    Args:
      image: f32[H,W,3] with integer values 0..255.
      op: i32[], index of the operation in `OPS`.
      argument: f32[]. For posterize: number of bits to keep. For solarize: smallest value to
        invert. For solarize_add: increment of values below 128. For brightness, contrast, color and
        sharpness: blend factor, where 1 keeps the image and 0 gives black, the mean gray, the
        grayscale image or the smoothed image. For rotate: degrees, counterclockwise. For shear:
        slope. For translate: pixels, to the left or up. The other operations ignore it.
      fill: color of pixels that come from outside the image, 3 integers.

    Returns:
      f32[H,W,3] with integer values 0..255.
    """
    op, argument = jnp.asarray(op), jnp.asarray(argument, jnp.float32)
    table = _tables(image, argument)[jnp.where(op < len(_TABLES), op, 0)]
    looked_up = table[image.astype(jnp.int32), jnp.arange(3)[None, None]]
    color = blend(gray(image)[..., None], image, argument)
    sharp = blend(_smooth(image), image, argument)
    first = len(_TABLES) + len(_BLENDS)
    moved = _affine(image, _matrix(op - first, argument, image.shape[:2]), fill)
    out = jnp.where(op == OPS.index("color"), color, looked_up)
    out = jnp.where(op == OPS.index("sharpness"), sharp, out)
    return jnp.where(op >= first, moved, out)


def gray(image: Array) -> Array:
    """Computes the luma of ITU-R 601, f32[H,W], rounded as in Pillow's mode "L"."""
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    return ((image.astype(jnp.int32) * weights[None, None]).sum(-1) + 0x8000 >> 16).astype(
        jnp.float32
    )


def blend(start: Array, image: Array, factor: Array) -> Array:
    """Computes start + factor * (image - start), clipped to 0..255 and rounded down."""
    return jnp.floor(jnp.clip(start + factor * (image - start), 0, 255))


def _tables(image: Array, argument: Array) -> Array:
    """Lookup tables f32[operation,256,3], in the order of `_TABLES`."""
    value = jnp.broadcast_to(jnp.arange(256.0)[:, None], (256, 3))
    counts = jnp.zeros((256, 3), jnp.int32)
    counts = counts.at[image.astype(jnp.int32), jnp.arange(3)[None, None]].add(1)
    keep = 2.0 ** (8 - argument)
    mean = jnp.floor(gray(image).mean() + 0.5)
    tables = {
        "identity": value,
        "autocontrast": _autocontrast(value, counts),
        "equalize": _equalize(value, counts),
        "invert": 255 - value,
        "posterize": jnp.floor(value / keep) * keep,
        "solarize": jnp.where(value < argument, value, 255 - value),
        "solarize_add": jnp.where(value < 128, jnp.minimum(value + argument, 255), value),
        "brightness": blend(jnp.zeros_like(value), value, argument),
        "contrast": blend(mean, value, argument),
    }
    return jnp.stack([tables[name] for name in _TABLES])


def _autocontrast(value: Array, counts: Array) -> Array:
    low = jnp.argmax(counts > 0, axis=0)[None]
    high = 255 - jnp.argmax(counts[::-1] > 0, axis=0)[None]
    stretched = jnp.floor(255 * (value - low) / jnp.maximum(high - low, 1))
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), value)


def _equalize(value: Array, counts: Array) -> Array:
    high = 255 - jnp.argmax(counts[::-1] > 0, axis=0)
    step = (counts.sum(0) - counts[high, jnp.arange(3)])[None] // 255
    below = jnp.cumsum(counts, axis=0) - counts
    flat = (step // 2 + below) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(flat, 255).astype(jnp.float32), value)


def _smooth(image: Array) -> Array:
    """Averages 3x3 pixels with a weight of 5 for the center. The border is unchanged."""
    height, width = image.shape[:2]
    around = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    inner = jnp.floor((around + 4 * image[1:-1, 1:-1]) / 13 + 0.5)
    return image.at[1:-1, 1:-1].set(inner)


def _matrix(move: Array, argument: Array, size: tuple[int, ...]) -> Array:
    """Affine matrix f32[2,3] from an output pixel (x, y, 1) to input coordinates (x, y)."""
    one, zero = jnp.float32(1), jnp.float32(0)
    angle = jnp.deg2rad(argument)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = size[0] / 2, size[1] / 2
    matrices = {
        "rotate": (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y),
        "shear_x": (one, argument, zero, zero, one, zero),
        "shear_y": (one, zero, zero, argument, one, zero),
        "translate_x": (one, zero, argument, zero, one, zero),
        "translate_y": (one, zero, zero, zero, one, argument),
    }
    stacked = jnp.stack([jnp.stack(matrices[name]) for name in _MOVES])
    return stacked[jnp.clip(move, 0, len(_MOVES) - 1)].reshape(2, 3)


def _affine(image: Array, matrix: Array, fill: Sequence[float]) -> Array:
    """Resamples the image with nearest-neighbor interpolation; see `_matrix`."""
    height, width = image.shape[:2]
    y, x = jnp.mgrid[:height, :width] + 0.5
    (a, b, c), (d, e, f) = matrix
    column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
    row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    picked = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], picked, jnp.asarray(fill, jnp.float32)[None, None])
