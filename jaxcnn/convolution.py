"""The convolution of every network: the dispatch to a platform's form, and some of the forms.

XLA's own forms are slow on a CPU where channels are grouped or few, and in some gradients: see
`benchmarks/grouped_conv.py` and `benchmarks/forms.py`. So are cuDNN's kernels on a GPU where images
have three channels, or groups a few. Other platforms get XLA's own convolution.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import narrow_conv, winograd
from jaxcnn.formulation import by_platform
from jaxcnn.native_conv import Pairs, blocked, gradients_of, merged_conv, native_conv
from jaxcnn.operations import window_slice


def conv_general_dilated(x, w, strides, padding, *, feature_group_count, **options):
    """What nn.Conv calls in place of lax.conv_general_dilated. Mostly reverse-mode only."""
    strides, padding = tuple(strides), tuple(map(tuple, padding))
    dilated = any(d != 1 for k in ("lhs_dilation", "rhs_dilation") for d in options.get(k) or ())
    if feature_group_count > 1:
        if dilated:
            raise ValueError("grouped_conv does not take dilation")
        return grouped_conv(x, w, strides, padding, feature_group_count)
    if not dilated and w.shape[:2] == (1, 1) and not any(map(any, padding)):
        return pointwise_conv(x, w, strides)
    if not dilated and narrow_conv.suits(x.shape[-1], w.shape, strides):
        return narrow_conv.narrow_conv(x, w, padding)
    if not dilated and x.shape[-1] <= _FEW_CHANNELS and strides[0] == strides[1] > 1:
        native, packed = (
            functools.partial(form, stride=strides, padding=padding)
            for form in (native_conv, packed_conv)
        )
        return by_platform("strided", native, native, gradients_of(native), gpu=packed)(x, w)
    if not dilated and winograd.suits(x, w, strides, padding):
        return winograd.conv3x3(x, w, padding)
    if not dilated and options.get("precision") is None:
        return native_conv(x, w, padding, strides)
    return lax.conv_general_dilated(x, w, strides, padding, **options)


# --- 1x1 ----------------------------------------------------------------------------------------


def pointwise_conv(x: Array, w: Array, stride: tuple[int, int] = (1, 1)) -> Array:
    """1x1 convolution without padding, [N,H,W,C] by [1,1,C,F].

    On a CPU the pixels that a stride leaves are taken first, and both gradients are matrix
    products: for its convolutions XLA transposes images, gradients and kernels. Reverse-mode only.
    """
    without = ((0, 0), (0, 0))

    def taken(x):
        return x[:, :: stride[0], :: stride[1]]

    def forward(x, w):
        return native_conv(taken(x), w, without)

    def gradients(x, w, g):
        near, spread = jax.vjp(taken, x)
        rows = near.reshape(-1, near.shape[-1]), g.reshape(-1, g.shape[-1])
        dw = lax.dot_general(*rows, (((0,), (0,)), ((), ()))).reshape(w.shape)
        dx = lax.dot_general(rows[1], w[0, 0], (((1,), (1,)), ((), ()))).reshape(near.shape)
        return *spread(dx), dw

    native = functools.partial(native_conv, padding=without, stride=stride)
    return by_platform("pointwise", native, forward, gradients)(x, w)


# --- strides over few channels ------------------------------------------------------------------

_FEW_CHANNELS = 4  # those of a photo; a GPU's kernels want a multiple of eight


def packed_conv(x: Array, w: Array, stride: tuple[int, int], padding: Pairs) -> Array:
    """Convolution with equal strides s, [N,H,W,C] by [kh,kw,C,F], over blocks of s x s pixels.

    A block becomes a pixel of s * s * C channels, and a window of the kernel's likewise, with zeros
    below and to the right of it (7x7 becomes 8x8, then 4x4 of four times the channels): the same
    function with stride 1. C is filled up with zeros to a multiple of four (3 to 4 with stride 2),
    or of two where s is odd; with stride 4 the channels are a multiple of eight without.
    """
    s = stride[0]
    kh, kw, channels, features = w.shape
    n, height, width, _ = x.shape
    taps = -(-kh // s), -(-kw // s)
    out = [(size + sum(pad) - k) // s + 1
           for size, pad, k in zip((height, width), padding, (kh, kw))]  # fmt: skip
    blocks = [o + t - 1 for o, t in zip(out, taps)]
    spare = -channels % (2 if s % 2 else 4 if s % 4 else 1)
    sides = [(low, b * s - size - low, 0)
             for b, size, (low, _) in zip(blocks, (height, width), padding)]  # fmt: skip
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, spare, 0)))
    x = x.reshape(n, blocks[0], s, blocks[1], s, -1).transpose(0, 1, 3, 2, 4, 5)
    w = jnp.pad(w, ((0, taps[0] * s - kh), (0, taps[1] * s - kw), (0, spare), (0, 0)))
    w = w.reshape(taps[0], s, taps[1], s, -1, features).transpose(0, 2, 1, 3, 4, 5)
    without = ((0, 0), (0, 0))
    return native_conv(x.reshape(n, *blocks, -1), w.reshape(*taps, -1, features), without)


# --- groups -------------------------------------------------------------------------------------

_BLOCK = 32  # channels that a convolution may have on a CPU with zeros from group to group
_FEW_PIXELS = 1024  # of the outputs: below, patches
_WIDE_GROUP = 32  # channels of a group, from which on XLA's own forward pass is the faster


def _split_conv(x: Array, w: Array, padding: Pairs, stride, groups: int) -> Array:
    parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1))
    return jnp.concatenate([native_conv(a, b, padding, stride) for a, b in parts], -1)


def _block_conv(x: Array, w: Array, padding: Pairs, stride, groups: int) -> Array:
    """Some groups at a time as one convolution, whose kernel has zeros from group to group."""
    w, blocks = blocked(w, groups, _BLOCK)
    return _split_conv(x, w, padding, stride, blocks)


def _patch_conv(x: Array, w: Array, padding: Pairs, stride, groups: int) -> Array:
    """The pixels below each output side by side, and one product for each group."""
    kh, kw, channels, features = w.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], (kh, kw), stride))
    pixels = len(x) * height * width
    below = [window_slice(x, i, j, (height, width), stride).reshape(pixels, groups, 1, channels)
             for i in range(kh) for j in range(kw)]  # fmt: skip
    patches = jnp.concatenate(below, 2).reshape(pixels, groups, kh * kw * channels)
    kernels = w.reshape(kh * kw * channels, groups, features // groups)
    y = jnp.einsum("pgi,igo->pgo", patches, kernels)
    return y.reshape(len(x), height, width, features)


def grouped_conv(x: Array, w: Array, stride: tuple[int, int], padding: Pairs, groups: int) -> Array:
    """Grouped convolution, [N,H,W,C] by [kh,kw,C/groups,F], in the form that suits the platform.

    On CPU: a few groups at a time as one convolution, or, where pixels are few, one product for
    each group. On a GPU: wider groups, with zeros. Elsewhere: XLA's own. Reverse-mode only.
    """
    native, blocks, patches, merged = (
        functools.partial(form, padding=padding, stride=stride, groups=groups)
        for form in (native_conv, _block_conv, _patch_conv, merged_conv)
    )
    n, height, width, _ = jax.eval_shape(native, x, w).shape
    if groups <= 4 or n * height * width >= _FEW_PIXELS:
        return by_platform("grouped", native, blocks, gradients_of(blocks), gpu=merged)(x, w)
    forward = native if w.shape[2] >= _WIDE_GROUP else patches
    return by_platform("grouped", native, forward, gradients_of(patches), gpu=merged)(x, w)
