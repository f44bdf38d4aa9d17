"""Erasing a region of an image [H,W,C] in 0..255. The dtype is unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def cutout(key: Array, image: Array, side: int = 16, *, fill: Sequence[float]) -> Array:
    """Fills a square with one color: Cutout (DeVries & Taylor 2017, arXiv 1708.04552).

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,C] in 0..255.
      side: side of the square in pixels. Each pixel is equally likely to be its center; the square
        is clipped at the border of the image.
      fill: f[C], the mean color in 0..255, which normalization maps to the zeros of the paper.

    Returns:
      The image, of the same shape and dtype.
    """
    height, width, _ = image.shape
    at = jax.random.randint(key, (2,), 0, np.array([height, width]))
    corner = at - side // 2
    return _fill(image, corner, corner + side, jnp.asarray(fill)[None, None])


def random_erasing(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Fills a rectangle with random pixels: random erasing (Zhong et al. 2020, arXiv 1708.04896).

    The rectangle covers 2 to 40 % of the area and has an aspect ratio of 0.3 to 3.3. The paper
    draws rectangles until one fits into the image. This function draws ten of them, and erases
    nothing if none fits.

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,C] in 0..255.
      probability: of erasing a rectangle.

    Returns:
      The image, of the same shape and dtype.
    """
    height, width, _ = image.shape
    use_key, area_key, aspect_key, at_key, pixel_key = jax.random.split(key, 5)
    area = height * width * jax.random.uniform(area_key, (10,), minval=0.02, maxval=0.4)
    aspect = jax.random.uniform(aspect_key, (10,), minval=0.3, maxval=1 / 0.3)
    tall, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (tall < height) & (wide < width)
    chosen = jnp.argmax(fits)
    extent = jnp.stack([tall[chosen], wide[chosen]]).astype(jnp.int32)
    room = jnp.array([height, width]) - extent + 1
    corner = jnp.floor(jax.random.uniform(at_key, (2,)) * room).astype(jnp.int32)
    pixels = jax.random.randint(pixel_key, image.shape, 0, 256)
    use = jax.random.bernoulli(use_key, probability) & fits.any()
    return jnp.where(use, _fill(image, corner, corner + extent, pixels), image)


def _fill(image: Array, start: Array, stop: Array, value: Array) -> Array:
    """Sets the rectangle from corner `start` i32[2] to corner `stop` i32[2] (exclusive)."""
    y, x = jnp.mgrid[: image.shape[0], : image.shape[1]]
    inside = (y >= start[0]) & (y < stop[0]) & (x >= start[1]) & (x < stop[1])
    return jnp.where(inside[..., None], value.astype(image.dtype), image)
