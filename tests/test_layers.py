"""What families share, block by block against the definitions in `reference.py`, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax

from jaxcnn import layers


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kernel, stride, padding, groups", [
    ((3, 3), (1, 1), 1, 1), ((5, 5), (4, 4), ((0, 3), (0, 3)), 1), ((3, 3), (2, 2), 1, 3),
])  # fmt: skip
def test_convolution_with_a_bias(kernel, stride, padding, groups):
    x, bias, w = draw(2, 9, 8, 6), draw(12, seed=2), draw(*kernel, 6 // groups, 12, seed=1)
    module = layers.conv(12, kernel, stride, padding, groups=groups, bias=True, dtype=jnp.float64)
    variables = {"params": {"kernel": jnp.asarray(w), "bias": jnp.asarray(bias)}}
    y = jax.jit(module.apply)(variables, x)
    close(y, reference.conv(x, w, stride, padding, groups, bias))


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_with_dilation(groups):
    module = layers.conv(4, 3, groups=groups, kernel_dilation=2, dtype=jnp.float64)
    x, w = draw(1, 9, 9, 4), draw(3, 3, 4 // groups, 4, seed=1)
    wide = lax.pad(jnp.asarray(w), 0.0, ((0, 0, 1), (0, 0, 1), (0, 0, 0), (0, 0, 0)))
    y = module.apply({"params": {"kernel": jnp.asarray(w)}}, x)
    close(y, reference.conv(x, np.asarray(wide), 1, 0, groups))


def test_batch_norm_in_evaluation():
    x, scale, bias, mean = draw(2, 3, 3, 5), *(draw(5, seed=i) for i in (1, 2, 3))
    var = np.abs(draw(5, seed=4)) + 0.1
    variables = {
        "params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)},
        "batch_stats": {"mean": jnp.asarray(mean), "var": jnp.asarray(var)},
    }
    for epsilon in (1e-5, 1e-3):
        network = layers.Network(dtype=jnp.float64, bn_epsilon=epsilon)
        want = reference.batch_norm(x, scale, bias, mean, var, epsilon)
        close(network.norm(train=False)().apply(variables, x), want)
        close(network.norm_act(train=False)().apply(variables, x, x), np.maximum(want + x, 0))


def test_a_unit_says_how_it_normalizes():
    with pytest.raises(TypeError, match="norm_act"):
        layers.ConvBNAct(8, 3)
    x = draw(1, 5, 5, 2).astype(np.float32)
    module = layers.ConvBNAct(4, 3, 2, 1, norm_act=None)
    y, _ = module.init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 3, 3, 4) and y.min() == 0


def test_squeeze_and_excitation():
    x = draw(2, 4, 3, 32)
    module = layers.SqueezeExcite(16, dtype=jnp.float64)
    w1, b1, w2, b2 = draw(32, 2), draw(2, seed=1), draw(2, 32, seed=2), draw(32, seed=3)
    params = {"fc1": {"kernel": w1, "bias": b1}, "fc2": {"kernel": w2, "bias": b2}}
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    close(module.apply(variables, x), reference.squeeze_excite(x, w1, b1, w2, b2))


def test_the_reference_convolution_by_scipy():
    from scipy import signal

    x, w = draw(1, 9, 8, 2), draw(3, 4, 2, 3, seed=1)
    for f in range(3):
        planes = [signal.correlate2d(x[0, :, :, c], w[:, :, c, f], "valid") for c in range(2)]
        close(reference.conv(x, w)[0, :, :, f], sum(planes))
