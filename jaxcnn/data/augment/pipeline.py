"""Augmentation in pure JAX, on the device: u8 images in, normalized f32 images out.

Each random function takes the key of one example. The result for an example therefore depends
neither on the rest of the batch nor on how the batch is sharded over devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn._checks import near_or_all, note_once, shown
from jaxcnn._objects import check_call, is_address, load_object, mistakes_in_call
from jaxcnn.data.augment.color import color_jitter, lighting
from jaxcnn.data.augment.erasing import cutout, random_erasing
from jaxcnn.data.augment.policies import autoaugment, randaugment, trivial_augment


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Computes (images / 255 - mean) / std.

    Args:
      images: u8[...,C] or f32[...,C] in 0..255.
      mean: mean of each channel, for pixels in [0,1].
      std: standard deviation of each channel, likewise.

    Returns:
      f32[...,C].
    """
    scale = 1 / (255 * np.asarray(std, np.float64))
    shift = np.asarray(mean, np.float64) * 255 * scale
    ones = (1,) * (images.ndim - 1)
    scale, shift = scale.reshape(*ones, -1), shift.reshape(*ones, -1)
    return images.astype(jnp.float32) * jnp.float32(scale) - jnp.float32(shift)


def pad_crop(key: Array, image: Array, pad: int = 4) -> Array:
    """Pads the image with zeros and crops it at random to its original size.

    Args:
      key: random key of the example.
      image: u8 or f32[H,W,C].
      pad: pixels of padding on each side. All (2 pad + 1)^2 offsets are equally likely.

    Returns:
      The crop, of the shape and dtype of `image`.
    """
    return _crop(key, image, pad, "constant")


def reflect_crop(key: Array, image: Array, pad: int = 4) -> Array:
    """Like `pad_crop`, with reflection padding (which does not repeat the edge pixels)."""
    return _crop(key, image, pad, "reflect")


def flip(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Mirrors the image [H,W,C] horizontally, with the given probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def _crop(key: Array, image: Array, pad: int, mode: str) -> Array:
    offset = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    return jax.lax.dynamic_slice(padded, (*offset, 0), image.shape)


def _check_pixels(name: str, amount: Any) -> None:
    if type(amount) is not int or not 0 <= amount <= _MAX_PIXELS:
        raise ValueError(f"{name} is {amount!r}; it must be a number of pixels, 0 to {_MAX_PIXELS}")


def _check_probability(name: str, amount: Any) -> None:
    if not isinstance(amount, (int, float)) or not 0 <= amount <= 1:
        raise ValueError(f"{name} is {amount!r}; it must be a probability, 0 to 1")


def _check_fraction(name: str, amount: Any) -> None:
    if not isinstance(amount, (int, float)) or not 0 <= amount <= 1:
        raise ValueError(f"{name} is {amount!r}; it must be in [0, 1]")


def _check_policy(name: str, amount: Any) -> None:
    if amount != "cifar10":
        raise ValueError(f"{name} is {amount!r}; it must be 'cifar10'")


def _check_strengths(name: str, amount: Any) -> None:
    if not isinstance(amount, int) or amount < 2:
        raise ValueError(f"{name} is {amount!r}; it must be a number of strengths, 2 or more")


def _check_randaugment(name: str, amount: Any) -> None:
    valid = isinstance(amount, (list, tuple)) and len(amount) == 3
    valid = valid and all(type(a) in (int, float) and 0 <= a < math.inf for a in amount)
    if not valid or not 1 <= amount[0] == int(amount[0]) or amount[1] > 10:
        raise ValueError(
            f"{name} is {amount!r}; it must be (number of operations, magnitude 0 to 10, its "
            "standard deviation), such as (2, 9.0, 0.5)"
        )


def check_padding(augment: Sequence[tuple[str, Any]], side: int) -> None:
    """Raises ValueError if a crop step pads by more pixels than the side of the images."""
    for name, amount in augment:
        if name in ("pad_crop", "reflect_crop") and amount > side:
            raise ValueError(f"{name} is {amount}; it must be at most the images' side, {side}")


_MAX_PIXELS = 512

# {name: (function of key, image and amount, check of the amount)}.
STEPS: dict[str, tuple[Callable[..., Array], Callable[[str, Any], None]]] = {
    "pad_crop": (pad_crop, _check_pixels),
    "reflect_crop": (reflect_crop, _check_pixels),
    "flip": (flip, _check_probability),
    "color_jitter": (color_jitter, _check_fraction),
    "lighting": (lighting, _check_fraction),
    "cutout": (cutout, _check_pixels),
    "random_erasing": (random_erasing, _check_probability),
    "randaugment": (randaugment, _check_randaugment),
    "trivial_augment": (trivial_augment, _check_strengths),
    "autoaugment": (autoaugment, _check_policy),
}
# Steps that fill with the mean color of the dataset, and steps that need color images.
_FILL = ("cutout", "randaugment", "trivial_augment", "autoaugment")
_COLOR = ("color_jitter", "lighting", "randaugment", "trivial_augment", "autoaugment")


# Former names of steps, still accepted in configurations.
_RENAMED = {"colour_jitter": "color_jitter"}


def current_name(name: str) -> str:
    """Returns the current name of a step; a former name prints a note to stderr, once."""
    if name not in _RENAMED:
        return name
    note_once(f"the augmentation {name} is now {_RENAMED[name]}")
    return _RENAMED[name]


def _custom_step(name: str, amount: Any) -> Callable[..., Array]:
    """Returns a user's function as a step. Its output is checked when the step is traced."""
    subject, function = f"augmentation {name!r}", load_object(name)
    check_call(subject, function, "key", "image", *([] if amount is None else ["amount"]))

    def step(key: Array, image: Array, amount: Any) -> Array:
        with mistakes_in_call(subject, function):
            changed = function(key, image, *([] if amount is None else [amount]))
        same_shape = getattr(changed, "shape", None) == image.shape
        if not same_shape or changed.dtype not in (jnp.uint8, jnp.float32):
            like = ",".join(map(str, image.shape))
            raise ValueError(
                f"{subject} returned {shown(changed)}; it must return uint8[{like}] or "
                f"float32[{like}]"
            )
        return changed

    return step


def make_prepare(
    augment: Sequence[tuple[str, Any]], mean: Sequence[float], std: Sequence[float]
) -> Callable[..., Array]:
    """Creates the function that augments and normalizes a batch.

    Args:
      augment: pairs of name and amount, applied in this order, such as
        (("pad_crop", 4), ("flip", 0.5)). A name can be the address of a custom function,
        "my_steps.py:noise" or "package.module:noise". It is called with (key of the example, image
        [H,W,C], amount), or without the amount if that is None, and returns an image of the same
        shape, u8 or f32 in 0..255.
      mean: mean of each channel, for pixels in [0,1].
      std: standard deviation of each channel, likewise.

    Returns:
      `prepare(images u8[N,H,W,C], keys=None) -> f32[N,H,W,C]`. With keys [N], one per example, it
      augments and normalizes the images; without keys it only normalizes them.

    Raises:
      ValueError: a name is unknown or an amount is invalid, or, when traced, a custom function
        returns an array of another shape or dtype.
    """
    steps: list[tuple[Callable[..., Array], Any]] = []
    for name, amount in augment:
        if is_address(name):
            steps.append((_custom_step(name, amount), amount))
            continue
        name = current_name(name)
        if name not in STEPS:
            raise ValueError(f"unknown augmentation {name!r}{near_or_all(name, STEPS)}")
        function, check = STEPS[name]
        check(name, amount)
        if name in _COLOR and len(mean) != 3:
            raise ValueError(f"{name} is for images of 3 channels; these have {len(mean)}")
        if name in _FILL:
            function = functools.partial(function, fill=np.rint(255 * np.asarray(mean)))
        steps.append((function, amount))

    def one(key: Array, image: Array) -> Array:
        for i, (function, amount) in enumerate(steps):
            image = function(jax.random.fold_in(key, i), image, amount)
        return image

    def prepare(images: Array, keys: Array | None = None) -> Array:
        if keys is not None and steps:
            images = jax.vmap(one)(keys, images)
        return normalize(images, mean, std)

    return prepare
