"""The gradients of a convolution, derived from the convolution itself."""

from __future__ import annotations

from collections.abc import Callable

import jax

Conv = Callable[..., jax.Array]  # conv(x, w, *, stride, padding, groups, precision)


def images_gradient(conv: Conv) -> Conv:
    """Derives the gradient of the images from a convolution.

    Args:
      conv: the convolution.

    Returns:
      `gradient(g, w, *, size, **options)`, [N,h,w,F] by [kh,kw,C/groups,F] to [N,*size,C].
    """

    def gradient(g, w, *, size, groups, **options):
        images = jax.ShapeDtypeStruct((g.shape[0], *size, w.shape[2] * groups), g.dtype)
        pull = jax.linear_transpose(lambda x: conv(x, w, groups=groups, **options), images)
        return pull(g)[0]

    return gradient


def kernel_gradient(conv: Conv) -> Conv:
    """Derives the gradient of the kernel from a convolution.

    Args:
      conv: the convolution.

    Returns:
      `gradient(x, g, *, window, **options)`, [N,H,W,C] by [N,h,w,F] to [*window,C/groups,F].
    """

    def gradient(x, g, *, window, groups, **options):
        kernel = jax.ShapeDtypeStruct((*window, x.shape[-1] // groups, g.shape[-1]), g.dtype)
        pull = jax.linear_transpose(lambda w: conv(x, w, groups=groups, **options), kernel)
        return pull(g)[0]

    return gradient
