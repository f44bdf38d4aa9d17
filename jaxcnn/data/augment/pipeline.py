"""Augmentation in pure JAX, on the device: u8 images in, normalised f32 images out.

Each random function takes the key of one example, so that what happens to an example does not
depend on the batch around it or on how the batch is split among devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn._checks import near, shown
from jaxcnn._objects import check_call, is_address, load_object
from jaxcnn.data.augment.color import colour_jitter, lighting
from jaxcnn.data.augment.erasing import cutout, random_erasing
from jaxcnn.data.augment.policies import autoaugment, randaugment, trivial_augment


def normalise(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """(images / 255 - mean) / std, f32[...,C].

    Args:
      images: u8[...,C] or f32[...,C] in 0..255.
      mean, std: one number per channel, for pixels in [0,1].
    """
    scale = 1 / (255 * np.asarray(std, np.float64))
    shift = np.asarray(mean, np.float64) * 255 * scale
    ones = (1,) * (images.ndim - 1)
    scale, shift = scale.reshape(*ones, -1), shift.reshape(*ones, -1)
    return images.astype(jnp.float32) * jnp.float32(scale) - jnp.float32(shift)


def pad_crop(key: Array, image: Array, pad: int = 4) -> Array:
    """A crop of the image's own size, from the image with `pad` rows of zeros around it.

    Args:
      key: of this example.
      image: [H,W,C].
      pad: pixels of padding on each side; all (2 pad + 1)^2 offsets are equally likely.
    """
    return _crop(key, image, pad, "constant")


def reflect_crop(key: Array, image: Array, pad: int = 4) -> Array:
    """As `pad_crop`, with the image mirrored at its edges (without repeating them) for padding."""
    return _crop(key, image, pad, "reflect")


def flip(key: Array, image: Array, probability: float = 0.5) -> Array:
    """The image [H,W,C], mirrored left to right with this probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def _crop(key: Array, image: Array, pad: int, mode: str) -> Array:
    offset = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    return jax.lax.dynamic_slice(padded, (*offset, 0), image.shape)


def _check_pixels(name: str, amount: Any) -> None:
    if type(amount) is not int or not 0 <= amount <= _MOST_PIXELS:
        right = f"a number of pixels, 0 to {_MOST_PIXELS}"
        raise ValueError(f"{name} is {amount!r}; it must be {right}")


def _check_probability(name: str, amount: Any) -> None:
    if not isinstance(amount, (int, float)) or not 0 <= amount <= 1:
        raise ValueError(f"{name} is {amount!r}; it must be a probability, 0 to 1")


def _check_share(name: str, amount: Any) -> None:
    if not isinstance(amount, (int, float)) or not 0 <= amount <= 1:
        raise ValueError(f"{name} is {amount!r}; it must be in [0, 1]")


def _check_policy(name: str, amount: Any) -> None:
    if amount != "cifar10":
        raise ValueError(f"{name} is {amount!r}; it must be 'cifar10'")


def _check_strengths(name: str, amount: Any) -> None:
    if not isinstance(amount, int) or amount < 2:
        raise ValueError(f"{name} is {amount!r}; it must be a number of strengths, 2 or more")


def _check_randaugment(name: str, amount: Any) -> None:
    right = isinstance(amount, Sequence) and len(amount) == 3 and min(amount) >= 0
    if not right or not 1 <= amount[0] == int(amount[0]) or amount[1] > 10:
        raise ValueError(
            f"{name} is {amount!r}; it must be (number of operations, magnitude 0 to 10, its "
            "standard deviation), such as (2, 9.0, 0.5)"
        )


def check_padding(augment: Sequence[tuple[str, Any]], side: int) -> None:
    """Raises ValueError if crops of images of this side are padded by more pixels than it has."""
    for name, amount in augment:
        if name in ("pad_crop", "reflect_crop") and amount > side:
            raise ValueError(f"{name} is {amount}; it must be at most the images' side, {side}")


_MOST_PIXELS = 512

# Name: (function of key, image and amount; check of the amount).
STEPS: dict[str, tuple[Callable[..., Array], Callable[[str, Any], None]]] = {
    "pad_crop": (pad_crop, _check_pixels),
    "reflect_crop": (reflect_crop, _check_pixels),
    "flip": (flip, _check_probability),
    "colour_jitter": (colour_jitter, _check_share),
    "lighting": (lighting, _check_share),
    "cutout": (cutout, _check_pixels),
    "random_erasing": (random_erasing, _check_probability),
    "randaugment": (randaugment, _check_randaugment),
    "trivial_augment": (trivial_augment, _check_strengths),
    "autoaugment": (autoaugment, _check_policy),
}
# Steps that paint with the mean colour of the set, and those for colour images only.
_PAINT = ("cutout", "randaugment", "trivial_augment", "autoaugment")
_COLOUR = ("colour_jitter", "lighting", "randaugment", "trivial_augment", "autoaugment")


def _own_step(name: str, amount: Any) -> Callable[..., Array]:
    """A step of the user's own; what it returns is checked when it is traced."""
    what, function = f"augmentation {name!r}", load_object(name)
    check_call(what, function, "key", "image", *([] if amount is None else ["amount"]))

    def step(key: Array, image: Array, amount: Any) -> Array:
        made = function(key, image, *([] if amount is None else [amount]))
        right = getattr(made, "shape", None) == image.shape
        if not right or made.dtype not in (jnp.uint8, jnp.float32):
            like = ",".join(map(str, image.shape))
            raise ValueError(
                f"{what} returned {shown(made)}; it must return uint8[{like}] or float32[{like}]"
            )
        return made

    return step


def make_prepare(
    augment: Sequence[tuple[str, Any]], mean: Sequence[float], std: Sequence[float]
) -> Callable[..., Array]:
    """Makes `prepare(images u8[N,H,W,C], keys=None) -> f32[N,H,W,C]`.

    With keys [N], one per example, the images are augmented and normalised, without keys only
    normalised.

    Args:
      augment: pairs of name and amount, carried out in this order, for example
        (("pad_crop", 4), ("flip", 0.5)). A name may be the address of a function of your own,
        "my_steps.py:noise" or "package.module:noise". It is called with (key of the example, image
        [H,W,C], amount), without an amount that is None, and returns the image in the same shape
        and as bytes or float32, 0 to 255.
      mean, std: one number per channel, for pixels in [0,1].

    Raises:
      ValueError: a name is unknown or an amount impossible; when traced, if a function of your own
        returns something else.
    """
    steps: list[tuple[Callable[..., Array], Any]] = []
    for name, amount in augment:
        if is_address(name):
            steps.append((_own_step(name, amount), amount))
            continue
        if name not in STEPS:
            raise ValueError(f"unknown augmentation {name!r}{near(name, STEPS)}")
        function, check = STEPS[name]
        check(name, amount)
        if name in _COLOUR and len(mean) != 3:
            raise ValueError(f"{name} is for images of 3 channels; these have {len(mean)}")
        if name in _PAINT:
            function = functools.partial(function, fill=np.rint(255 * np.asarray(mean)))
        steps.append((function, amount))

    def one(key: Array, image: Array) -> Array:
        for i, (function, amount) in enumerate(steps):
            image = function(jax.random.fold_in(key, i), image, amount)
        return image

    def prepare(images: Array, keys: Array | None = None) -> Array:
        if keys is not None and steps:
            images = jax.vmap(one)(keys, images)
        return normalise(images, mean, std)

    return prepare
