"""3x3 convolution with Winograd's algorithm, with 16 products instead of 36.

Lavin and Gray 2015 (arXiv 1509.09308), F(2x2, 3x3): a tile of 2x2 outputs is
`A^T [(G g G^T) * (B^T d B)] A`, where g is the kernel and d is the 4x4 pixels under the tile. The
product is a matrix product over channels for each of the 16 elements. The matrices contain only 0,
+-1 and +-1/2, so results differ from those of a direct convolution by rounding only (in float32,
1e-6 of the largest output). The gradient of the kernel has the same form, with sums over tiles.
Rows are transformed before columns, and the four elements of a column are kept in one array, which
keeps the program small.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops.windows import Pairs, at_least


def is_applicable(x: Any, w: Any, stride: tuple[int, int], padding: Pairs) -> bool:
    """Returns whether the algorithm supports a convolution and is faster than XLA for it.

    The kernel must be 3x3 with stride 1, with enough channels and tiles, in float32 or float64.

    Args:
      x: images [N,H,W,C]; only the shape and dtype are used.
      w: kernel [kh,kw,C,F], likewise.
      stride: vertical and horizontal stride.
      padding: ((top, bottom), (left, right)).
    """
    wide_types = (jnp.float32, jnp.float64)
    if w.shape[:2] != (3, 3) or stride != (1, 1) or x.dtype not in wide_types:
        return False
    if not all(0 <= p <= 2 for side in padding for p in side):
        return False  # the gradient pads by 2 - p
    wide = min(w.shape[2:]) >= 64 and w.shape[2] * w.shape[3] >= 64 * 192
    images, rows, columns = _tiles(x.shape, padding)
    return wide and at_least(images * rows * columns, 96 if min(w.shape[2:]) >= 128 else 192)


def _tiles(shape: Sequence[int], padding: Pairs) -> tuple[int, int, int]:
    """Returns the number of images, and of rows and columns of tiles of 2x2 outputs."""
    height, width = (-(-(n + sum(p) - 2) // 2) for n, p in zip(shape[1:3], padding, strict=True))
    return shape[0], height, width


# The paper's transforms B^T, G, A^T and their transposes (`_t`), along one axis.


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


def _with_barrier(parts: Sequence[Array], axis: int = 0) -> Array:
    """Stacks arrays behind a barrier, so that XLA does not fuse them into each of their uses."""
    return lax.optimization_barrier(jnp.stack(parts, axis))


def _transform_input(x: Array, padding: Pairs) -> list[Array]:
    """Computes B^T d B of [N,H,W,C], as [4,tiles,C] for each column of a tile."""
    n, rows, columns = _tiles(x.shape, padding)
    c = x.shape[-1]
    sizes = (2 * rows + 2, 2 * columns + 2)
    ends = ((low, size - n - low, 0) for n, size, (low, _) in zip(x.shape[1:3], sizes, padding))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
    x = lax.optimization_barrier(x).reshape(n, rows + 1, 2, sizes[1] * c)
    by_rows = _with_barrier(_b([x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    by_rows = by_rows.reshape(4, n, rows, columns + 1, 2, c)
    both = _b([by_rows[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)])
    return [v.reshape(4, n * rows * columns, c) for v in both]


def _transform_kernel(w: Array) -> list[Array]:
    """Computes G g G^T of [3,3,C,F], as [4,C,F] for each column of a tile."""
    by_rows = _with_barrier(_g(list(w)))
    return _g([by_rows[:, j] for j in range(3)])


def _transform_gradient(y: Array, rows: int, columns: int) -> list[Array]:
    """Computes A y A^T of [N,H,W,F], as [4,tiles,F] for each column of a tile."""
    n, height, width, f = y.shape
    y = jnp.pad(y, ((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)))
    y = y.reshape(n, rows, 2, 2 * columns * f)
    by_rows = _with_barrier(_a([y[:, :, i] for i in range(2)])).reshape(4, n * rows * columns, 2, f)
    return _a([by_rows[:, :, j] for j in range(2)])


def _inverse_transform(products: Sequence[Array], n: int, rows: int, columns: int) -> Array:
    """Computes A^T m A, [N,2*rows,2*columns,F] from [4,tiles,F] for each column of a tile."""
    f = products[0].shape[-1]
    by_columns = lax.optimization_barrier(jnp.concatenate(_a_t(products), -1))
    by_columns = by_columns.reshape(4, n, rows, 2 * columns * f)
    return jnp.stack(_a_t(list(by_columns)), 2).reshape(n, 2 * rows, 2 * columns, f)


def _products(a: Sequence[Array], b: Sequence[Array], over: tuple[int, int]) -> list[Array]:
    """Computes the matrix product for each element of a tile, over the given axes."""
    one = functools.partial(
        lax.dot_general, dimension_numbers=(((over[0],), (over[1],)), ((0,), (0,)))
    )
    return [one(x, y) for x, y in zip(a, b, strict=True)]


def conv(x: Array, w: Array, *, padding: Pairs, transposed: bool = False, **unused: Any) -> Array:
    """Computes a 3x3 convolution, [N,H,W,C] by [3,3,C,F]; `transposed` sums over F."""
    n, rows, columns = _tiles(x.shape, padding)
    products = _products(
        _transform_input(x, padding), _transform_kernel(w), (2, 2 if transposed else 1)
    )
    height, width = (size + sum(p) - 2 for size, p in zip(x.shape[1:3], padding))
    return _inverse_transform(products, n, rows, columns)[:, :height, :width]


def images_gradient(g: Array, w: Array, *, padding: Pairs, **unused: Any) -> Array:
    """Computes the gradient of the images, [N,h,w,F] by [3,3,C,F] to [N,H,W,C]."""
    (top, bottom), (left, right) = padding
    rest = ((2 - top, 2 - bottom), (2 - left, 2 - right))
    return conv(g, w[::-1, ::-1], padding=rest, transposed=True)


def kernel_gradient(x: Array, g: Array, *, padding: Pairs, **unused: Any) -> Array:
    """Computes the gradient of the kernel, [N,H,W,C] by [N,h,w,F] to [3,3,C,F]."""
    # Otherwise XLA keeps the transformed images of the forward pass, four times the images.
    x, g = lax.optimization_barrier((x, g))
    _, rows, columns = _tiles(x.shape, padding)
    transformed = _transform_input(x, padding), _transform_gradient(g, rows, columns)
    by_columns = _g_t(_products(*transformed, (1, 1)))
    return jnp.stack(_g_t(list(_with_barrier(by_columns, 1))))
