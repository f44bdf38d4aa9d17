"""Implementations of convolution against `jaxcnn.ops.reference`, and it against the definition."""

import jax
import numpy as np
import reference as definitions

from jaxcnn.ops import conv_transposes, padding_pairs, reference


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def close(found, wanted, rtol=1e-11, atol=1e-11):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def options_of(stride=1, padding=0, groups=1):
    """The arguments of an implementation."""
    stride = (stride, stride) if isinstance(stride, int) else stride
    pairs = tuple(map(tuple, padding_pairs(padding)))
    return {"stride": stride, "padding": pairs, "groups": groups, "precision": None}


def assert_same_convolution(implementation, x, w, **options):
    """Values and both gradients of (conv, images_gradient, kernel_gradient), compiled."""
    conv, images_gradient, kernel_gradient = implementation
    want = definitions.conv(x, w, options["stride"], options["padding"], options["groups"])
    g = draw(*want.shape, seed=2)
    dx, dw = definitions.conv_gradients(
        x, w, g, options["stride"], options["padding"], options["groups"]
    )
    plain = (
        reference.conv,
        conv_transposes.images_gradient(reference.conv),
        conv_transposes.kernel_gradient(reference.conv),
    )
    for forward, of_images, of_kernel in (plain, (conv, images_gradient, kernel_gradient)):
        close(jax.jit(lambda x, w: forward(x, w, **options))(x, w), want)
        size, window = x.shape[1:3], w.shape[:2]
        close(jax.jit(lambda g, w: of_images(g, w, size=size, **options))(g, w), dx)
        close(jax.jit(lambda x, g: of_kernel(x, g, window=window, **options))(x, g), dw)


def derived(conv):
    """The implementation whose gradients are derived from the convolution."""
    return conv, conv_transposes.images_gradient(conv), conv_transposes.kernel_gradient(conv)
