"""Padding and window arithmetic of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import Array, export, lax

Pair = int | tuple[int, int]
Pairs = tuple[tuple[int, int], tuple[int, int]]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Pair) -> tuple[int, int]:
    """Converts 3 to (3, 3); a pair such as (1, 7) is returned unchanged."""
    return value if isinstance(value, Sequence) else (value, value)


def padding_pairs(padding: Padding | tuple[int, int]) -> Pairs:
    """Converts padding to ((top, bottom), (left, right)).

    Args:
      padding: a number such as 1, for ((1, 1), (1, 1)); (vertical, horizontal) such as (0, 3), for
        ((0, 0), (3, 3)); or pairs, which are returned unchanged.

    Raises:
      ValueError: the padding is a name such as "SAME".
    """
    if isinstance(padding, str):
        raise ValueError(f"padding is {padding!r}; it must be numbers of pixels, see padding_pairs")
    height, width = pair(padding)  # type: ignore[arg-type]
    return pair(height), pair(width)


def pool_padding(
    size: Sequence[int], window: Pair, stride: Pair, padding: Padding, ceil_mode: bool
) -> Pairs:
    """Computes the explicit padding of a pooling layer.

    Args:
      size: height and width of the images.
      window: height and width of the window.
      stride: vertical and horizontal stride.
      padding: see `padding_pairs`.
      ceil_mode: round the output size up, as Caffe and PyTorch do, with more padding at the bottom
        and right. As in both, a last window that would start in the padding is dropped.

    Returns:
      ((top, bottom), (left, right)).

    Raises:
      ValueError: the window is larger than the padded images.
    """
    (top, bottom), (left, right) = padding_pairs(padding)
    kernel = pair(window)
    if ceil_mode:
        bottom = _ceil_padding(size[0], kernel[0], pair(stride)[0], top, bottom)
        right = _ceil_padding(size[1], kernel[1], pair(stride)[1], left, right)
    if size[0] + top + bottom < kernel[0] or size[1] + left + right < kernel[1]:
        raise ValueError(
            f"pooling over {kernel[0]}x{kernel[1]} pixels needs larger maps than "
            f"{size[0]}x{size[1]}; the images are too small for this network"
        )
    return (top, bottom), (left, right)


def same_padding(size: Sequence[int], window: Pair, stride: Pair) -> Pairs:
    """Computes the explicit padding of TensorFlow's "SAME".

    Args:
      size: height and width of the images.
      window: height and width of the window.
      stride: vertical and horizontal stride.

    Returns:
      ((top, bottom), (left, right)); an odd sum has one more at the bottom and on the right.
    """
    vertical, horizontal = lax.padtype_to_pads(size, pair(window), pair(stride), "SAME")
    return vertical, horizontal


def _ceil_padding(n: int, window: int, stride: int, low: int, high: int) -> int:
    """Computes the padding at the end of an axis of `n` pixels if the output size is rounded up."""
    out = -(-(n + low + high - window) // stride) + 1
    if (out - 1) * stride >= n + low:
        out -= 1
    return max(high, (out - 1) * stride + window - n - low)


def output_size(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Pairs
) -> tuple[int, int]:
    """Computes the output height and width of a convolution or a pooling layer."""
    height, width = (
        (n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, window, stride, padding, strict=True)
    )
    return height, width


def window_slice(x: Array, i: int, j: int, out: Sequence[int], stride: tuple[int, int]) -> Array:
    """Selects element (i, j) of every window, [N,H,W,C] to [N,*out,C]."""
    n, _, _, c = x.shape
    end = (i + stride[0] * (out[0] - 1) + 1, j + stride[1] * (out[1] - 1) + 1)
    return lax.slice(x, (0, i, j, 0), (n, *end, c), (1, *stride, 1))


def spread(x: Array, i: int, j: int, size: Sequence[int], stride: tuple[int, int]) -> Array:
    """Computes the transpose of `window_slice`, [N,h,w,C] to [N,*size,C], with zeros elsewhere."""
    sides = [(0, 0, 0)]
    for start, n, out, step in zip((i, j), size, x.shape[1:3], stride, strict=True):
        sides.append((start, n - start - step * (out - 1) - 1, step - 1))
    return lax.pad(x, x.dtype.type(0), [*sides, (0, 0, 0)])


def at_least(count: Any, least: int) -> bool:
    """Returns whether a count is at least `least`; True if the count is symbolic."""
    return export.is_symbolic_dim(count) or count >= least
