"""Convolution of few channels: the folded form against the definition, and where it is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxcnn import layers, narrow_conv


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


CASES = [
    # size, channels, features, kernel, padding
    ((9, 12), 1, 6, (5, 5), 0),
    ((8, 7), 3, 4, (3, 3), 1),
    ((6, 10), 6, 5, (5, 5), 2),
    ((5, 6), 2, 3, (2, 4), ((1, 0), (0, 3))),
    ((4, 3), 15, 2, (3, 3), 1),
    ((4, 5), 16, 16, (3, 3), 1),
    ((3, 3), 1, 1, (3, 3), 0),
]


@pytest.mark.parametrize("size, channels, features, kernel, padding", CASES)
def test_value_and_both_gradients(size, channels, features, kernel, padding):
    x, w = draw(2, *size, channels), draw(*kernel, channels, features, seed=1)
    pairs = layers.padding_pairs(padding)

    @jax.jit
    def value_and_gradients(x, w, g):
        y, pull = jax.vjp(lambda x, w: narrow_conv.narrow_conv(x, w, pairs), x, w)
        return y, *pull(g)

    want = reference.conv(x, w, 1, padding, 1)
    g = draw(*want.shape, seed=2)
    y, dx, dw = value_and_gradients(x, w, g)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-9)
    gradients = reference.conv_gradients(x, w, g, 1, padding, 1)
    for mine, slow in zip((dx, dw), gradients):
        np.testing.assert_allclose(mine, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fold", [1, 3, 5, 16])
def test_any_fold(fold):
    x, w = draw(1, 5, 11, 2), draw(3, 3, 2, 3, seed=1)
    y = narrow_conv.folded_conv(jnp.asarray(x), jnp.asarray(w), ((1, 1), (0, 2)), fold)
    want = reference.conv(x, w, 1, ((1, 1), (0, 2)), 1)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-9)


def test_each_example_with_a_kernel_of_its_own():
    """As networks that train together under vmap."""
    x, w = draw(3, 2, 6, 6, 2), draw(3, 3, 3, 2, 4, seed=1)

    def loss(x, w):
        return (narrow_conv.narrow_conv(x, w, ((1, 1), (1, 1))) ** 2).sum()

    together = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(x, w)
    for i in range(3):
        for all_of_them, one in zip(together, jax.jit(jax.grad(loss, (0, 1)))(x[i], w[i])):
            np.testing.assert_allclose(all_of_them[i], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "channels, kernel, stride, options, folds",
    [
        (3, 3, 1, {}, True),
        (15, 3, 1, {}, True),
        (16, 3, 1, {}, False),  # to 4
        (3, 1, 1, {}, False),
        (3, 7, 2, {}, False),
        (3, 3, 1, {"kernel_dilation": 2}, False),
    ],
)
def test_where_it_is_taken(channels, kernel, stride, options, folds):
    module = layers.conv(4, kernel, stride, kernel // 2, **options)
    x = jax.ShapeDtypeStruct((1, 9, 9, channels), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert ("name=folded" in str(jax.make_jaxpr(module.apply)(variables, x))) == folds


def test_sixteen_channels_are_folded_without_a_gradient_only():
    module = layers.conv(16, 3, 1, 1)
    x = jnp.ones((2, 8, 8, 16), jnp.float32)
    variables = module.init(jax.random.key(0), x)
    wide = "3x2x32x32"
    assert wide in jax.jit(module.apply).lower(variables, x).as_text()
    loss = jax.grad(lambda variables: module.apply(variables, x).sum())
    assert wide not in jax.jit(loss).lower(variables).as_text()


def test_other_platforms_keep_their_own():
    conv = functools.partial(narrow_conv.narrow_conv, padding=((0, 0), (0, 0)))
    x, w = jnp.ones((2, 9, 9, 1), jnp.float32), jnp.ones((5, 5, 1, 6), jnp.float32)
    text = jax.jit(conv).trace(x, w).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.convolution") == 1 and "tensor<5x5x1x6xf32>" in text
    assert "5x2x4x24" in jax.jit(conv).lower(x, w).as_text()
