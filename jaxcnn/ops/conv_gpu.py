"""Convolutions on a GPU with few channels; the fast kernels of cuDNN need multiples of 8.

| implementation | used for |
| --- | --- |
| `packed_conv` | at most 4 channels with equal strides above 1: the stem of a network |
| `merged_conv` | groups, and networks under `vmap`: merged into wider groups, padded with zeros |
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops import reference
from jaxcnn.ops.windows import Pairs, output_size

_FEW_CHANNELS = 4  # the images have 3
_MERGED = 64  # maximum number of channels of merged groups


def conv(
    x: Array, w: Array, *, stride, padding: Pairs, groups: int, networks: int = 1, precision: Any
):
    """Computes a convolution with the implementation for its shape; see `jaxcnn.ops.conv`.

    Several networks can share a merged group. Non-finite values in one of them then affect the
    others.
    """
    options = {"stride": stride, "padding": padding, "precision": precision}
    if groups > 1:
        return merged_conv(x, w, groups=groups, **options)
    if x.shape[-1] <= _FEW_CHANNELS and stride[0] == stride[1] > 1:
        return packed_conv(x, w, **options)
    return reference.conv(x, w, groups=groups, **options)


def packed_conv(x: Array, w: Array, *, stride, padding: Pairs, precision=None) -> Array:
    """Computes a convolution with equal strides s, [N,H,W,C] by [kh,kw,C,F], on blocks of pixels.

    Each block of s x s pixels becomes one pixel with s * s * C channels. The kernel is padded with
    zeros and reshaped in the same way: 7x7 with stride 2 becomes 8x8, then 4x4 with four times the
    channels. The result is the same function with stride 1. C is padded to a multiple of four (3 to
    4 with stride 2), or of two if s is odd; with stride 4, s * s * C is a multiple of eight anyway.
    """
    s = stride[0]
    kh, kw, channels, features = w.shape
    n, height, width, _ = x.shape
    taps = -(-kh // s), -(-kw // s)
    out = output_size((height, width), (kh, kw), stride, padding)
    blocks = [o + t - 1 for o, t in zip(out, taps)]
    spare = -channels % (2 if s % 2 else 4 if s % 4 else 1)
    wide = channels + spare
    sides = [(low, b * s - size - low, 0)
             for b, size, (low, _) in zip(blocks, (height, width), padding)]  # fmt: skip
    x = lax.pad(x, x.dtype.type(0), ((0, 0, 0), *sides, (0, spare, 0)))
    x = x.reshape(n, blocks[0], s, blocks[1], s, wide).transpose(0, 1, 3, 2, 4, 5)
    w = jnp.pad(w, ((0, taps[0] * s - kh), (0, taps[1] * s - kw), (0, spare), (0, 0)))
    w = w.reshape(taps[0], s, taps[1], s, wide, features).transpose(0, 2, 1, 3, 4, 5)
    return reference.conv(
        x.reshape(n, *blocks, s * s * wide),
        w.reshape(*taps, s * s * wide, features),
        precision=precision,
    )


def merged_conv(x: Array, w: Array, *, stride, padding: Pairs, groups: int, precision=None):
    """Computes a grouped convolution with fewer, wider groups."""
    w, groups = merge_groups(w, groups, _MERGED)
    return reference.conv(x, w, stride=stride, padding=padding, groups=groups, precision=precision)


def merge_groups(w: Array, groups: int, most: int) -> tuple[Array, int]:
    """Merges groups into wider ones, and pads the kernel with zeros.

    Args:
      w: kernel f[kh,kw,C/groups,F].
      groups: number of groups.
      most: maximum number of channels of a merged group.

    Returns:
      The kernel f[kh,kw,C/merged,F] and the number of merged groups.
    """
    kh, kw, channels, features = w.shape
    m = max(m for m in range(1, groups + 1)
            if groups % m == 0 and (m == 1 or m * channels <= most))  # fmt: skip
    fewer = groups // m
    split = w.reshape(kh, kw, 1, channels, fewer, m, features // groups)
    same = jnp.eye(m, dtype=bool).reshape(m, 1, 1, m, 1)
    return jnp.where(same, split, 0).reshape(kh, kw, m * channels, features), fewer
