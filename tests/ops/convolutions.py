"""Implementations of convolution against `jaxcnn.ops.reference`, and it against the definition."""

import functools
import types

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
    """Values and both gradients, compiled. `implementation` has them as `conv_cpu`'s have."""
    want = definitions.conv(x, w, options["stride"], options["padding"], options["groups"])
    g = draw(*want.shape, seed=2)
    dx, dw = definitions.conv_gradients(
        x, w, g, options["stride"], options["padding"], options["groups"]
    )
    for one in (derived(reference.conv), implementation):
        y, found_dx, found_dw = jax.jit(functools.partial(all_three, one, **options))(x, w, g)
        close(y, want)
        close(found_dx, dx)
        close(found_dw, dw)


def all_three(implementation, x, w, g, **options):
    """Value, gradient of the images and gradient of the kernel."""
    return (
        implementation.conv(x, w, **options),
        implementation.images_gradient(g, w, size=x.shape[1:3], **options),
        implementation.kernel_gradient(x, g, window=w.shape[:2], **options),
    )


def derived(conv):
    """The implementation whose gradients are derived from the convolution."""
    return types.SimpleNamespace(
        conv=conv,
        images_gradient=conv_transposes.images_gradient(conv),
        kernel_gradient=conv_transposes.kernel_gradient(conv),
    )
