"""Convolution of few channels on a CPU, where XLA's kernels want many.

A row of W pixels of C channels lies in memory as W / f pixels of f * C channels. A convolution
that makes f neighbouring outputs at once from such wide pixels is the same function with f times
the channels: 5x5 from 1 to 6 channels becomes 5x2 from 4 to 24. Its kernel holds the original's
f times, each shifted by one pixel, and zeros between; the images are only read in another shape.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.formulation import by_platform
from jaxcnn.native_conv import Pairs, gradients_of, native_conv

_FORWARD_ONLY = 16  # channels in and out, where the gradients are faster in XLA's own form


def suits(channels: int, kernel: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether folding was found to pay: a window, stride 1, fewer channels than a kernel takes."""
    few = channels < 16 or channels == kernel[-1] == _FORWARD_ONLY
    return few and min(kernel[:2]) > 1 and tuple(strides) == (1, 1)


def folded_conv(x: Array, w: Array, padding: Pairs, fold: int) -> Array:
    """Convolution with stride 1, [N,H,W,C] by [kh,kw,C,F], `fold` outputs of a row at a time."""
    n, h, width, channels = x.shape
    kh, kw, _, features = w.shape
    left, right = padding[1]
    out = width + left + right - kw + 1
    steps = -(-out // fold)
    taps = -(-(kw + fold - 1) // fold)  # wide pixels below a window of `fold` outputs
    whole = (steps + taps - 1) * fold
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0),) * 2 + ((left, whole - width - left, 0),)
                + ((0, 0, 0),))  # fmt: skip
    x = x.reshape(n, h, whole // fold, fold * channels)
    rest = taps * fold - kw
    shifted = [jnp.pad(w, ((0, 0), (i, rest - i), (0, 0), (0, 0))) for i in range(fold)]
    w = jnp.stack(shifted, 3).reshape(kh, taps, fold * channels, fold * features)
    y = native_conv(x, w, (padding[0], (0, 0)))
    return y.reshape(n, y.shape[1], steps * fold, features)[:, :, :out]


def _fold(channels: int) -> int:
    return 4 if channels < 3 else 2


def narrow_conv(x: Array, w: Array, padding: Pairs) -> Array:
    """Convolution with stride 1, [N,H,W,C] by [kh,kw,C,F], in the form that suits the platform.

    On a CPU it is folded, of 16 channels in the forward pass only; elsewhere it is XLA's own.
    Reverse-mode only.
    """
    native = functools.partial(native_conv, padding=padding)
    folded = functools.partial(folded_conv, padding=padding, fold=_fold(x.shape[-1]))
    images = functools.partial(folded_conv, padding=padding, fold=4)

    def gradients(x, w, g):
        (dw,) = jax.vjp(lambda w: folded(x, w), w)[1](g)
        (dx,) = jax.vjp(lambda x: images(x, w), x)[1](g)
        return dx, dw

    if x.shape[-1] == _FORWARD_ONLY:
        return by_platform("folded", native, folded, gradients_of(native))(x, w)
    return by_platform("folded", native, folded, gradients)(x, w)
