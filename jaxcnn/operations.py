"""Pooling and response normalisation, in the form that suits the platform.

XLA's own forms are several times too slow on a CPU: see `benchmarks/forms.py`; a GPU has a form of
max pooling. Each operation picks its formulation while it is lowered for a platform, whose program
holds no other. All forms compute the same function. Convolutions are in `jaxcnn.convolution`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn.formulation import on_gpu

Pair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3); (1, 7) stays."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """1 -> ((1, 1), (1, 1)); (0, 3) -> ((0, 0), (3, 3)); pairs stay."""
    height, width = pair(padding)  # type: ignore[arg-type]
    return pair(height), pair(width)


def pool_padding(size, window: Pair, stride: Pair, padding, ceil_mode: bool):
    """Explicit pairs; `ceil_mode` adds what Caffe and Torch add below and to the right.

    A last window that would start in the padding is dropped, as in both.
    """
    pairs = []
    for n, k, s, (low, high) in zip(size, pair(window), pair(stride), padding_pairs(padding)):
        if ceil_mode:
            out = -(-(n + low + high - k) // s) + 1
            if (out - 1) * s >= n + low:
                out -= 1
            high = max(high, (out - 1) * s + k - n - low)
        pairs.append((low, high))
    return tuple(pairs)


def window_slice(x: Array, i: int, j: int, out: Sequence[int], stride: tuple[int, int]) -> Array:
    """Every window's element (i, j): [N, out_h, out_w, C]."""
    n, _, _, c = x.shape
    end = (i + stride[0] * (out[0] - 1) + 1, j + stride[1] * (out[1] - 1) + 1)
    return lax.slice(x, (0, i, j, 0), (n, *end, c), (1, *stride, 1))


def _reduce_windows(x: Array, init: float, op, window, stride, padding) -> Array:
    """`lax.reduce_window` over images; on a CPU one axis at a time where windows overlap."""

    def reduce(x, window, stride, padding):
        pads = ((0, 0), *padding, (0, 0))
        return lax.reduce_window(x, init, op, (1, *window, 1), (1, *stride, 1), pads)

    def one_axis_at_a_time(x):
        x = reduce(x, (1, window[1]), (1, stride[1]), ((0, 0), padding[1]))
        return reduce(x, (window[0], 1), (stride[0], 1), (padding[0], (0, 0)))

    whole = functools.partial(reduce, window=window, stride=stride, padding=padding)
    if any(k <= s for k, s in zip(window, stride)):
        return whole(x)
    return lax.platform_dependent(x, cpu=one_axis_at_a_time, default=whole)


def max_pool(
    x: Array, window: Pair, stride: Pair, padding: Padding = 0, *, ceil_mode: bool = False
) -> Array:
    """Max pooling, [N,H,W,C] to [N,h,w,C]. A tie gives the whole gradient to the first maximum.

    `ceil_mode` rounds the output size up as Caffe does. Reverse-mode only.
    """
    pads = pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    return _max_pool(x, pair(window), pair(stride), pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    def compared(x):
        return _first_of_maxima(window, stride, padding, x)[0]

    def reduced(x):
        return _reduce_windows(x, -jnp.inf, lax.max, window, stride, padding)

    return lax.platform_dependent(x, **on_gpu(compared), default=reduced)


def _max_pool_fwd(x, window, stride, padding):
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_bwd(window, stride, padding, residuals, g):
    def native(x, y, g):
        return jax.vjp(lambda x: nn.max_pool(x, window, stride, padding), x)[1](g)[0]

    spread, gathered = (
        functools.partial(form, window, stride, padding)
        for form in (_to_first_maximum, _from_first_maximum)
    )
    return (lax.platform_dependent(*residuals, g, cpu=spread, **on_gpu(gathered), default=native),)


def _first_of_maxima(window, stride, padding, x):
    """Each window's maximum, [N,h,w,C], and the number of its first place in the window by rows.

    Where forward and backward are one program, XLA finds both in one pass over x.
    """
    pads = ((0, 0), *padding, (0, 0))
    out = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(x.shape[1:3], padding, window, stride)]
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    number = jnp.int8 if window[0] * window[1] < 128 else jnp.int32
    first: Any = None
    best: Any = None
    for n, at in enumerate((i, j) for i in range(window[0]) for j in range(window[1])):
        value = window_slice(x, *at, out, stride)
        if best is None:
            best, first = value, jnp.zeros(value.shape, number)
        else:
            first = jnp.where(value > best, jnp.asarray(n, number), first)
            best = jnp.maximum(best, value)
    return best, first


def _from_first_maximum(window, stride, padding, x, y, g):
    """Gradient of max pooling, gathered: each pixel's from the windows whose maximum it is.

    A pixel asks the last window that begins at or before it and those before that one, as far as
    they reach. XLA's own form on a GPU scatters with atomic additions.
    """
    _, first = _first_of_maxima(window, stride, padding, x)
    first = lax.optimization_barrier(first)  # or it is found anew for each pixel
    n, height, width, channels = x.shape
    (top, _), (left, _) = padding
    rows, columns = (
        -(-(size + pad) // s) for size, pad, s in zip((height, width), (top, left), stride)
    )
    pixels = (n, rows, stride[0], columns, stride[1], channels)

    def asked(a, down, right):
        """`a` of the window that begins so many steps before a pixel's own, for every pixel."""
        spare = (down, rows - a.shape[1] - down, 0), (right, columns - a.shape[2] - right, 0)
        a = lax.pad(a, jnp.zeros((), a.dtype), ((0, 0, 0), *spare, (0, 0, 0)))
        return lax.broadcast_in_dim(a, pixels, (0, 1, 3, 5))

    dx = jnp.zeros(pixels, jnp.promote_types(g.dtype, jnp.float32))
    for down in range(-(-window[0] // stride[0])):
        for right in range(-(-window[1] // stride[1])):
            row = np.arange(stride[0])[:, None] + down * stride[0]
            column = np.arange(stride[1]) + right * stride[1]
            inside = (row < window[0]) & (column < window[1])
            number = np.where(inside, row * window[1] + column, -1).astype(first.dtype)
            hit = asked(first, down, right) == number[None, None, :, None, :, None]
            dx += jnp.where(hit, asked(g, down, right), 0)
    dx = dx.astype(g.dtype).reshape(n, rows * stride[0], columns * stride[1], channels)
    return dx[:, top : top + height, left : left + width]


def _to_first_maximum(window, stride, padding, x, y, g):
    """Gradient of max pooling: each window's goes to the first of its elements that equals y."""
    (top, _), (left, _) = padding
    if stride == (1, 1) and min(window) > 1:
        # The first of a window is the first of its row in the first row that holds the maximum.
        of_row = ((1, window[1]), stride, ((0, 0), padding[1]))
        of_column = ((window[0], 1), stride, (padding[0], (0, 0)))
        rows = _max_pool(x, *of_row)
        return _to_first_maximum(*of_row, x, rows, _to_first_maximum(*of_column, rows, y, g))
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    out = y.shape[1:3]
    positions = [(i, j) for i in range(window[0]) for j in range(window[1])]
    hits = {at: window_slice(x, *at, out, stride) == y for at in positions}

    if window == stride and x.shape[1:3] == (out[0] * window[0], out[1] * window[1]):
        # Windows lie side by side: one selection writes all of them.
        taken = jnp.zeros(y.shape, bool)
        for at in positions:
            hits[at], taken = hits[at] & ~taken, taken | hits[at]
        rows = [jnp.stack([hits[i, j] for j in range(window[1])], 3) for i in range(window[0])]
        dx = jnp.where(jnp.stack(rows, 2), g[:, :, None, :, None, :], 0).reshape(x.shape)
        return dx[:, top : top + height, left : left + width]

    # Windows overlap or leave gaps: each one's first hit by number, spread and added up.
    number = jnp.int8 if len(positions) < 128 else jnp.int32
    first = jnp.full(y.shape, len(positions), number)
    for n in reversed(range(len(positions))):
        first = jnp.where(hits[positions[n]], jnp.asarray(n, number), first)
    first = lax.optimization_barrier(first)  # or it is found anew for each position
    dx = jnp.zeros(x.shape, g.dtype)
    for n, at in enumerate(positions):
        spread = [(0, 0, 0)]
        for start, size, o, s in zip(at, x.shape[1:3], out, stride):
            spread.append((start, size - start - s * (o - 1) - 1, s - 1))
        share = jnp.where(first == n, g, 0)
        dx += lax.pad(share, jnp.zeros((), g.dtype), [*spread, (0, 0, 0)])
    return dx[:, top : top + height, left : left + width]


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def avg_pool(
    x: Array,
    window: Pair,
    stride: Pair,
    padding: Padding = 0,
    *,
    count_include_pad: bool = False,
    ceil_mode: bool = False,
) -> Array:
    """Average pooling, [N,H,W,C] to [N,h,w,C].

    Padding is not counted by default (TensorFlow); `count_include_pad=True` divides by the whole
    window (Caffe, torchvision's inception_v3).
    """
    window, stride = pair(window), pair(stride)
    pads = pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    total = functools.partial(
        _reduce_windows, init=0.0, op=lax.add, window=window, stride=stride, padding=pads
    )
    if count_include_pad or not any(map(any, pads)):
        return total(x) / (window[0] * window[1])
    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def global_avg_pool(x: Array) -> Array:
    """[N,H,W,C] to [N,C]."""
    return jnp.mean(x, axis=(1, 2))


def adaptive_avg_pool(x: Array, size: int) -> Array:
    """Torch's adaptive average: [N,H,W,C] to [N,size,size,C]; windows may overlap."""
    for axis in (1, 2):
        n = x.shape[axis]
        bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        parts = [jnp.mean(lax.slice_in_dim(x, a, b, axis=axis), axis) for a, b in bounds]
        x = jnp.stack(parts, axis)
    return x


def local_response_norm(
    x: Array,
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_div_n: bool = False,
) -> Array:
    """x / (k + alpha * sum of squares over n adjacent channels) ** beta, [N,H,W,C].

    Krizhevsky et al. 2012, section 3.3, as printed. `alpha_div_n=True` divides alpha by n, as
    Caffe (with k=1) and the authors' own code (k=2) do.
    """
    half = n // 2
    squares = lax.reduce_window(
        x * x, np.zeros((), x.dtype)[()], lax.add, (1, 1, 1, n), (1, 1, 1, 1),
        ((0, 0), (0, 0), (0, 0), (half, n - 1 - half)),
    )  # fmt: skip
    scale = k + (alpha / n if alpha_div_n else alpha) * squares
    if beta == 0.75:
        root = lax.rsqrt(scale)
        return x * root * jnp.sqrt(root)
    return x * scale**-beta
