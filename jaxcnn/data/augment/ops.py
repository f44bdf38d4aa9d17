"""The image operations of learned augmentation policies, with the rounding of Pillow's.

Every operation takes f32[H,W,3] with whole numbers 0..255 and gives the same. Which one is carried
out may be known on the device only: then a batch computes them all, so they are arranged to share
work. Those of one pixel alone are a table of 256 values per channel, looked up once; those that
move pixels are one affine map.
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
    """One operation, f32[H,W,3] to f32[H,W,3].

    Args:
      image: whole numbers 0..255.
      op: i32[], its place in `OPS`.
      argument: f32[]; posterize: bits that are kept; solarize: the least value that is inverted;
        solarize_add: what is added to values below 128; brightness, contrast, color, sharpness: 1
        leaves the image, 0 gives black, the mean gray, the gray image, the smoothed one; rotate:
        degrees, counterclockwise; shear: slope; translate: pixels to the left or up; else unused.
      fill: color of what comes in from outside, 3 whole numbers.
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
    """Luma of ITU-R 601, [H,W], rounded as Pillow's mode "L"."""
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    return ((image.astype(jnp.int32) * weights[None, None]).sum(-1) + 0x8000 >> 16).astype(
        jnp.float32
    )


def blend(start: Array, image: Array, factor: Array) -> Array:
    """start + factor (image - start), cut to 0..255 and to whole numbers."""
    return jnp.floor(jnp.clip(start + factor * (image - start), 0, 255))


def _tables(image: Array, argument: Array) -> Array:
    """f32[operation,256,3]: what each value of each channel becomes, in the order of _TABLES."""
    value = jnp.broadcast_to(jnp.arange(256.0)[:, None], (256, 3))
    counts = jnp.zeros((256, 3), jnp.int32)
    counts = counts.at[image.astype(jnp.int32), jnp.arange(3)[None, None]].add(1)
    keep = 2.0 ** (8 - argument)
    mean = jnp.floor(gray(image).mean() + 0.5)
    found = {
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
    return jnp.stack([found[name] for name in _TABLES])


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
    """The mean of 3x3 with the center counted five times; the edge stays."""
    height, width = image.shape[:2]
    around = sum(image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    inner = jnp.floor((around + 4 * image[1:-1, 1:-1]) / 13 + 0.5)
    return image.at[1:-1, 1:-1].set(inner)


def _matrix(move: Array, argument: Array, size: tuple[int, ...]) -> Array:
    """f32[2,3]: (x, y, 1) of a pixel of the output to (x, y) in the input."""
    one, zero = jnp.float32(1), jnp.float32(0)
    angle = jnp.deg2rad(argument)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y, x = size[0] / 2, size[1] / 2
    found = {
        "rotate": (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y),
        "shear_x": (one, argument, zero, zero, one, zero),
        "shear_y": (one, zero, zero, argument, one, zero),
        "translate_x": (one, zero, argument, zero, one, zero),
        "translate_y": (one, zero, zero, zero, one, argument),
    }
    every = jnp.stack([jnp.stack(found[name]) for name in _MOVES])
    return every[jnp.clip(move, 0, len(_MOVES) - 1)].reshape(2, 3)


def _affine(image: Array, matrix: Array, fill: Sequence[float]) -> Array:
    """The nearest pixel to where the matrix points."""
    height, width = image.shape[:2]
    y, x = jnp.mgrid[:height, :width] + 0.5
    (a, b, c), (d, e, f) = matrix
    column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
    row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    picked = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], picked, jnp.asarray(fill, jnp.float32)[None, None])
