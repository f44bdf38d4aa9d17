"""Augmentation policies, which draw operations of `ops` and their magnitudes.

Each policy maps the key of an example and its image u8 or f32[H,W,3] in 0..255 to f32[H,W,3] with
integer values 0..255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn.data.augment import ops as image_ops

_GRAY = (128.0, 128.0, 128.0)
# {operation: (base, swing)}. The argument of an operation is base + sign * swing, with random sign.
_Arguments = Mapping[str, tuple[Array | float, Array | float]]


def randaugment(
    key: Array,
    image: Array,
    amount: Sequence[float] = (2, 9.0, 0.5),
    *,
    fill: Sequence[float] = _GRAY,
) -> Array:
    """Applies RandAugment (Cubuk et al. 2020, arXiv 1909.13719) in timm's "increasing" form.

    "ResNet strikes back" uses this form. Operations are drawn with replacement, and each is applied
    with probability 0.5. A larger magnitude strengthens every operation, and the magnitude of each
    operation is drawn from a normal distribution.

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,3] in 0..255.
      amount: (number of operations, mean magnitude 0..10, standard deviation of the magnitude).
      fill: color of pixels that come from outside the image.

    Returns:
      f32[H,W,3] with integer values 0..255.
    """
    count, magnitude, spread = amount
    size = image.shape[:2]
    image = _pixels(image)
    for layer in range(int(count)):
        op_key, level_key, sign_key, apply_key = _keys(key, layer)
        level = magnitude + spread * jax.random.normal(level_key)
        space = _increasing(jnp.clip(level, 0, 10) / 10, size)
        op = jax.random.randint(op_key, (), 0, len(space))
        changed = _apply(image, space, op, sign_key, fill)
        image = jnp.where(jax.random.bernoulli(apply_key), changed, image)
    return image


def _pixels(image: Array) -> Array:
    """Rounds and clips to 0..255, since `lighting` and `color_jitter` do not clip."""
    return jnp.clip(jnp.round(image.astype(jnp.float32)), 0, 255)


def trivial_augment(
    key: Array, image: Array, amount: int = 31, *, fill: Sequence[float] = _GRAY
) -> Array:
    """Applies one random operation: TrivialAugment Wide (Müller & Hutter 2021, arXiv 2103.10158).

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,3] in 0..255.
      amount: number of equally spaced strengths to draw from.
      fill: color of pixels that come from outside the image.

    Returns:
      f32[H,W,3] with integer values 0..255.
    """
    op_key, level_key, sign_key, _ = _keys(key, 0)
    level = jax.random.randint(level_key, (), 0, amount) / (amount - 1)
    space = _wide(level)
    op = jax.random.randint(op_key, (), 0, len(space))
    return _apply(_pixels(image), space, op, sign_key, fill)


def autoaugment(
    key: Array, image: Array, amount: str = "cifar10", *, fill: Sequence[float] = _GRAY
) -> Array:
    """Applies AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv 1805.09501, appendix).

    The policy draws one of 25 pairs of operations. Each operation has a fixed probability and one
    of ten strengths.

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,3] in 0..255.
      amount: name of the policy; only "cifar10" is available.
      fill: color of pixels that come from outside the image.

    Returns:
      f32[H,W,3] with integer values 0..255.
    """
    del amount
    pair = jax.random.randint(jax.random.fold_in(key, 2), (), 0, len(_CIFAR10))
    size = image.shape[:2]
    names = list(_strengths(0.0, size))
    ops = np.array([[names.index(op) for op, _, _ in p] for p in _CIFAR10])
    probabilities = np.array([[chance for _, chance, _ in p] for p in _CIFAR10], np.float32)
    levels = np.array([[level / 9 for _, _, level in p] for p in _CIFAR10], np.float32)
    image = _pixels(image)
    for layer in range(2):
        _, _, sign_key, apply_key = _keys(key, layer)
        op, probability, level = (
            jnp.asarray(table)[pair, layer] for table in (ops, probabilities, levels)
        )
        changed = _apply(image, _strengths(level, size), op, sign_key, fill)
        image = jnp.where(jax.random.bernoulli(apply_key, probability), changed, image)
    return image


def _keys(key: Array, layer: int) -> Array:
    return jax.random.split(jax.random.fold_in(key, layer), 4)


def _apply(
    image: Array, space: _Arguments, op: Array, sign_key: Array, fill: Sequence[float]
) -> Array:
    """Applies the operation with index `op` in `space`."""
    base, swing = (
        jnp.stack([jnp.asarray(pair[i], jnp.float32) for pair in space.values()])[op]
        for i in range(2)
    )
    index = jnp.array([image_ops.OPS.index(name) for name in space])[op]
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    return image_ops.apply(image, index, base + sign * swing, fill)


def _enhance(swing: Array | float) -> dict[str, tuple[Array | float, Array | float]]:
    names = ("color", "contrast", "brightness", "sharpness")
    return dict.fromkeys(names, (1.0, swing))


def _increasing(level: Array, size: tuple[int, ...]) -> _Arguments:
    return {
        "autocontrast": (0, 0),
        "equalize": (0, 0),
        "invert": (0, 0),
        "rotate": (0, 30 * level),
        "posterize": (4 - jnp.floor(4 * level), 0),
        "solarize": (256 - jnp.floor(256 * level), 0),
        "solarize_add": (jnp.floor(110 * level), 0),
        **_enhance(0.9 * level),
        "shear_x": (0, 0.3 * level),
        "shear_y": (0, 0.3 * level),
        "translate_x": (0, 0.45 * size[1] * level),
        "translate_y": (0, 0.45 * size[0] * level),
    }


def _wide(level: Array) -> _Arguments:
    return {
        "identity": (0, 0),
        "shear_x": (0, 0.99 * level),
        "shear_y": (0, 0.99 * level),
        "translate_x": (0, jnp.floor(32 * level)),
        "translate_y": (0, jnp.floor(32 * level)),
        "rotate": (0, 135 * level),
        **_enhance(0.99 * level),
        "posterize": (8 - jnp.round(6 * level), 0),
        "solarize": (255 - 255 * level, 0),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
    }


def _strengths(level: Array | float, size: tuple[int, ...]) -> _Arguments:
    return {
        "shear_x": (0, 0.3 * level),
        "shear_y": (0, 0.3 * level),
        "translate_x": (0, jnp.floor(150 / 331 * size[1] * level)),
        "translate_y": (0, jnp.floor(150 / 331 * size[0] * level)),
        "rotate": (0, 30 * level),
        **_enhance(0.9 * level),
        "posterize": (8 - jnp.round(4 * level), 0),
        "solarize": (255 - 255 * level, 0),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
        "invert": (0, 0),
    }


# Pairs of (operation, probability, strength 0..9).
_CIFAR10 = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
