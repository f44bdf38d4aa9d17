"""Convolutions on a GPU whose channels are too few for cuDNN: its kernels want multiples of 8.

| implementation | used for |
| --- | --- |
| `packed_conv` | at most 4 channels with equal strides above 1: the stem of a network |
| `merged_conv` | groups, and networks under `vmap`: wider groups, with zeros between them |
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops import reference
from jaxcnn.ops.windows import Pairs, output_size

_FEW_CHANNELS = 4  # those of a photo
_MERGED = 64  # channels that merged groups may have


def conv(
    x: Array, w: Array, *, stride, padding: Pairs, groups: int, networks: int = 1, precision: Any
):
    """A convolution by what suits its shape; see `jaxcnn.ops.conv`.

    Networks side by side share wider groups: what is not finite in one reaches its neighbors.
    """
    options = {"stride": stride, "padding": padding, "precision": precision}
    if groups > 1:
        return merged_conv(x, w, groups=groups, **options)
    if x.shape[-1] <= _FEW_CHANNELS and stride[0] == stride[1] > 1:
        return packed_conv(x, w, **options)
    return reference.conv(x, w, groups=groups, **options)


def packed_conv(x: Array, w: Array, *, stride, padding: Pairs, precision=None) -> Array:
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
    out = output_size((height, width), (kh, kw), stride, padding)
    blocks = [o + t - 1 for o, t in zip(out, taps)]
    spare = -channels % (2 if s % 2 else 4 if s % 4 else 1)
    sides = [(low, b * s - size - low, 0)
             for b, size, (low, _) in zip(blocks, (height, width), padding)]  # fmt: skip
    x = lax.pad(x, x.dtype.type(0), ((0, 0, 0), *sides, (0, spare, 0)))
    x = x.reshape(n, blocks[0], s, blocks[1], s, -1).transpose(0, 1, 3, 2, 4, 5)
    w = jnp.pad(w, ((0, taps[0] * s - kh), (0, taps[1] * s - kw), (0, spare), (0, 0)))
    w = w.reshape(taps[0], s, taps[1], s, -1, features).transpose(0, 2, 1, 3, 4, 5)
    return reference.conv(
        x.reshape(n, *blocks, -1), w.reshape(*taps, -1, features), precision=precision
    )


def merged_conv(x: Array, w: Array, *, stride, padding: Pairs, groups: int, precision=None):
    """A grouped convolution as one of fewer, wider groups."""
    w, groups = merge_groups(w, groups, _MERGED)
    return reference.conv(x, w, stride=stride, padding=padding, groups=groups, precision=precision)


def merge_groups(w: Array, groups: int, most: int) -> tuple[Array, int]:
    """The kernel of fewer groups of up to `most` channels, with zeros between, and their number.

    [kh,kw,C/groups,F] to [kh,kw,C/fewer,F].
    """
    kh, kw, channels, features = w.shape
    m = max(m for m in range(1, groups + 1)
            if groups % m == 0 and (m == 1 or m * channels <= most))  # fmt: skip
    fewer = groups // m
    split = w.reshape(kh, kw, 1, channels, fewer, m, features // groups)
    same = jnp.eye(m, dtype=bool).reshape(m, 1, 1, m, 1)
    return jnp.where(same, split, 0).reshape(kh, kw, m * channels, features), fewer
