"""Color augmentation: maps u8 or f32[H,W,3] in 0..255 to f32[H,W,3], without clipping."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Principal components of RGB in [0,1] over the training images of ImageNet; eigenvectors are
# columns.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


def lighting(key: Array, image: Array, std: float = 0.1) -> Array:
    """Adds one random color to all pixels (Krizhevsky et al. 2012, section 4.1).

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,3] in 0..255.
      std: standard deviation of the coefficients. The color is the sum over the principal
        components of N(0, std) * eigenvalue * eigenvector.

    Returns:
      f32[H,W,3].
    """
    draws = std * jax.random.normal(key, (3,))
    shift = jnp.asarray(255 * _EIGENVECTORS * _EIGENVALUES, jnp.float32) @ draws
    return image.astype(jnp.float32) + shift[None, None]


def color_jitter(key: Array, image: Array, strength: float = 0.4) -> Array:
    """Changes brightness, contrast and saturation in random order, as fb.resnet.torch does.

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,3] in 0..255.
      strength: each change blends the image with black, its mean gray or its grayscale version, by
        a factor drawn uniformly from [1 - strength, 1 + strength].

    Returns:
      f32[H,W,3].
    """
    order_key, factor_key = jax.random.split(key)
    order = jax.random.permutation(order_key, 3)
    factors = jax.random.uniform(factor_key, (3,), minval=1 - strength, maxval=1 + strength)
    image = image.astype(jnp.float32)
    for place in range(3):
        gray = (image * jnp.asarray(_GRAY)[None, None]).sum(-1, keepdims=True)
        kind = order[place]
        start = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, gray.mean(), gray))
        image = start + factors[kind] * (image - start)
    return image
