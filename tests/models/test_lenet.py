"""LeNet-5 against the paper's tables and a slow NumPy form of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.models import lenet
from jaxcnn.models.costs import count_macs, count_params
from jaxcnn.runtime.compilation import compile_init

# Table I as printed: a row per map of S2, a column per map of C3.
TABLE = np.array(
    [
        [mark == "X" for mark in row]
        for row in (
            "X...XXX..XXXX.XX",
            "XX...XXX..XXXX.X",
            "XXX...XXX..X.XXX",
            ".XXX..XXXX..X.XX",
            "..XXX..XXXX.XX.X",
            "...XXX..XXXX.XXX",
        )
    ]
)


@pytest.fixture(scope="module")
def network():
    model = jaxcnn.create_model("lenet5_1998")
    return model, draw_variables(model, (1, 32, 32, 1))


@pytest.fixture(scope="module")
def run(network):
    """(logits, endpoints) of variables and one image."""
    return jax.jit(lambda v, x: network[0].apply(v, x, mutable=["endpoints"]))


def test_connections_are_those_of_table_1():
    assert TABLE.sum(1).tolist() == [10] * 6
    assert [tuple(np.flatnonzero(column)) for column in TABLE.T] == list(lenet.C3_TABLE)


def test_c3_has_the_papers_parameters_and_connections(network):
    _, variables = network
    c3 = variables["params"]["c3"]
    assert count_params(c3) == 1516
    module = lenet.TableConv()
    x = jax.ShapeDtypeStruct((1, 14, 14, 6), jnp.float32)
    assert count_macs(lambda p, x: module.apply({"params": p}, x), c3, x) == 150_000
    dense = jaxcnn.create_model("lenet5_1998", dense_c3=True)
    shapes = jax.eval_shape(lambda k: dense.init(k, jnp.zeros((1, 32, 32, 1))), jax.random.key(0))
    assert count_params(shapes["params"]) == 60_900


@pytest.mark.parametrize("s2", range(6))
def test_a_map_of_s2_reaches_its_ten_maps_of_c3_only(network, run, s2):
    _, variables = network
    images = draw_images((1, 32, 32, 1))
    before = run(variables, images)[1]["endpoints"]["stage2"]
    scale = variables["params"]["s2"]["scale"].at[s2].add(1.0)
    params = {**variables["params"], "s2": {**variables["params"]["s2"], "scale": scale}}
    after = run({"params": params}, images)[1]["endpoints"]["stage2"]
    changed = np.any(before != after, axis=(0, 1, 2))
    np.testing.assert_array_equal(changed, TABLE[s2])


def dense_kernel(kernel):
    """The 60 kernels of C3 as [5,5,6,16] with zeros where there is no connection."""
    dense, kernels = np.zeros((5, 5, 6, 16)), iter(np.moveaxis(np.asarray(kernel), -1, 0))
    for s2, c3 in zip(*np.nonzero(TABLE)):
        dense[:, :, s2, c3] = next(kernels)
    return dense


def slow_lenet5(params, images):
    squash = lambda a: 1.7159 * np.tanh(2 * a / 3)  # noqa: E731
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = squash(reference.conv(images, p["c1"]["kernel"], bias=p["c1"]["bias"]))
    x = squash(reference.subsample(x, p["s2"]["scale"], p["s2"]["bias"]))
    x = squash(reference.conv(x, dense_kernel(p["c3"]["kernel"]), bias=p["c3"]["bias"]))
    x = squash(reference.subsample(x, p["s4"]["scale"], p["s4"]["bias"]))
    x = squash(reference.conv(x, p["c5"]["kernel"], bias=p["c5"]["bias"]))[:, 0, 0]
    x = squash(x @ p["f6"]["kernel"] + p["f6"]["bias"])
    return -np.array([[np.sum((unit - row) ** 2) for unit in lenet.digit_bitmaps()] for row in x])


def test_network_equals_the_slow_one(network, run):
    _, variables = network
    images = draw_images((1, 32, 32, 1))
    logits, _ = run(variables, images)
    np.testing.assert_allclose(logits, slow_lenet5(variables["params"], images), rtol=2e-5)


def test_gradients_of_c3_are_those_of_a_masked_convolution():
    x, g = draw_images((2, 9, 9, 6)), draw_images((2, 5, 5, 16), seed=1)
    params = draw_variables(lenet.TableConv(), x.shape)["params"]
    dx, dkernel = jax.vjp(lenet._table_conv, x, params["kernel"])[1](g)
    want_dx, want = reference.conv_gradients(x, dense_kernel(params["kernel"]), np.asarray(g))
    np.testing.assert_allclose(dx, want_dx, atol=2e-5)
    np.testing.assert_allclose(dense_kernel(dkernel)[:, :, TABLE], want[:, :, TABLE], atol=2e-4)


def test_subsampling_and_squashing_by_hand():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    params = {"scale": jnp.array([0.5]), "bias": jnp.array([-1.0])}
    y = lenet.Subsample().apply({"params": params}, x)
    assert y[0, :, :, 0].tolist() == [[4.0, 8.0], [20.0, 24.0]]  # (0+1+4+5)/2 - 1, ...
    np.testing.assert_allclose(lenet.squash(jnp.array([-1.0, 0.0, 1.0])), [-1, 0, 1], atol=1e-4)


def test_digits_are_ten_distinct_patterns_of_84_signs():
    digits = lenet.digit_bitmaps()
    assert digits.shape == (10, 84)
    assert set(np.unique(digits)) == {-1.0, 1.0}
    differences = (digits[:, None] != digits[None]).sum(-1) + 84 * np.eye(10)
    assert differences.min() >= 4


def test_radial_units_rank_the_nearest_digit_first(network, run):
    """With F6 at (nearly) a digit's pattern the logits are minus the distances to all digits."""
    _, variables = network
    digits = lenet.digit_bitmaps()
    f6 = {"kernel": jnp.zeros((120, 84)), "bias": jnp.asarray(digits[7])}
    logits, _ = run({"params": {**variables["params"], "f6": f6}}, draw_images((1, 32, 32, 1)))
    want = -4.0 * (digits != digits[7]).sum(-1)
    np.testing.assert_allclose(logits[0], want, atol=0.1)
    assert logits[0].argmax() == 7


def test_losses_by_hand():
    logits, labels = jnp.array([[-1.0, -4.0, -9.0]]), jnp.array([1])
    np.testing.assert_allclose(lenet.mse_loss(logits, labels), [4.0])
    want = 4 + np.log(np.exp(-0.5) + np.exp(-1) + np.exp(-4) + np.exp(-9))
    np.testing.assert_allclose(lenet.map_loss(logits, labels, j=0.5), [want], rtol=1e-6)
    with pytest.raises(ValueError, match="j is 0"):
        lenet.map_loss(logits, labels, j=0)


def test_initial_values_lie_within_the_papers_bounds():
    model = jaxcnn.create_model("lenet5_1998")
    params = compile_init(lambda key: model.init(key, jnp.zeros((1, 32, 32, 1)))["params"])(
        jax.random.key(0)
    )
    for layer, fan_in in (("c1", 25), ("s2", 4), ("s4", 4), ("c5", 400), ("f6", 120)):
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(params[layer]))
        assert 0.6 * 2.4 / fan_in < largest <= 2.4 / fan_in
    c3 = dense_kernel(params["c3"]["kernel"])
    np.testing.assert_array_less(np.abs(c3).max((0, 1, 2)), 2.4 / 25 / TABLE.sum(0) + 1e-7)
    np.testing.assert_array_less(0.8 * 2.4 / 25 / TABLE.sum(0), np.abs(c3).max((0, 1, 2)))


@pytest.mark.parametrize("name", ["lenet5_1998", "lenet5_modern"])
def test_a_28x28_image_is_one_of_32x32_with_a_border_of_zeros(name):
    model = jaxcnn.create_model(name)
    variables = draw_variables(model, (1, 32, 32, 1))
    images = draw_images((2, 28, 28, 1))
    apply = jax.jit(model.apply)
    padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(apply(variables, images), apply(variables, padded), rtol=1e-5)


def test_softmax_head_and_features():
    model = jaxcnn.create_model("lenet5_1998", head="softmax", num_classes=3)
    variables = draw_variables(model, (1, 32, 32, 1))
    assert variables["params"]["output"]["kernel"].shape == (84, 3)
    for head in ("rbf", "softmax"):
        features = jaxcnn.create_model("lenet5_1998", head=head, num_classes=0)
        out = jax.eval_shape(features.apply, variables, jnp.zeros((1, 32, 32, 1)))
        assert out.shape == (1, 84)


def test_modern_form_with_tanh_and_average_pooling_equals_the_slow_one():
    model = jaxcnn.create_model("lenet5", act="tanh", pool="avg")
    variables = draw_variables(model, (1, 32, 32, 1))
    images = draw_images((2, 32, 32, 1))
    p = jax.tree.map(np.asarray, variables["params"])
    x = images
    for layer in ("conv1", "conv2"):
        x = np.tanh(reference.conv(x, p[layer]["kernel"], bias=p[layer]["bias"]))
        x = reference.avg_pool(x, 2, 2)
    x = x.reshape(2, -1)
    for layer in ("fc1", "fc2"):
        x = np.tanh(x @ p[layer]["kernel"] + p[layer]["bias"])
    x = x @ p["fc3"]["kernel"] + p["fc3"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), x, atol=2e-5)


def test_caffes_form_equals_the_slow_one():
    model = jaxcnn.create_model("lenet_caffe")
    variables = draw_variables(model, (1, 28, 28, 1))
    images = draw_images((2, 28, 28, 1))
    p = jax.tree.map(np.asarray, variables["params"])
    x = images
    for layer in ("conv1", "conv2"):
        x = reference.conv(x, p[layer]["kernel"], bias=p[layer]["bias"])
        x = reference.max_pool(x, 2, 2)
    x = reference.relu(x.reshape(2, -1) @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    x = x @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), x, atol=5e-5)


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("lenet5_1998", {}, 30, "images are 30x30; LeNet-5 takes 32x32 or 28x28"),
        ("lenet_caffe", {}, 32, "images are 32x32; Caffe's LeNet takes 28x28"),
        ("lenet5_1998", {"num_classes": 100}, 32, "num_classes is 100; .*head='softmax'"),
        ("lenet5_1998", {"head": "softmx"}, 32, "head is 'softmx'.*did you mean 'softmax'"),
        ("lenet5", {"act": "rlu"}, 32, "act is 'rlu'; did you mean 'relu'"),
        ("lenet5", {"pool": "mean"}, 32, "pool is 'mean'; it must be one of max, avg"),
    ],
)
def test_bad_input_is_named(name, options, size, message):
    model = jaxcnn.create_model(name, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))
