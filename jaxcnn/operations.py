"""Convolution in groups, pooling and response normalisation, in the form that suits the platform.

XLA's own forms are many times too slow on CPU in the gradient: see `benchmarks/grouped_conv.py`
and `benchmarks/training_cpu.py`. Each operation picks its formulation while it is lowered for a
platform, so that a program compiled for a GPU or TPU holds the native operation only. All forms
compute the same function.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn import narrow_conv, winograd

Pair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3); (1, 7) stays."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """1 -> ((1, 1), (1, 1)); (0, 3) -> ((0, 0), (3, 3)); pairs stay."""
    height, width = pair(padding)  # type: ignore[arg-type]
    return pair(height), pair(width)


# --- grouped convolution ------------------------------------------------------------------------

_NHWC = ("NHWC", "HWIO", "NHWC")


def _native_conv(x: Array, w: Array, stride, padding, groups) -> Array:
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=_NHWC, feature_group_count=groups
    )


def _split_conv(x: Array, w: Array, stride, padding, groups) -> Array:
    parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1))
    return jnp.concatenate([_native_conv(a, b, stride, padding, 1) for a, b in parts], -1)


_BLOCK = 32  # channels that a convolution may have on a CPU with zeros from group to group


def _block_conv(x: Array, w: Array, stride, padding, groups) -> Array:
    """Some groups at a time as one convolution, whose kernel has zeros from group to group."""
    kh, kw, channels, features = w.shape
    m = max(m for m in range(1, groups + 1)
            if groups % m == 0 and (m == 1 or m * channels <= _BLOCK))  # fmt: skip
    blocks = groups // m
    apart = w.reshape(kh, kw, 1, channels, blocks, m, features // groups)
    own = jnp.eye(m, dtype=bool).reshape(m, 1, 1, m, 1)
    w = jnp.where(own, apart, 0).reshape(kh, kw, m * channels, features)
    return _split_conv(x, w, stride, padding, blocks)


def _kernel_gradient_by_taps(x: Array, w: Array, g: Array, stride, padding, groups) -> Array:
    """Gradient of a grouped convolution's kernel: one batched product per kernel position."""
    kh, kw, cin, cout = w.shape
    n, oh, ow, _ = g.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    g = g.reshape(n * oh * ow, groups, cout // groups)
    taps = []
    for i in range(kh):
        for j in range(kw):
            tap = _window_slice(x, i, j, (oh, ow), stride).reshape(n * oh * ow, groups, cin)
            taps.append(jnp.einsum("ngi,ngo->igo", tap, g).reshape(cin, cout))
    return jnp.stack(taps).reshape(kh, kw, cin, cout)


def _in_blocks(y: Array, groups: int) -> bool:
    """Whether blocks pay: many take a second to compile, which few pixels do not earn."""
    return groups <= 4 or y.shape[0] * y.shape[1] * y.shape[2] >= 1024


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def grouped_conv(
    x: Array,
    w: Array,
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> Array:
    """Grouped convolution, [N,H,W,C] by [kh,kw,C/groups,F], in the form that suits the platform.

    On CPU: a few groups at a time as one convolution, or, where pixels are few, XLA's own with the
    kernel's gradient as batched products. Elsewhere: XLA's own. Reverse-mode only.
    """
    native = functools.partial(_native_conv, stride=stride, padding=padding, groups=groups)
    if not _in_blocks(jax.eval_shape(native, x, w), groups):
        return native(x, w)
    blocks = functools.partial(_block_conv, stride=stride, padding=padding, groups=groups)
    return lax.platform_dependent(x, w, cpu=blocks, default=native)


def _grouped_conv_fwd(x, w, stride, padding, groups):
    return grouped_conv(x, w, stride, padding, groups), (x, w)


def _grouped_conv_bwd(stride, padding, groups, residuals, g):
    options = {"stride": stride, "padding": padding, "groups": groups}

    def native(x, w, g):
        return jax.vjp(functools.partial(_native_conv, **options), x, w)[1](g)

    def on_cpu(x, w, g):
        if _in_blocks(g, groups):
            return jax.vjp(functools.partial(_block_conv, **options), x, w)[1](g)
        (dx,) = jax.vjp(lambda x: _native_conv(x, w, **options), x)[1](g)
        return dx, _kernel_gradient_by_taps(x, w, g, **options)

    return lax.platform_dependent(*residuals, g, cpu=on_cpu, default=native)


grouped_conv.defvjp(_grouped_conv_fwd, _grouped_conv_bwd)


def conv_general_dilated(x, w, strides, padding, *, feature_group_count, **options):
    """What nn.Conv calls in place of lax.conv_general_dilated."""
    strides, padding = tuple(strides), tuple(map(tuple, padding))
    dilated = any(d != 1 for k in ("lhs_dilation", "rhs_dilation") for d in options.get(k) or ())
    if feature_group_count > 1:
        if dilated:
            raise ValueError("grouped_conv does not take dilation")
        return grouped_conv(x, w, strides, padding, feature_group_count)
    if not dilated and narrow_conv.suits(x.shape[-1], w.shape, strides):
        return narrow_conv.narrow_conv(x, w, padding)
    if not dilated and winograd.suits(x, w, strides, padding):
        return winograd.conv3x3(x, w, padding)
    return lax.conv_general_dilated(x, w, strides, padding, **options)


# --- pooling ------------------------------------------------------------------------------------


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


def _window_slice(x: Array, i: int, j: int, out: Sequence[int], stride: tuple[int, int]) -> Array:
    """Every window's element (i, j): [N, out_h, out_w, C]."""
    n, _, _, c = x.shape
    end = (i + stride[0] * (out[0] - 1) + 1, j + stride[1] * (out[1] - 1) + 1)
    return lax.slice(x, (0, i, j, 0), (n, *end, c), (1, *stride, 1))


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
    return nn.max_pool(x, window, stride, padding)


def _max_pool_fwd(x, window, stride, padding):
    y = nn.max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_bwd(window, stride, padding, residuals, g):
    def native(x, y, g):
        return jax.vjp(lambda x: nn.max_pool(x, window, stride, padding), x)[1](g)[0]

    first_maximum = functools.partial(_to_first_maximum, window, stride, padding)
    return (lax.platform_dependent(*residuals, g, cpu=first_maximum, default=native),)


def _to_first_maximum(window, stride, padding, x, y, g):
    """Gradient of max pooling: each window's goes to the first of its elements that equals y."""
    (top, _), (left, _) = padding
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    out = y.shape[1:3]
    positions = [(i, j) for i in range(window[0]) for j in range(window[1])]
    hits = {at: _window_slice(x, *at, out, stride) == y for at in positions}

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
    pads = pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    if not any(map(any, pads)):
        count_include_pad = True  # nothing to leave out: spares the division by counts
    return nn.avg_pool(x, pair(window), pair(stride), pads, count_include_pad=count_include_pad)


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
