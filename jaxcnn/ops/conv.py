"""Convolution: a bilinear primitive and its two transposes, with implementations per platform.

The derivatives of each of the three primitives are the other two. Every transformation of JAX
therefore works on them, to any order, in forward and reverse mode. The implementations are in
`conv_cpu`, `conv_winograd` and `conv_gpu`; on a TPU, XLA's convolution is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad, batching

from jaxcnn.ops import conv_cpu, conv_gpu, reference
from jaxcnn.ops.conv_transposes import images_gradient, kernel_gradient
from jaxcnn.ops.dispatch import in_front, new_primitive, reference_requested
from jaxcnn.ops.windows import Padding, Pair, padding_pairs, pair


def conv(
    x: Array,
    w: Array,
    *,
    stride: Pair = 1,
    padding: Padding | tuple[int, int] = 0,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Computes a convolution.

    Args:
      x: images f[N,H,W,C].
      w: kernel f[kh,kw,C/groups,F], of the same dtype.
      stride: vertical and horizontal stride.
      padding: zeros around the images, see `padding_pairs`.
      groups: number of groups of channels and features.
      precision: see `lax.conv_general_dilated`; by default JAX's default matmul precision.

    Returns:
      f[N,h,w,F].
    """
    options = {
        "stride": pair(stride),
        "padding": _hashable(padding_pairs(padding)),
        "groups": groups,
        "networks": 1,
        "precision": lax_precision(precision),
    }
    if reference_requested(x, w):
        return reference.conv(x, w, **options)
    return _conv.bind(x, w, **options)


def _hashable(pairs: Any) -> Any:
    return tuple(tuple(pair) for pair in pairs)


def lax_precision(precision: lax.PrecisionLike) -> Any:
    """Resolves the precision while a convolution is traced, since lowering is too late.

    Args:
      precision: see `conv`.
    """
    if precision is None:
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return tuple(precision) if isinstance(precision, list) else precision


def conv_general_dilated(
    x: Array,
    w: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """Computes a convolution with the signature that `flax.linen.Conv` expects.

    Args:
      x: images f[N,H,W,C].
      w: kernel f[kh,kw,C/groups,F].
      strides: vertical and horizontal stride.
      padding: zeros around the images, ((top, bottom), (left, right)); or "SAME" or "VALID".
      **options: see `lax.conv_general_dilated`, which is used if one is set that `conv` does not
        have, such as a dilation or `batch_group_count`.

    Returns:
      f[N,h,w,F].
    """
    dilated = any(d != 1 for k in ("lhs_dilation", "rhs_dilation") for d in options.get(k) or ())
    other = options.get("preferred_element_type") is not None
    other = other or options.get("batch_group_count", 1) != 1
    if dilated or other:
        return lax.conv_general_dilated(x, w, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding)
    return conv(
        x, w, stride=(strides[0], strides[1]), padding=(padding[0], padding[1]),
        groups=options.get("feature_group_count", 1), precision=options.get("precision"),
    )  # fmt: skip


# --- the primitives -----------------------------------------------------------------------------

_conv = new_primitive("conv", reference.conv, cpu=conv_cpu.conv, gpu=conv_gpu.conv)
_images = new_primitive(  # maps the output's gradient and the kernel to the images' gradient
    "conv_images_gradient",
    images_gradient(reference.conv),
    cpu=conv_cpu.images_gradient,
    gpu=images_gradient(conv_gpu.conv),
)
_kernel = new_primitive(  # maps the images and the output's gradient to the kernel's gradient
    "conv_kernel_gradient",
    kernel_gradient(reference.conv),
    cpu=conv_cpu.kernel_gradient,
    gpu=kernel_gradient(conv_gpu.conv),
)


def _of_images(g, x, w, **options):
    return _images.bind(g, w, size=x.aval.shape[1:3], **options)


def _of_kernel(g, x, w, **options):
    return _kernel.bind(x, g, window=w.aval.shape[:2], **options)


ad.defbilinear(_conv, _of_images, _of_kernel)
ad.defbilinear(
    _images,
    lambda t, g, w, *, size, **options: _conv.bind(t, w, **options),
    lambda t, g, w, *, size, **options: _kernel.bind(t, g, window=w.aval.shape[:2], **options),
)
ad.defbilinear(
    _kernel,
    lambda t, x, g, *, window, **options: _images.bind(g, t, size=x.aval.shape[1:3], **options),
    lambda t, x, g, *, window, **options: _conv.bind(x, t, **options),
)


# --- vmap ---------------------------------------------------------------------------------------
# The convolutions of several networks become one, with groups for each network.


def _batch(primitive, args, axes, *, groups, networks, **options):
    """The batching rule of the three primitives; see `batching.primitive_batchers`."""
    size = next(a.shape[axis] for a, axis in zip(args, axes) if axis is not None)
    mapped = tuple(axis is not None for axis in axes)
    bind = functools.partial(primitive.bind, **options)
    if mapped == (True, False) and primitive is not _kernel:
        # Only images are mapped and the kernel is shared: merge the axis into the batch.
        a = in_front(args[0], axes[0])
        images = a.reshape(size * a.shape[1], *a.shape[2:])
        y = bind(images, args[1], groups=groups, networks=networks)
        return y.reshape(size, a.shape[1], *y.shape[1:]), 0
    if groups == 1 and mapped == (False, True) and primitive is not _images:
        # Only features are mapped: merge the axis into the features.
        y = bind(args[0], _side_by_side(in_front(args[1], axes[1])), groups=1, networks=1)
        return _apart(y, size), 0
    a, b = (_side_by_side(in_front(a, axis, size)) for a, axis in zip(args, axes))
    return _apart(bind(a, b, groups=size * groups, networks=size * networks), size), 0


def _side_by_side(a: Array) -> Array:
    """Concatenates the channels (of a kernel: features) of all networks, [M,...,C] to [...,M*C]."""
    return jnp.moveaxis(a, 0, -2).reshape(*a.shape[1:-1], a.shape[0] * a.shape[-1])


def _apart(a: Array, size: int) -> Array:
    """Inverts `_side_by_side`."""
    return jnp.moveaxis(a.reshape(*a.shape[:-1], size, a.shape[-1] // size), -2, 0)


for _primitive in (_conv, _images, _kernel):
    batching.primitive_batchers[_primitive] = functools.partial(_batch, _primitive)
