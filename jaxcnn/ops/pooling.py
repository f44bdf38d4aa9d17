"""Max and average pooling.

Max pooling stores the index of the maximum in each window, and its derivative selects elements by
this index. It does not compare values, because a compiler may compute a value twice, with different
rounding.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export, lax

from jaxcnn.ops import reference
from jaxcnn.ops.dispatch import by_platform, linear_pair, reference_requested
from jaxcnn.ops.windows import (
    Padding,
    Pair,
    output_size,
    padding_pairs,
    pair,
    pool_padding,
    spread,
    window_slice,
)

_LARGE_IMAGE = 100_000  # values; a CPU takes the gradient of such images one by one


def max_pool(
    x: Array, window: Pair, stride: Pair, padding: Padding = 0, *, ceil_mode: bool = False
) -> Array:
    """Computes max pooling. The first of equal maxima receives the whole gradient.

    Args:
      x: images f[N,H,W,C].
      window: height and width of the window.
      stride: vertical and horizontal stride.
      padding: minus infinity around the images, see `padding_pairs`.
      ceil_mode: round the output size up as Caffe does, see `pool_padding`.

    Returns:
      f[N,h,w,C].
    """
    options = _options(x, window, stride, padding, ceil_mode)
    if reference_requested(x):
        return reference.max_pool(x, **options)
    return _max_pool(x, *options.values())


def avg_pool(
    x: Array,
    window: Pair,
    stride: Pair,
    padding: Padding = 0,
    *,
    count_include_pad: bool = False,
    ceil_mode: bool = False,
) -> Array:
    """Computes average pooling.

    Args:
      x: images f[N,H,W,C].
      window: height and width of the window.
      stride: vertical and horizontal stride.
      padding: zeros around the images, see `padding_pairs`.
      count_include_pad: divide by the number of pixels of a window inside the padded images (Caffe,
        torchvision's inception_v3), not inside the images (TensorFlow).
      ceil_mode: round the output size up as Caffe does, see `pool_padding`. What a window extends
        beyond `padding` is not counted.

    Returns:
      f[N,h,w,C].
    """
    options = _options(x, window, stride, padding, ceil_mode)
    dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    counted = padding_pairs(padding) if count_include_pad else ((0, 0), (0, 0))
    if options["padding"] == counted:
        return (_window_sum(x, **options) / math.prod(options["window"])).astype(dtype)
    height, width = (n + sum(p) for n, p in zip(x.shape[1:3], counted, strict=True))
    beyond = tuple(
        (low - before, high - after)
        for (low, high), (before, after) in zip(options["padding"], counted, strict=True)
    )
    pixels = jnp.ones((1, height, width, 1), x.dtype)
    counts = _window_sum(pixels, **options | {"padding": beyond})
    return (_window_sum(x, **options) / counts).astype(dtype)


def global_avg_pool(x: Array) -> Array:
    """Averages over all pixels, f[N,H,W,C] to f[N,C]."""
    return jnp.mean(x, axis=(1, 2))


def adaptive_avg_pool(x: Array, size: int) -> Array:
    """Computes adaptive average pooling as in PyTorch. Windows can overlap.

    Args:
      x: f[N,H,W,C].
      size: height and width of the result.

    Returns:
      f[N,size,size,C].
    """
    for axis in (1, 2):
        n = x.shape[axis]
        bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        parts = [jnp.mean(lax.slice_in_dim(x, a, b, axis=axis), axis) for a, b in bounds]
        x = jnp.stack(parts, axis)
    return x


def _options(
    x: Array, window: Pair, stride: Pair, padding: Padding, ceil_mode: bool
) -> dict[str, Any]:
    return {
        "window": tuple(pair(window)),
        "stride": tuple(pair(stride)),
        "padding": pool_padding(x.shape[1:3], window, stride, padding, ceil_mode),
    }


# --- sums and maxima ----------------------------------------------------------------------------


def _window_sum(x: Array, **options) -> Array:
    plain, by_axes = _plain_and_by_axes(reference.window_sum, **options)
    return by_platform(plain, x, cpu=by_axes)


def _plain_and_by_axes(reduce, window, stride, padding):
    """Returns `reduce` for a window, and a variant that reduces axis by axis if windows overlap."""
    plain = functools.partial(reduce, window=window, stride=stride, padding=padding)

    def by_axes(x):
        x = reduce(x, window=(1, window[1]), stride=(1, stride[1]), padding=((0, 0), padding[1]))
        return reduce(x, window=(window[0], 1), stride=(stride[0], 1), padding=(padding[0], (0, 0)))

    overlap = all(k > s for k, s in zip(window, stride))
    return plain, by_axes if overlap else plain


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    """Max pooling, without the indices of the maxima."""
    plain, by_axes = _plain_and_by_axes(reference.max_pool, window, stride, padding)
    scan = functools.partial(_scan, window=window, stride=stride, padding=padding)
    return by_platform(plain, x, cpu=by_axes, gpu=lambda x: scan(x)[0])


@_max_pool.defjvp
def _max_pool_jvp(window, stride, padding, primals, tangents):
    (y, _), (t, _) = _max_and_number_jvp(window, stride, padding, primals, tangents)
    return y, t


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_and_number(x, window, stride, padding):
    """Computes the maximum of each window, f[N,h,w,C], and its index in the window, i8[N,h,w,C].

    Indices count by rows, and the first of equal maxima is used. On platforms other than CPU and
    GPU, the indices are zeros.
    """
    options = {"window": window, "stride": stride, "padding": padding}

    def unnumbered(x):  # `_placed` recomputes the maxima from x
        y = reference.max_pool(x, **options)
        return y, jnp.zeros_like(y, _number_dtype(window))

    return by_platform(
        unnumbered, x, gpu=functools.partial(_scan, **options),
        cpu=functools.partial(_scan_by_axes if _is_dense(window, stride) else _scan, **options),
    )  # fmt: skip


@_max_and_number.defjvp
def _max_and_number_jvp(window, stride, padding, primals, tangents):
    (x,), (t,) = primals, tangents
    y, number = _max_and_number(x, window, stride, padding)
    options = {"window": window, "stride": stride, "padding": padding, "size": x.shape[1:3]}
    (t,) = _values_at(t, number, lax.stop_gradient(x), **options)
    return (y, number), (t, jax.custom_derivatives.zero_from_primal(number))


def _number_dtype(window):
    return jnp.int8 if window[0] * window[1] < 128 else jnp.int32


def _scan(x, *, window, stride, padding):
    """Computes `_max_and_number` in one pass over x."""
    out = output_size(x.shape[1:3], window, stride, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]
    dtype = _number_dtype(window)
    best = window_slice(x, 0, 0, out, stride)
    number = jnp.zeros_like(best, dtype)
    for n, (i, j) in enumerate(places[1:], 1):
        value = window_slice(x, i, j, out, stride)
        number = jnp.where(value > best, dtype(n), number)
        best = jnp.maximum(best, value)
    return best, number


def _is_dense(window, stride):
    """Whether windows overlap so much that a CPU takes them axis by axis."""
    return stride == (1, 1) and min(window) > 1


def _scan_by_axes(x, *, window, stride, padding):
    """Computes `_max_and_number` on a CPU: in each row of a window, then among its rows."""
    sides = {"stride": stride, "padding": ((0, 0), padding[1])}
    x, column = _scan(x, window=(1, window[1]), **sides)
    height = (0, 0), padding[0], (0, 0), (0, 0)
    x = jnp.pad(x, height, constant_values=-jnp.inf)
    column = jnp.pad(column.astype(_number_dtype(window)), height)
    out = x.shape[1] - window[0] + 1, x.shape[2]
    best, number = (window_slice(a, 0, 0, out, stride) for a in (x, column))
    for i in range(1, window[0]):
        value, place = (window_slice(a, i, 0, out, stride) for a in (x, column))
        number = jnp.where(value > best, place + number.dtype.type(i * window[1]), number)
        best = jnp.maximum(best, value)
    return best, number


# --- the derivative of max pooling --------------------------------------------------------------
# Linear in its first argument. XLA's transpose recomputes the maxima from `x`.


def _chosen(t, number, x, *, window, stride, padding, size):
    """Selects the element of each window of t by its index, [N,H,W,C] to [N,h,w,C]."""
    scan = functools.partial(_scan, window=window, stride=stride, padding=padding)
    number = by_platform(
        lambda number, x: scan(x)[1], number, x, cpu=lambda number, x: number,
        gpu=lambda number, x: number,
    )  # fmt: skip
    t = jnp.pad(t, ((0, 0), *padding, (0, 0)))
    y = jnp.zeros_like(number, t.dtype)
    for n in range(window[0] * window[1]):
        i, j = divmod(n, window[1])
        value = window_slice(t, i, j, number.shape[1:3], stride)
        y = jnp.where(number == n, value, y)
    return (y,)


def _placed(g, number, x, *, window, stride, padding, size):
    """The transpose of `_chosen`, which is XLA's gradient of max pooling."""
    pool = functools.partial(reference.max_pool, window=window, stride=stride, padding=padding)
    return jax.vjp(pool, x)[1](g)


def _placed_on_cpu(g, number, x, *, window, stride, padding, size):
    """Computes `_placed` on a CPU; large images one by one, whose parts fit into its cache."""
    if window == stride and not any(map(any, padding)) and _tile(number, window, size):
        return (_placed_side_by_side(g, number, window),)
    place = functools.partial(
        _placed_by_axes if _is_dense(window, stride) else _placed_by_spreading,
        window=window, stride=stride, padding=padding, size=size,
    )  # fmt: skip
    if export.is_symbolic_dim(math.prod(g.shape)) or math.prod(size) * g.shape[-1] < _LARGE_IMAGE:
        return (place(g, number),)
    return (lax.map(lambda image: place(*(a[None] for a in image))[0], (g, number)),)


def _placed_by_spreading(g, number, *, window, stride, padding, size):
    """Computes `_placed` as a sum over the indices in a window."""
    padded = [n + sum(p) for n, p in zip(size, padding)]
    dx = jnp.zeros((g.shape[0], *padded, g.shape[-1]), g.dtype)
    for n in range(window[0] * window[1]):
        i, j = divmod(n, window[1])
        dx += spread(jnp.where(number == n, g, 0), i, j, padded, stride)
    return _without_padding(dx, size, padding)


def _tile(number, window, size):
    """Whether the windows tile the whole image."""
    return all(n == out * k for n, out, k in zip(size, number.shape[1:3], window))


def _placed_side_by_side(g, number, window):
    """Computes `_placed` for windows that tile the image, with a single selection."""
    places = np.arange(window[0] * window[1]).reshape(window).tolist()
    hits = jnp.stack([jnp.stack([number == n for n in row], 3) for row in places], 2)
    dx = jnp.where(hits, g[:, :, None, :, None, :], 0)
    n, rows, k, columns, j, channels = dx.shape
    return dx.reshape(n, rows * k, columns * j, channels)


def _placed_by_axes(g, number, *, window, stride, padding, size):
    """Computes `_placed` for windows of stride 1: to rows, then to columns.

    Windows whose maximum is in the same row, and which begin in the same column, have the same
    maximum.
    """
    rows, columns = (n + sum(p) for n, p in zip(size, padding))
    images, _, width, channels = g.shape
    row = sum((number >= i * window[1]).astype(number.dtype) for i in range(1, window[0]))
    column = number - row * number.dtype.type(window[1])
    of_rows = jnp.zeros((images, rows, width, channels), g.dtype)
    place = jnp.zeros(of_rows.shape, number.dtype)
    to_row = functools.partial(spread, j=0, size=(rows, width), stride=stride)
    for i in range(window[0]):
        of_rows += to_row(jnp.where(row == i, g, 0), i)
        place = jnp.maximum(place, to_row(jnp.where(row == i, column, 0), i))
    dx = jnp.zeros((images, rows, columns, channels), g.dtype)
    for j in range(window[1]):
        dx += spread(jnp.where(place == j, of_rows, 0), 0, j, (rows, columns), stride)
    return _without_padding(dx, size, padding)


def _placed_by_gathering(g, number, x, *, window, stride, padding, size):
    """Computes `_placed` on a GPU, where XLA would scatter with atomic additions.

    Each pixel gathers from the last window that starts at or before it, and from all earlier
    windows that contain it.
    """
    number = lax.optimization_barrier(number)  # otherwise it is recomputed for each pixel
    (top, _), (left, _) = padding
    rows, columns = (-(-(n + pad) // s) for n, pad, s in zip(size, (top, left), stride))
    pixels = (g.shape[0], rows, stride[0], columns, stride[1], g.shape[-1])

    def of_window(a, down, right):
        """For each pixel, `a` of the window that starts `down` and `right` steps before it."""
        spare = (down, rows - a.shape[1] - down, 0), (right, columns - a.shape[2] - right, 0)
        a = lax.pad(a, a.dtype.type(0), ((0, 0, 0), *spare, (0, 0, 0)))
        return lax.broadcast_in_dim(a, pixels, (0, 1, 3, 5))

    dx = jnp.zeros(pixels, jnp.promote_types(g.dtype, jnp.float32))
    for down in range(-(-window[0] // stride[0])):
        for right in range(-(-window[1] // stride[1])):
            row = np.arange(stride[0])[:, None] + down * stride[0]
            column = np.arange(stride[1]) + right * stride[1]
            inside = (row < window[0]) & (column < window[1])
            place = np.where(inside, row * window[1] + column, -1).astype(number.dtype)
            hit = of_window(number, down, right) == place[None, None, :, None, :, None]
            dx += jnp.where(hit, of_window(g, down, right), 0).astype(dx.dtype)
    padded = (g.shape[0], rows * stride[0], columns * stride[1], g.shape[-1])
    dx = dx.astype(g.dtype).reshape(padded)
    return (_without_padding(dx, size, padding),)


def _without_padding(x, size, padding):
    (top, _), (left, _) = padding
    return x[:, top : top + size[0], left : left + size[1]]


_values_at = linear_pair(
    "max_pool_tangent", _chosen, _placed, counts=(1, 1),
    cpu=_placed_on_cpu, gpu=_placed_by_gathering,
)  # fmt: skip
