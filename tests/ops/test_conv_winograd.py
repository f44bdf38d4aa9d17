"""3x3 convolution in Winograd's form: against the definition, and where it is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxcnn import layers, winograd


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# The rest of a tile of 2x2 is left over below, beside, in both, in none; every padding.
@pytest.mark.parametrize(
    "size, channels, features, padding",
    [
        ((6, 8), 3, 5, 1),
        ((7, 8), 2, 3, 1),
        ((6, 5), 4, 1, 0),
        ((5, 5), 1, 4, 2),
        ((4, 7), 3, 2, ((2, 0), (0, 1))),
        ((3, 3), 2, 2, 0),
    ],
)
def test_value_and_both_gradients(size, channels, features, padding):
    x, w = draw(2, *size, channels), draw(3, 3, channels, features, seed=1)
    pairs = layers.padding_pairs(padding)
    want = reference.conv(x, w, 1, padding, 1)
    g = draw(*want.shape, seed=2)
    jax.config.update("jax_enable_x64", True)
    try:
        y, pull = jax.vjp(jax.jit(lambda x, w: winograd.conv3x3(x, w, pairs)), x, w)
        gradients = pull(g)
    finally:
        jax.config.update("jax_enable_x64", False)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-9)
    for mine, slow in zip(gradients, reference.conv_gradients(x, w, g, 1, padding, 1)):
        np.testing.assert_allclose(mine, slow, rtol=1e-9, atol=1e-9)


def test_float32_is_as_exact_as_the_definition():
    x, w = draw(2, 14, 14, 128), draw(3, 3, 128, 128, seed=1) / 34
    want = reference.conv(x, w, 1, 1, 1)
    x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    usual = jax.lax.conv_general_dilated(
        x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    error, usual_error = (
        np.abs(y - want).max() for y in (winograd.winograd_conv(x, w, ((1, 1), (1, 1))), usual)
    )
    assert error < 4 * usual_error and error < 2e-6 * np.abs(want).max()


def test_each_example_with_a_kernel_of_its_own():
    """As networks that train together under vmap."""
    x, w = draw(3, 2, 6, 6, 2), draw(3, 3, 3, 2, 4, seed=1)

    def loss(x, w):
        return (winograd.conv3x3(x, w, ((1, 1), (1, 1))) ** 2).sum()

    x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    together = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))(x, w)
    for i in range(3):
        for all_of_them, one in zip(together, jax.jit(jax.grad(loss, (0, 1)))(x[i], w[i])):
            np.testing.assert_allclose(all_of_them[i], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "images, channels, options, taken",
    [
        ((4, 14, 14), 128, {}, True),
        ((1, 28, 28), 128, {}, True),
        ((2, 14, 14), 128, {}, True),  # 98 tiles
        ((5, 7, 7), 128, {}, False),  # 80
        ((4, 14, 14), 96, {}, True),
        ((3, 14, 14), 96, {}, False),  # 147
        ((4, 14, 14), 64, {}, False),
        ((4, 14, 14), 128, {"kernel": 1, "padding": 0}, False),
        ((4, 14, 14), 128, {"kernel": 5, "padding": 2}, False),
        ((4, 28, 28), 128, {"stride": 2}, False),
        ((4, 14, 14), 128, {"padding": 3}, False),
        ((4, 14, 14), 128, {"groups": 2}, False),
        ((4, 14, 14), 128, {"kernel_dilation": 2}, False),
        ((4, 14, 14), 128, {"dtype": jnp.bfloat16}, False),
    ],
)
def test_where_it_is_taken(images, channels, options, taken):
    module = layers.conv(128, **({"kernel": 3, "padding": 1} | options))
    x = jax.ShapeDtypeStruct((*images, channels), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    text = str(jax.make_jaxpr(module.apply)(variables, x))
    assert ("name=winograd" in text) == taken


def test_other_platforms_keep_their_own():
    conv = functools.partial(winograd.conv3x3, padding=((1, 1), (1, 1)))
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    text = jax.jit(conv).trace(x, w).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.convolution") == 1 and "dot_general" not in text
    here = jax.jit(conv).lower(x, w).as_text()
    assert "stablehlo.convolution" not in here and here.count("stablehlo.dot_general") == 4
