"""The initialization by arrays is that of `model.init`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
from jaxcnn.runtime import compilation, initialization
from jaxcnn.training.state import initializer
from tests.ops.whole_step import float64

NETWORKS = {
    "lenet5_1998": (32, {"head": "softmax"}),  # a uniform distribution
    "alexnet": (224, {"widths": (4, 8, 8, 8, 8), "fc_width": 16}),  # biases of 1
    "resnet20_cifar": (8, {"blocks": (2, 1, 1), "width": 4, "stem": (4,)}),
    "se_resnet50": (32, {"blocks": (1, 1, 1, 1), "width": 8, "stem": (8,)}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_arrays_are_those_of_init(name):
    size, options = NETWORKS[name]
    model = jaxcnn.create_model(name, num_classes=5, **options)
    images = jnp.zeros((1, size, size, model.channels))

    def init(key):
        return model.init(key, images)

    expected = compilation.compile_init(init)(jax.random.key(3))
    for key in (jax.random.key(3), jax.random.PRNGKey(3)):
        found = initialization.run_by_array(init)(key)
        chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
        chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=0)


def test_any_function_of_a_key():
    """Split keys, data without a key, results that depend on each other, and constants."""
    table = np.arange(6.0).reshape(2, 3)

    def fn(key):
        first, second = jax.random.split(key)
        drawn = jax.random.truncated_normal(first, -2, 2, (2, 3))
        return {
            "drawn": drawn, "again": drawn, "of another": drawn * drawn.sum() + table,
            "integers": jax.random.randint(second, (3,), 0, 9), "zeros": jnp.zeros((2, 3)),
            "range": jnp.arange(4), "number": jnp.float32(2), "table": jnp.asarray(table),
        }  # fmt: skip

    chex.assert_trees_all_close(
        initialization.run_by_array(fn)(jax.random.key(0)), fn(jax.random.key(0)), rtol=1e-6
    )


def test_equal_shapes_share_a_program(monkeypatch):
    monkeypatch.setattr(initialization, "_programs", {})
    model = jaxcnn.create_model("resnet20_cifar", width=4, stem=(4,))
    init = initialization.run_by_array(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3))))
    kernels = [a for a in jax.tree.leaves(init(jax.random.key(0))["params"]) if a.ndim > 1]
    assert len(kernels) == 20
    assert len(initialization._programs) == len({a.shape for a in kernels})
    init(jax.random.key(1))
    assert len(initialization._programs) == len({a.shape for a in kernels})


def test_every_array_of_a_state_can_be_donated():
    """The running average begins with the weights, and momentum with equal zeros."""
    model = jaxcnn.create_model("lenet5")
    init = initializer(model, optax.adam(1e-3), (1, 32, 32, 1), ema=True)
    state = init(jax.random.key(0))
    chex.assert_trees_all_equal(state.ema["params"], state.params)
    kept = jax.device_get(state)
    moved = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), donate_argnums=0)(state)
    chex.assert_trees_all_equal(moved, kept)


def test_it_runs_where_and_with_the_types_that_the_caller_set():
    """JAX's context managers are those of a thread."""
    model = jaxcnn.create_model("lenet5")
    init = initialization.run_by_array(lambda key: model.init(key, jnp.zeros((1, 32, 32, 1))))
    expected = init(jax.random.key(0))
    second = jax.devices()[1]
    with jax.default_device(second):
        found = init(jax.random.key(0))
    assert {device for array in jax.tree.leaves(found) for device in array.devices()} == {second}
    chex.assert_trees_all_equal(found, expected)
    placed = init(jax.device_put(jax.random.key(0), second))
    chex.assert_trees_all_equal(placed, expected)
    assert placed["params"]["conv1"]["kernel"].devices() == {second}
    with float64():
        draw = initialization.run_by_array(lambda key: jax.random.normal(key, (3, 4), jnp.float64))
        assert draw(jax.random.key(0)).dtype == jnp.float64


def test_without_jit_it_is_the_function_itself():
    init = initialization.run_by_array(lambda key: jax.random.normal(key, (3,)))
    with jax.disable_jit():
        found = init(jax.random.key(0))
    chex.assert_trees_all_close(found, init(jax.random.key(0)), rtol=1e-6)


def test_transformations_work_on_it():
    init = initialization.run_by_array(lambda key: jax.random.normal(key, (3,)))
    keys = jax.random.split(jax.random.key(0), 2)
    found = jax.jit(jax.vmap(init))(keys)
    chex.assert_trees_all_close(found, jnp.stack([init(key) for key in keys]), rtol=1e-6)
