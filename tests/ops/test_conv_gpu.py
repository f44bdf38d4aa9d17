"""A GPU's implementations of convolution, run here, against the reference and the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import assert_same_convolution, close, derived, draw, options_of

from jaxcnn.ops import conv_gpu, reference

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "kernel, stride, padding, channels",
    [
        ((7, 7), 2, 3, 3),  # ResNet
        ((7, 7), 2, 1, 3),  # ZFNet
        ((3, 3), 2, 0, 3),  # Inception-v3
        ((11, 11), 4, 2, 3),  # AlexNet
        ((5, 4), 3, ((0, 1), (1, 0)), 1),
        ((2, 2), 4, ((0, 0), (0, 1)), 4),
    ],
)
def test_blocks_of_pixels(kernel, stride, padding, channels):
    x, w = draw(2, 23, 24, channels), draw(*kernel, channels, 5, seed=1)
    options = options_of(stride, padding)

    def packed(x, w, *, groups, **options):
        return conv_gpu.packed_conv(x, w, **options)

    assert_same_convolution(derived(packed), x, w, **options)


@pytest.mark.parametrize(
    "groups, channels, features", [(32, 4, 4), (32, 3, 3), (8, 16, 32), (2, 48, 5)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_merged_groups(groups, channels, features, stride):
    x, w = draw(2, 9, 8, channels * groups), draw(3, 3, channels, features * groups, seed=1)
    options = {"stride": (stride, stride), "padding": ((1, 1), (1, 1))}

    def value_and_gradients(conv, x, w):
        y, pull = jax.vjp(functools.partial(conv, groups=groups, **options), x, w)
        return y, *pull(jnp.cos(y))

    found, want = (
        jax.jit(functools.partial(value_and_gradients, conv))(x, w)
        for conv in (conv_gpu.merged_conv, reference.conv)
    )
    for a, b in zip(found, want, strict=True):
        close(a, b)


@pytest.mark.parametrize("groups, channels, kernel, stride", [
    (1, 3, (7, 7), 2), (1, 3, (3, 3), (1, 2)), (1, 8, (3, 3), 2), (4, 4, (3, 3), 1),
])  # fmt: skip
def test_the_chosen_one(groups, channels, kernel, stride):
    options = options_of(stride, 1, groups)
    x = draw(2, 12, 11, channels * groups)
    w = draw(*kernel, channels, 4 * groups, seed=1)
    close(conv_gpu.conv(x, w, **options), reference.conv(x, w, **options))


@pytest.mark.parametrize(
    "channels, groups, merged", [(4, 32, 2), (16, 4, 1), (48, 2, 2), (9, 7, 1)]
)
def test_groups_are_merged_up_to_64_channels(channels, groups, merged):
    w, fewer = conv_gpu.merge_groups(np.ones((1, 1, channels, groups)), groups, 64)
    assert fewer == merged
    assert w.shape == (1, 1, channels * groups // merged, groups)
    assert np.sum(w) == channels * groups  # zeros between
