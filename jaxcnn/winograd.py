"""3x3 convolution in Winograd's form on a CPU: 16 products where the definition takes 36.

Lavin and Gray 2015 (arXiv 1509.09308), F(2x2, 3x3): a tile of 2x2 outputs is
`A^T [(G g G^T) * (B^T d B)] A` of the kernel g and the 4x4 pixels d below it, where the product
runs over channels as a matrix product for each of the 16 places. The matrices hold 0, 1 and 1/2:
results differ from the definition's by float noise (float32: 1e-6 of the largest output). The
kernel's gradient has the same form, with sums over tiles. Rows are transformed before columns and
the four places of a column stay in one array: few programs to compile.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.formulation import by_platform
from jaxcnn.native_conv import Pairs, native_conv


def suits(x: Array, w: Array, strides: tuple[int, int], padding: Pairs) -> bool:
    """Whether this form was found to pay: 3x3, stride 1, wide enough, enough tiles, float32."""
    if w.shape[:2] != (3, 3) or strides != (1, 1) or x.dtype != jnp.float32 or x.dtype != w.dtype:
        return False
    if not all(0 <= p <= 2 for side in padding for p in side):
        return False  # the gradient pads by 2 - p
    images, rows, columns = _tiles(x.shape, padding)
    wide = min(w.shape[2:]) >= 64 and w.shape[2] * w.shape[3] >= 64 * 192
    return wide and images * rows * columns >= (96 if min(w.shape[2:]) >= 128 else 192)


def _tiles(shape: Sequence[int], padding: Pairs) -> tuple[int, int, int]:
    """Images, and how many tiles of 2x2 outputs lie below and beside one another."""
    height, width = (-(-(n + sum(p) - 2) // 2) for n, p in zip(shape[1:3], padding, strict=True))
    return shape[0], height, width


# The transforms of one axis: four or two of pixels, three of a kernel. A trailing T is transposed.


def _b(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _g(g: Sequence[Array]) -> list[Array]:
    ends, middle = (g[0] + g[2]) / 2, g[1] / 2
    return [g[0], ends + middle, ends - middle, g[2]]


def _g_t(u: Sequence[Array]) -> list[Array]:
    plus, minus = (u[1] + u[2]) / 2, (u[1] - u[2]) / 2
    return [u[0] + plus, minus, plus + u[3]]


def _a_t(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _a(y: Sequence[Array]) -> list[Array]:
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _held(parts: Sequence[Array], axis: int = 0) -> Array:
    """The parts in one array that is computed once, not anew within each of its users."""
    return lax.optimization_barrier(jnp.stack(parts, axis))


def _of_images(x: Array, padding: Pairs) -> list[Array]:
    """B^T d B of [N,H,W,C]: for each column of a tile [4, tiles, C]."""
    n, rows, columns = _tiles(x.shape, padding)
    c = x.shape[-1]
    sizes = (2 * rows + 2, 2 * columns + 2)
    ends = ((low, size - n - low, 0) for n, size, (low, _) in zip(x.shape[1:3], sizes, padding))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
    x = lax.optimization_barrier(x).reshape(n, rows + 1, 2, sizes[1] * c)
    by_rows = _held(_b([x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    by_rows = by_rows.reshape(4, n, rows, columns + 1, 2, c)
    both = _b([by_rows[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)])
    return [v.reshape(4, n * rows * columns, c) for v in both]


def _of_kernel(w: Array) -> list[Array]:
    """G g G^T of [3,3,C,F]: for each column of a tile [4,C,F]."""
    by_rows = _held(_g(list(w)))
    return _g([by_rows[:, j] for j in range(3)])


def _of_outputs(y: Array, rows: int, columns: int) -> list[Array]:
    """A y A^T of [N,H,W,F]: for each column of a tile [4, tiles, F]."""
    n, height, width, f = y.shape
    y = jnp.pad(y, ((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)))
    y = y.reshape(n, rows, 2, 2 * columns * f)
    by_rows = _held(_a([y[:, :, i] for i in range(2)])).reshape(4, n * rows * columns, 2, f)
    return _a([by_rows[:, :, j] for j in range(2)])


def _to_outputs(products: Sequence[Array], n: int, rows: int, columns: int) -> Array:
    """A^T m A: [N, 2 rows, 2 columns, F] of [4, tiles, F] for each column of a tile."""
    f = products[0].shape[-1]
    by_columns = lax.optimization_barrier(jnp.concatenate(_a_t(products), -1))
    by_columns = by_columns.reshape(4, n, rows, 2 * columns * f)
    return jnp.stack(_a_t(list(by_columns)), 2).reshape(n, 2 * rows, 2 * columns, f)


def _products(a: Sequence[Array], b: Sequence[Array], over: tuple[int, int]) -> list[Array]:
    """Each place's matrix product, summed over the named axes."""
    one = functools.partial(
        lax.dot_general, dimension_numbers=(((over[0],), (over[1],)), ((0,), (0,)))
    )
    return [one(x, y) for x, y in zip(a, b, strict=True)]


def winograd_conv(x: Array, w: Array, padding: Pairs, *, transposed: bool = False) -> Array:
    """3x3 convolution with stride 1, f32[N,H,W,C] by f32[3,3,C,F]; `transposed` sums over F."""
    n, rows, columns = _tiles(x.shape, padding)
    products = _products(_of_images(x, padding), _of_kernel(w), (2, 2 if transposed else 1))
    height, width = (size + sum(p) - 2 for size, p in zip(x.shape[1:3], padding))
    return _to_outputs(products, n, rows, columns)[:, :height, :width]


def winograd_gradients(x: Array, w: Array, g: Array, padding: Pairs) -> tuple[Array, Array]:
    """Gradients of `winograd_conv` with respect to the images and to the kernel."""
    _, rows, columns = _tiles(x.shape, padding)
    (top, bottom), (left, right) = padding
    rest = ((2 - top, 2 - bottom), (2 - left, 2 - right))
    dx = winograd_conv(g, w[::-1, ::-1], rest, transposed=True)
    by_columns = _g_t(_products(_of_images(x, padding), _of_outputs(g, rows, columns), (1, 1)))
    return dx, jnp.stack(_g_t(list(_held(by_columns, 1))))


def conv3x3(x: Array, w: Array, padding: Pairs) -> Array:
    """3x3 convolution with stride 1, f32[N,H,W,C] by f32[3,3,C,F].

    On a CPU in Winograd's form, elsewhere XLA's own. Reverse-mode only.
    """
    native = functools.partial(native_conv, padding=padding)
    forward = functools.partial(winograd_conv, padding=padding)
    gradients = functools.partial(winograd_gradients, padding=padding)
    return by_platform("winograd", native, forward, gradients)(x, w)
