"""Plain implementations of every operation in `lax` and Flax.

They define values and derivatives and are not optimized. The other implementations are tested
against them. `jaxcnn.ops.use("reference")` selects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops.windows import Pairs

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Array,
    w: Array,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: Pairs = ((0, 0), (0, 0)),
    groups: int = 1,
    networks: int = 1,
    precision: Any = None,
) -> Array:
    """Computes a convolution, [N,H,W,C] by [kh,kw,C/groups,F] to [N,h,w,F].

    Other implementations use `networks`, the number of networks to which the groups belong.
    """
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=_LAYOUT, feature_group_count=groups,
        precision=precision,
    )  # fmt: skip


def max_pool(
    x: Array, *, window: tuple[int, int], stride: tuple[int, int], padding: Pairs
) -> Array:
    """Computes max pooling, [N,H,W,C] to [N,h,w,C]."""
    return nn.max_pool(x, window, stride, padding)


def window_sum(x: Array, *, window: Sequence[int], stride: Sequence[int], padding: Pairs) -> Array:
    """Computes the sum over each window, [N,H,W,C] to [N,h,w,C]."""
    pads = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), pads)


def local_response_norm(x: Array, *, n: int, k: float, alpha: float, beta: float) -> Array:
    """Computes x / (k + alpha * sum of squares over n adjacent channels) ** beta, [N,H,W,C]."""
    return x * (k + alpha * channel_window_sum(x * x, n)) ** -beta


def channel_window_sum(x: Array, n: int) -> Array:
    """Computes the sum over the n channels around each channel, [N,H,W,C]."""
    half = n // 2
    pads = ((0, 0), (0, 0), (0, 0), (half, n - 1 - half))
    return lax.reduce_window(x, x.dtype.type(0), lax.add, (1, 1, 1, n), (1, 1, 1, 1), pads)


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Computes the mean and biased variance over the axes, which keep size 1, in three passes.

    Both have at least float32. The second pass corrects the rounding error of the first.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = x.mean(axes, keepdims=True)
    mean = mean + (x - mean).mean(axes, keepdims=True)
    return mean, lax.square(x - mean).mean(axes, keepdims=True)


def normalize(
    x: Array, mean: Array, factor: Array, bias: Array, skip: Array | None, *, relu: bool, dtype: Any
) -> Array:
    """Computes (x - mean) * factor + bias, adds a shortcut and applies ReLU, [...,C]."""
    y = ((x - mean) * factor + bias).astype(dtype)
    y = y if skip is None else skip + y
    return nn.relu(y) if relu else y
