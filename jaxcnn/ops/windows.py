"""Padding and window arithmetic of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import Array, export, lax

Pair = int | tuple[int, int]
Pairs = tuple[tuple[int, int], tuple[int, int]]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3); (1, 7) stays."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding | tuple[int, int]) -> Pairs:
    """1 -> ((1, 1), (1, 1)); (0, 3) -> ((0, 0), (3, 3)); pairs stay."""
    height, width = pair(padding)  # type: ignore[arg-type]
    return pair(height), pair(width)


def pool_padding(
    size: Sequence[int], window: Pair, stride: Pair, padding: Padding, ceil_mode: bool
) -> Pairs:
    """Explicit padding of a pooling layer.

    Args:
      size: height and width of the images.
      window: height and width of a window.
      stride: vertical and horizontal step.
      padding: see `padding_pairs`.
      ceil_mode: round the output size up, as Caffe and Torch do, by more padding below and to the
        right. A last window that would start in the padding is dropped, as in both.

    Returns:
      ((top, bottom), (left, right)).
    """
    (top, bottom), (left, right) = padding_pairs(padding)
    if ceil_mode:
        bottom = _ceil_padding(size[0], pair(window)[0], pair(stride)[0], top, bottom)
        right = _ceil_padding(size[1], pair(window)[1], pair(stride)[1], left, right)
    return (top, bottom), (left, right)


def _ceil_padding(n: int, window: int, stride: int, low: int, high: int) -> int:
    """The high padding of one axis of `n` pixels when the output size is rounded up."""
    out = -(-(n + low + high - window) // stride) + 1
    if (out - 1) * stride >= n + low:
        out -= 1
    return max(high, (out - 1) * stride + window - n - low)


def output_size(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Pairs
) -> tuple[int, int]:
    """Height and width of what a convolution or a pooling layer returns."""
    height, width = (
        (n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, window, stride, padding, strict=True)
    )
    return height, width


def window_slice(x: Array, i: int, j: int, out: Sequence[int], stride: tuple[int, int]) -> Array:
    """Element (i, j) of every window: [N,H,W,C] to [N,*out,C]."""
    n, _, _, c = x.shape
    end = (i + stride[0] * (out[0] - 1) + 1, j + stride[1] * (out[1] - 1) + 1)
    return lax.slice(x, (0, i, j, 0), (n, *end, c), (1, *stride, 1))


def spread(x: Array, i: int, j: int, size: Sequence[int], stride: tuple[int, int]) -> Array:
    """The transpose of `window_slice`: [N,h,w,C] to [N,*size,C], zero elsewhere."""
    sides = [(0, 0, 0)]
    for start, n, out, step in zip((i, j), size, x.shape[1:3], stride, strict=True):
        sides.append((start, n - start - step * (out - 1) - 1, step - 1))
    return lax.pad(x, x.dtype.type(0), [*sides, (0, 0, 0)])


def at_least(count: Any, least: int) -> bool:
    """Whether the count reaches `least`; True for a symbolic one that nothing is known of."""
    return export.is_symbolic_dim(count) or count >= least
