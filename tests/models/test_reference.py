"""layers.py block by block against the definitions in `reference.py`, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import lax

from jaxcnn import convolution, layers


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


# Few and many groups take different forms on CPU; strides, odd sizes and uneven padding in both.
CONVOLUTIONS = [
    # size, in, out, kernel, stride, padding, groups
    ((9, 9), 6, 8, (3, 3), (1, 1), 1, 1),
    ((13, 12), 3, 4, (5, 5), (4, 4), ((0, 3), (0, 3)), 1),
    ((11, 8), 4, 6, (1, 7), (1, 1), (0, 3), 1),
    ((9, 7), 6, 4, (3, 3), (2, 2), 1, 2),
    ((8, 9), 6, 12, (5, 3), (1, 2), (2, 1), 3),
    ((7, 7), 8, 8, (3, 3), (1, 1), 1, 4),
    ((9, 7), 16, 16, (3, 3), (2, 2), 1, 8),
    ((8, 8), 12, 24, (3, 3), (2, 2), ((1, 0), (0, 1)), 6),
    ((7, 8), 32, 32, (3, 3), (1, 1), 1, 32),
    ((10, 10), 3, 24, (7, 7), (2, 2), 3, 3),
    ((5, 6), 160, 10, (3, 3), (1, 1), 1, 5),  # wide groups
    # Pixels enough to go in blocks on a CPU: two, one, and as many as groups.
    ((24, 22), 64, 32, (3, 3), (1, 1), 1, 16),
    ((46, 45), 12, 24, (3, 3), (2, 2), ((1, 0), (0, 1)), 6),
    ((23, 23), 100, 5, (1, 3), (1, 1), (0, 1), 5),
]


@pytest.mark.parametrize("size, cin, cout, kernel, stride, padding, groups", CONVOLUTIONS)
def test_convolution(size, cin, cout, kernel, stride, padding, groups):
    x, bias = draw(2, *size, cin), draw(cout, seed=2)
    w = draw(*kernel, cin // groups, cout, seed=1)
    module = layers.conv(cout, kernel, stride, padding, groups=groups, bias=True, dtype=jnp.float64)
    variables = {"params": {"kernel": jnp.asarray(w), "bias": jnp.asarray(bias)}}
    y = jax.jit(module.apply)(variables, x)
    close(y, reference.conv(x, w, stride, padding, groups, bias))


@pytest.mark.parametrize("size, cin, cout, kernel, stride, padding, groups", CONVOLUTIONS[3:])
def test_grouped_convolution_and_both_gradients(size, cin, cout, kernel, stride, padding, groups):
    x, w = draw(2, *size, cin), draw(*kernel, cin // groups, cout, seed=1)
    pairs = layers.padding_pairs(padding)
    ours = functools.partial(layers.grouped_conv, stride=stride, padding=pairs, groups=groups)

    def plain(x, w):
        return lax.conv_general_dilated(
            x,
            w,
            stride,
            pairs,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, x, w, g):
        y, pull = jax.vjp(function, x, w)
        return y, *pull(g)

    g = draw(*plain(x, w).shape, seed=2)
    y, dx, dw = value_and_gradients(ours, x, w, g)
    for mine, native in zip((y, dx, dw), value_and_gradients(plain, x, w, g)):
        close(mine, native)
    close(y, reference.conv(x, w, stride, padding, groups))
    for mine, slow in zip((dx, dw), reference.conv_gradients(x, w, g, stride, padding, groups)):
        close(mine, slow)


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
def test_pointwise_convolution_and_both_gradients(size, stride):
    x, w = draw(2, *size, 5), draw(1, 1, 5, 4, seed=1)
    ours = jax.jit(functools.partial(convolution.pointwise_conv, stride=stride))
    y, pull = jax.vjp(ours, x, w)
    close(y, reference.conv(x, w, stride, 0, 1))
    g = draw(*y.shape, seed=2)
    for mine, slow in zip(pull(g), reference.conv_gradients(x, w, g, stride, 0, 1)):
        close(mine, slow)


def test_gradient_of_grouped_convolution_by_differences():
    """A check of the reference's own gradients as well: both follow from the forward pass alone."""
    x, w, g = draw(1, 5, 4, 10), draw(3, 3, 2, 5, seed=1), draw(1, 3, 2, 5, seed=2)
    options = {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 5}

    def loss(x, w):
        return jnp.sum(layers.grouped_conv(x, w, **options) * g)

    dx, dw = jax.grad(loss, (0, 1))(x, w)
    for argument, gradient in ((0, dx), (1, dw)):
        for seed in range(5):
            direction = draw(*(x, w)[argument].shape, seed=10 + seed)
            ends = []
            for sign in (1, -1):
                moved = [x, w]
                moved[argument] = moved[argument] + sign * 1e-4 * direction
                y = reference.conv(*moved, **options)
                ends.append(np.sum(y * g))
            slope = (ends[0] - ends[1]) / 2e-4
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-8)


def test_grouped_convolution_refuses_dilation():
    module = layers.conv(4, 3, groups=2, kernel_dilation=2)
    with pytest.raises(ValueError, match="dilation"):
        module.init(jax.random.key(0), jnp.zeros((1, 9, 9, 4)))


POOLS = [
    # size, window, stride, padding, ceil_mode
    ((8, 8), 2, 2, 0, False),
    ((9, 7), 2, 2, 0, False),
    ((9, 7), 2, 2, 0, True),
    ((13, 13), 3, 2, 0, False),
    ((12, 14), 3, 2, 0, True),
    ((12, 13), 3, 2, 1, False),
    ((11, 12), 3, 2, 1, True),
    ((6, 6), 3, 1, 1, False),
    ((6, 7), (2, 3), 1, (0, 1), False),
    ((7, 5), (2, 3), (1, 2), (0, 1), False),
    ((4, 4), 2, 3, 1, True),  # a last window would start in the padding
    ((5, 6), 1, 2, 0, True),
    ((4, 9), (2, 3), (2, 3), 0, False),  # windows that cover the images side by side
    ((6, 8), 2, 2, 1, False),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size, window, stride, padding, ceil_mode", POOLS)
def test_max_pool_and_its_gradient(size, window, stride, padding, ceil_mode, ties):
    x = draw(2, *size, 3)
    if ties:  # such as the zeros that ReLU leaves, and negative maxima beside padding
        x = np.round(x) - 1
    options = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    y, pull = jax.vjp(functools.partial(layers.max_pool, **options), x)
    close(y, reference.max_pool(x, **options))
    g = draw(*y.shape, seed=1)
    close(pull(g)[0], reference.max_pool_gradient(x, g, **options))


@pytest.mark.parametrize("size, window, stride, padding, ceil_mode", POOLS)
def test_average_pool_without_padding_in_the_count(size, window, stride, padding, ceil_mode):
    x = draw(2, *size, 3)
    options = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    y, pull = jax.vjp(functools.partial(layers.avg_pool, **options), x)
    close(y, reference.avg_pool(x, **options))
    g = draw(*y.shape, seed=1)
    np.testing.assert_allclose(np.sum(pull(g)[0] * x), np.sum(g * y), rtol=1e-9)  # as it is linear


@pytest.mark.parametrize("size, window, stride, padding, ceil_mode", POOLS)
def test_average_pool_with_padding_in_the_count(size, window, stride, padding, ceil_mode):
    x = draw(2, *size, 3)
    options = {"window": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    options["count_include_pad"] = True
    close(layers.avg_pool(x, **options), reference.avg_pool(x, **options))


def test_pools_that_the_window_does_not_fit():
    """Sizes of the papers' tables: AlexNet 55-27-13-6, GoogLeNet 112-56-28-14-7."""
    for size, padding, ceil_mode, expected in [
        (55, 0, False, 27), (27, 0, False, 13), (13, 0, False, 6), (110, 1, False, 55),
        (26, 1, False, 13), (112, 0, True, 56), (56, 0, True, 28), (28, 0, True, 14),
        (14, 0, True, 7), (112, 1, False, 56),
    ]:  # fmt: skip
        out = layers.max_pool(jnp.zeros((1, size, size, 1)), 3, 2, padding, ceil_mode=ceil_mode)
        assert out.shape == (1, expected, expected, 1)
        assert reference.out_size(np.zeros((1, size, size, 1)), 3, 2, padding, ceil_mode) == (
            expected,
            expected,
        )


@pytest.mark.parametrize("channels", [1, 3, 5, 16])
def test_response_normalisation_as_printed(channels):
    x = 30 * draw(2, 3, 4, channels)
    close(layers.local_response_norm(x), reference.local_response_norm(x))


@pytest.mark.parametrize("n, k, alpha, beta", [(5, 1.0, 1e-4, 0.75), (3, 2.0, 1e-2, 0.5)])
def test_response_normalisation_with_alpha_over_n(n, k, alpha, beta):
    x = 30 * draw(2, 3, 4, 9)
    actual = layers.local_response_norm(x, n=n, k=k, alpha=alpha, beta=beta, alpha_div_n=True)
    close(actual, reference.local_response_norm(x, n, k, alpha / n, beta))


def test_gradient_of_response_normalisation_by_differences():
    x, g, direction = 30 * draw(1, 2, 2, 7), draw(1, 2, 2, 7, seed=1), draw(1, 2, 2, 7, seed=2)
    gradient = jax.grad(lambda x: jnp.sum(layers.local_response_norm(x) * g))(x)
    ends = [
        np.sum(reference.local_response_norm(x + sign * 1e-4 * direction) * g) for sign in (1, -1)
    ]
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-4, rtol=1e-8)


def test_batch_norm_in_evaluation():
    x, scale, bias, mean = draw(2, 3, 3, 5), *(draw(5, seed=i) for i in (1, 2, 3))
    var = np.abs(draw(5, seed=4)) + 0.1
    network = layers.Network(dtype=jnp.float64)
    variables = {
        "params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)},
        "batch_stats": {"mean": jnp.asarray(mean), "var": jnp.asarray(var)},
    }
    for epsilon in (1e-5, 1e-3):
        y = network.norm(train=False, epsilon=epsilon)().apply(variables, x)
        close(y, reference.batch_norm(x, scale, bias, mean, var, epsilon))


def test_squeeze_and_excitation():
    x = draw(2, 4, 3, 32)
    module = layers.SqueezeExcite(16, dtype=jnp.float64)
    w1, b1, w2, b2 = draw(32, 2), draw(2, seed=1), draw(2, 32, seed=2), draw(32, seed=3)
    params = {"fc1": {"kernel": w1, "bias": b1}, "fc2": {"kernel": w2, "bias": b2}}
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    close(module.apply(variables, x), reference.squeeze_excite(x, w1, b1, w2, b2))


def test_adaptive_average():
    """7x7 from 7x7 is the identity; from other sizes each cell averages its share."""
    close(layers.adaptive_avg_pool(draw(1, 7, 7, 2), 7), draw(1, 7, 7, 2))
    x = draw(2, 10, 5, 3)
    y = np.asarray(layers.adaptive_avg_pool(x, 4))
    rows, columns = [(0, 3), (2, 5), (5, 8), (7, 10)], [(0, 2), (1, 3), (2, 4), (3, 5)]
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            close(y[:, i, j], x[:, top:bottom, left:right].mean((1, 2)))


def test_the_reference_convolution_by_scipy():
    from scipy import signal

    x, w = draw(1, 9, 8, 2), draw(3, 4, 2, 3, seed=1)
    for f in range(3):
        planes = [signal.correlate2d(x[0, :, :, c], w[:, :, c, f], "valid") for c in range(2)]
        close(reference.conv(x, w)[0, :, :, f], sum(planes))


def test_a_tpu_gets_native_operations_only():
    """Lowered for one, no other form of an operation is left in the program."""

    def program(function, *args):
        def both(*args):
            y, pull = jax.vjp(function, *args)
            return pull(y)

        lowered = jax.jit(both).trace(*args).lower(lowering_platforms=("tpu",))
        return lowered.as_text()

    for groups in (2, 32):
        options = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "groups": groups}
        text = program(
            functools.partial(layers.grouped_conv, **options),
            jnp.zeros((1, 32, 32, 64)),
            jnp.zeros((3, 3, 64 // groups, 64)),
        )
        assert text.count("stablehlo.convolution") == 3
        assert "dot_general" not in text and "concatenate" not in text
    pointwise = functools.partial(convolution.pointwise_conv, stride=(2, 2))
    text = program(pointwise, jnp.zeros((1, 5, 5, 2)), jnp.zeros((1, 1, 2, 3)))
    assert text.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in text and "stablehlo.slice" not in text
    average = functools.partial(layers.avg_pool, window=3, stride=1)
    text = program(average, jnp.zeros((1, 7, 7, 2)))
    assert text.count("stablehlo.reduce_window") == 2  # value and gradient, whole windows
    pool = functools.partial(layers.max_pool, window=3, stride=2)
    text = program(pool, jnp.zeros((1, 7, 7, 2)))
    assert text.count("stablehlo.select_and_scatter") == 1
