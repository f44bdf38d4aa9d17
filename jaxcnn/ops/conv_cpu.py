"""Convolutions on a CPU, where XLA is slow for groups, few channels, small maps and many gradients.

| implementation | used for |
| --- | --- |
| `block_conv`, `patch_conv` | groups, and many networks under `vmap` |
| `patch_conv` | windows that are larger than the images or the outputs |
| `pointwise_*` | 1x1 without padding: the gradients are matrix products |
| `folded_conv` | windows over fewer than 16 channels with stride 1 |
| `conv_winograd` | 3x3 with stride 1 over many channels |
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops import conv_transposes, conv_winograd, reference
from jaxcnn.ops.conv_gpu import merge_groups
from jaxcnn.ops.conv_transposes import Conv
from jaxcnn.ops.windows import Pairs, at_least, output_size, window_slice


class Implementation(NamedTuple):
    """A convolution and its gradients, with the same arguments as the primitives."""

    name: str
    conv: Conv
    images_gradient: Conv
    kernel_gradient: Conv


def conv(x: Array, w: Array, **options: Any) -> Array:
    """Computes a convolution with the implementation for its shape; see `jaxcnn.ops.conv`."""
    if options["networks"] > 1:
        return _network_by_network(conv, patch_conv, x, w, **options)
    return choose(x, w, **options).conv(x, w, **options)


def images_gradient(g: Array, w: Array, *, size: tuple[int, int], **options: Any) -> Array:
    """Computes the gradient of the images, [N,h,w,F] by [kh,kw,C/groups,F] to [N,*size,C]."""
    if options["networks"] > 1:
        many = conv_transposes.images_gradient(patch_conv)
        return _network_by_network(images_gradient, many, g, w, size=size, **options)
    x = jax.ShapeDtypeStruct((g.shape[0], *size, w.shape[2] * options["groups"]), g.dtype)
    return choose(x, w, **options).images_gradient(g, w, size=size, **options)


def kernel_gradient(x: Array, g: Array, *, window: tuple[int, int], **options: Any) -> Array:
    """Computes the gradient of the kernel, [N,H,W,C] by [N,h,w,F] to [*window,C/groups,F]."""
    if options["networks"] > 1:
        many = conv_transposes.kernel_gradient(patch_conv)
        return _network_by_network(kernel_gradient, many, x, g, window=window, **options)
    shape = (*window, x.shape[-1] // options["groups"], g.shape[-1])
    w = jax.ShapeDtypeStruct(shape, g.dtype)
    return choose(x, w, **options).kernel_gradient(x, g, window=window, **options)


def _network_by_network(one: Conv, many: Conv, a: Array, b: Array, **options: Any) -> Array:
    """Applies `one` to each network in turn or, if there are many, `many` to all of them.

    With both, non-finite values in one network do not affect the others.
    """
    networks, groups = options["networks"], options["groups"]
    if networks > _MOST_BLOCKS:
        return many(a, b, **options)
    options |= {"networks": 1, "groups": groups // networks}
    pieces = zip(jnp.split(a, networks, -1), jnp.split(b, networks, -1), strict=True)
    return jnp.concatenate([one(*piece, **options) for piece in pieces], -1)


def choose(x: Any, w: Any, *, stride, padding: Pairs, groups: int, **unused: Any) -> Implementation:
    """Chooses the implementation for images and a kernel of these shapes and dtypes."""
    window = w.shape[:2]
    out = output_size(x.shape[1:3], window, stride, padding)
    pixels = x.shape[0] * out[0] * out[1]
    if groups > 1:
        return _grouped(pixels, w.shape[2], groups)
    if window == (1, 1) and not any(map(any, padding)):
        return _POINTWISE
    if not _covers(out, (1, 1)):
        return PLAIN
    fits = _covers(x.shape[1:3], window)
    is_small = not (fits and _covers(out, window))
    if not is_small and x.shape[-1] < 16 and min(window) > 1 and stride == (1, 1):
        return _folded(x.shape[-1])
    if _covers(out, (2, 2)) and conv_winograd.is_applicable(x, w, stride, padding):
        return _WINOGRAD
    if not is_small:
        return PLAIN
    is_fast = fits and not at_least(pixels, _SOME_PIXELS)
    return _SMALL._replace(conv=reference.conv) if is_fast else _SMALL


def _derived(name: str, conv: Conv) -> Implementation:
    """Creates an implementation with the gradients that JAX derives from a convolution."""
    return Implementation(
        name, conv, conv_transposes.images_gradient(conv), conv_transposes.kernel_gradient(conv)
    )


PLAIN = _derived("plain", reference.conv)


# --- 1x1 ----------------------------------------------------------------------------------------
# XLA would transpose images, gradients and kernels.


def _strided(x: Array, stride: tuple[int, int]) -> Array:
    return x[:, :: stride[0], :: stride[1]]


def pointwise_conv(x: Array, w: Array, *, stride, **unused: Any) -> Array:
    """Computes a 1x1 convolution without padding, [N,H,W,C] by [1,1,C,F], of the strided pixels."""
    return reference.conv(_strided(x, stride), w)


def pointwise_images_gradient(g: Array, w: Array, *, size, stride, **unused: Any) -> Array:
    """Computes `images_gradient` as one matrix product."""
    rows = lax.dot_general(g.reshape(-1, g.shape[-1]), w[0, 0], (((1,), (1,)), ((), ())))
    images = jax.ShapeDtypeStruct((g.shape[0], *size, w.shape[2]), g.dtype)
    spread = jax.linear_transpose(functools.partial(_strided, stride=stride), images)
    return spread(rows.reshape(*g.shape[:-1], w.shape[2]))[0]


def pointwise_kernel_gradient(x: Array, g: Array, *, stride, **unused: Any) -> Array:
    """Computes `kernel_gradient` as one matrix product."""
    x = _strided(x, stride)
    rows = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return lax.dot_general(*rows, (((0,), (0,)), ((), ())))[None, None]


_POINTWISE = Implementation(
    "pointwise", pointwise_conv, pointwise_images_gradient, pointwise_kernel_gradient
)


# --- few channels -------------------------------------------------------------------------------


def _folded(channels: int) -> Implementation:
    """Returns `folded_conv` with the folds that were fastest in measurements."""
    conv = functools.partial(folded_conv, fold=4 if channels < 3 else 2)
    images = functools.partial(folded_conv, fold=4)
    return _derived("folded", conv)._replace(
        images_gradient=conv_transposes.images_gradient(images)
    )


def folded_conv(x: Array, w: Array, *, padding: Pairs, fold: int, **unused: Any) -> Array:
    """Computes a convolution with stride 1, [N,H,W,C] by [kh,kw,C,F], with folded columns.

    A row of W pixels with C channels has the same memory layout as W / f pixels with f * C
    channels, where f is `fold`. A convolution that computes f adjacent outputs from such pixels
    is the same function with f times the channels: 5x5 from 1 to 6 channels becomes 5x2 from 4 to
    24. Its kernel contains the original one f times, each shifted by one pixel and padded with
    zeros. The images are only reshaped.
    """
    n, h, width, channels = x.shape
    kh, kw, _, features = w.shape
    left, right = padding[1]
    out = width + left + right - kw + 1
    steps = -(-out // fold)
    taps = -(-(kw + fold - 1) // fold)  # wide pixels below a window of `fold` outputs
    whole = (steps + taps - 1) * fold
    sides = ((0, 0, 0), (0, 0, 0), (left, whole - width - left, 0), (0, 0, 0))
    x = lax.pad(x, x.dtype.type(0), sides).reshape(n, h, whole // fold, fold * channels)
    rest = taps * fold - kw
    shifted = [jnp.pad(w, ((0, 0), (i, rest - i), (0, 0), (0, 0))) for i in range(fold)]
    w = jnp.stack(shifted, 3).reshape(kh, taps, fold * channels, fold * features)
    y = reference.conv(x, w, padding=(padding[0], (0, 0)))
    return y.reshape(n, y.shape[1], steps * fold, features)[:, :, :out]


# --- small maps ---------------------------------------------------------------------------------
# XLA computes these in plain loops, 3x3 from 512 to 512 channels on 2x2 pixels 50 times slower.

_SOME_PIXELS = 32  # with fewer output pixels, XLA's forward pass is faster if it is no plain loop


def _covers(size: tuple[Any, Any], window: tuple[int, int]) -> bool:
    return at_least(size[0], window[0]) and at_least(size[1], window[1])


# --- 3x3 over many channels ---------------------------------------------------------------------

_WINOGRAD = Implementation(
    "winograd", conv_winograd.conv, conv_winograd.images_gradient, conv_winograd.kernel_gradient
)


# --- groups -------------------------------------------------------------------------------------

_BLOCK = 32  # maximum number of channels of merged groups
_MOST_BLOCKS = 32  # maximum number of convolutions that replace one
_FEW_PIXELS = 1024  # with fewer output pixels, patches are used
_WIDE_GROUP = 32  # from this number of channels per group on, XLA's forward pass is faster


def _grouped(pixels: Any, channels: int, groups: int) -> Implementation:
    """Chooses the implementation of a grouped convolution."""
    together = max(1, _BLOCK // channels)
    if groups <= 4 or (groups // together <= _MOST_BLOCKS and at_least(pixels, _FEW_PIXELS)):
        return _derived("blocks", block_conv)
    patches = _derived("patches", patch_conv)
    return patches._replace(conv=reference.conv) if channels >= _WIDE_GROUP else patches


def block_conv(x: Array, w: Array, *, stride, padding: Pairs, groups: int, **unused: Any) -> Array:
    """Computes a grouped convolution block by block, each block merging a few groups."""
    w, blocks = merge_groups(w, groups, _BLOCK)
    pieces = zip(jnp.split(x, blocks, -1), jnp.split(w, blocks, -1), strict=True)
    one = functools.partial(reference.conv, stride=stride, padding=padding)
    return jnp.concatenate([one(a, b) for a, b in pieces], -1)


def patch_conv(x: Array, w: Array, *, stride, padding: Pairs, groups: int, **unused: Any) -> Array:
    """Computes a convolution as one matrix product per group, from patches of the images."""
    kh, kw, channels, features = w.shape
    n = x.shape[0]
    out = output_size(x.shape[1:3], (kh, kw), stride, padding)
    x = lax.pad(x, x.dtype.type(0), [(*side, 0) for side in ((0, 0), *padding, (0, 0))])
    below = [window_slice(x, i, j, out, stride).reshape(n * out[0] * out[1], groups, 1, channels)
             for i in range(kh) for j in range(kw)]  # fmt: skip
    patches = jnp.concatenate(below, 2).reshape(-1, groups, kh * kw * channels)
    kernels = w.reshape(kh * kw * channels, groups, features // groups)
    y = jnp.einsum("pgi,igo->pgo", patches, kernels)
    return y.reshape(n, *out, features)


_SMALL = _derived("patches", patch_conv)._replace(kernel_gradient=PLAIN.kernel_gradient)
