"""A GPU's forms of pooling and convolution, run here, against XLA's own operations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxcnn.native_conv import members_conv, merged_conv, native_conv

from jaxcnn import convolution, layers, operations

RNG = np.random.default_rng(7)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    "window, stride, padding, size, dtype",
    [
        ((2, 2), (2, 2), ((0, 0), (0, 0)), (9, 8), jnp.float32),
        ((3, 3), (2, 2), ((1, 1), (1, 1)), (9, 8), jnp.float32),
        ((3, 3), (2, 2), ((0, 1), (0, 1)), (9, 8), jnp.bfloat16),
        ((3, 3), (1, 1), ((1, 1), (1, 1)), (9, 8), jnp.float32),
        ((3, 2), (2, 1), ((0, 1), (1, 0)), (9, 8), jnp.float32),
        ((2, 2), (3, 3), ((0, 0), (0, 0)), (9, 8), jnp.float32),  # gaps
        ((3, 3), (4, 4), ((1, 1), (1, 1)), (10, 11), jnp.float32),
        ((12, 11), (1, 1), ((0, 0), (0, 0)), (13, 12), jnp.float32),  # places beyond a byte
    ],
)
def test_max_pooling_and_its_gradient(window, stride, padding, size, dtype):
    """Of small integers, so that windows hold their maximum several times."""
    x = jnp.asarray(RNG.integers(0, 4, (2, *size, 3)), dtype)

    @jax.jit
    def both(x, g):
        y, pull = jax.vjp(lambda x: nn.max_pool(x, window, stride, padding), x)
        found, _ = operations._first_of_maxima(window, stride, padding, x)
        return y, found, pull(g), operations._from_first_maximum(window, stride, padding, x, y, g)

    out = jax.eval_shape(lambda x: nn.max_pool(x, window, stride, padding), x)
    y, found, (want,), dx = both(x, normal(*out.shape).astype(dtype))
    np.testing.assert_array_equal(found, y)
    assert dx.dtype == dtype
    rounding = 5e-2 if dtype == jnp.bfloat16 else 1e-5  # ours adds up in float32
    np.testing.assert_allclose(
        *(np.asarray(a, np.float32) for a in (dx, want)), rtol=rounding, atol=rounding
    )


def test_max_pooling_keeps_what_is_not_a_number():
    x = jnp.asarray(RNG.standard_normal((1, 6, 6, 1)), jnp.float32).at[0, 2, 3].set(jnp.nan)
    found, _ = operations._first_of_maxima((3, 3), (2, 2), ((1, 1), (1, 1)), x)
    np.testing.assert_array_equal(found, nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))))


def same(form, other, x, w, tolerance=2e-4):
    y, pull = jax.vjp(form, x, w)
    want, pull_other = jax.vjp(other, x, w)
    g = normal(*want.shape)
    for a, b in zip((y, *pull(g)), (want, *pull_other(g)), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize(
    "kernel, stride, padding, channels",
    [
        ((7, 7), 2, ((3, 3), (3, 3)), 3),  # ResNet
        ((7, 7), 2, ((1, 1), (1, 1)), 3),  # ZFNet
        ((3, 3), 2, ((0, 0), (0, 0)), 3),  # Inception-v3
        ((11, 11), 4, ((2, 2), (2, 2)), 3),  # AlexNet
        ((5, 4), 3, ((0, 1), (1, 0)), 1),
        ((2, 2), 4, ((0, 0), (0, 1)), 4),
    ],
)
def test_convolution_over_blocks_of_pixels(kernel, stride, padding, channels):
    options = {"stride": (stride, stride), "padding": padding}
    packed, native = (
        functools.partial(form, **options) for form in (convolution.packed_conv, native_conv)
    )
    same(packed, native, normal(2, 23, 24, channels), normal(*kernel, channels, 5))


@pytest.mark.parametrize(
    "groups, channels, features", [(32, 4, 4), (32, 3, 3), (8, 16, 32), (2, 48, 5)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_in_merged_groups(groups, channels, features, stride):
    options = {"padding": ((1, 1), (1, 1)), "stride": (stride, stride), "groups": groups}
    merged, native = (functools.partial(form, **options) for form in (merged_conv, native_conv))
    x, w = normal(2, 9, 8, channels * groups), normal(3, 3, channels, features * groups)
    same(merged, native, x, w)


@pytest.mark.parametrize("members, channels, features", [(3, 16, 16), (8, 16, 32), (5, 1, 6)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_several_networks(members, channels, features, stride):
    options = {"padding": ((1, 1), (1, 0)), "stride": (stride, stride)}
    single = jax.vmap(functools.partial(native_conv, **options))
    x, w = normal(members, 2, 9, 8, channels), normal(members, 3, 3, channels, features)
    same(functools.partial(members_conv, **options), single, x, w)


def test_networks_under_vmap_share_a_convolution_on_a_gpu(monkeypatch):
    """Eight of 16 channels, four at a time, in the forward pass and in both gradients."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    options = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "feature_group_count": 1}
    one = functools.partial(convolution.conv_general_dilated, **options)
    x, w = normal(8, 2, 6, 6, 16), normal(8, 3, 3, 16, 16)
    text = on_a_gpu(jax.vmap(one), x, w)
    assert "tensor<3x3x64x128xf32>" in text
    assert text.count("stablehlo.convolution") == 3 and text.count("_group_count = 2 ") == 3


def on_a_gpu(function, *args):
    """The program of the function's gradients for one."""

    def both(*args):
        y, pull = jax.vjp(function, *args)
        return y, pull(y)

    return jax.jit(both).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def test_a_gpu_gets_its_forms_and_no_other():
    text = on_a_gpu(functools.partial(layers.max_pool, window=3, stride=2), normal(1, 7, 7, 2))
    assert "select_and_scatter" not in text and "reduce_window" not in text
    conv = functools.partial(convolution.conv_general_dilated, feature_group_count=1)
    stem = functools.partial(conv, strides=(2, 2), padding=((3, 3), (3, 3)))
    text = on_a_gpu(stem, normal(1, 16, 16, 3), normal(7, 7, 3, 8))
    assert "tensor<4x4x16x8xf32>" in text and text.count("stablehlo.convolution") == 3
    options = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "groups": 32}
    grouped = functools.partial(layers.grouped_conv, **options)
    text = on_a_gpu(grouped, normal(1, 8, 8, 128), normal(3, 3, 4, 128))
    assert "feature_group_count = 2 " in text and text.count("stablehlo.convolution") == 3
    assert "dot_general" not in text and "concatenate" not in text
