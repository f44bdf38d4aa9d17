"""Every optimizer against a second implementation in NumPy, float64."""

import chex
import jax
import numpy as np
import pytest
from test_optimizers import PARAMS, gradients, run

from jaxcnn.training.optim.optimizers import OPTIMIZERS, make_optimizer

RATE, DECAY = 0.1, 0.05
CONSTANT = {"name": "constant", "learning_rate": RATE}


def norm(x):
    return np.sqrt(np.sum(x * x))


def ratio(p, way):
    """Scales the step of a matrix to the norm of the parameter."""
    return way * (norm(p) / norm(way) if p.ndim > 1 else 1)


def rmsprop(p, g, m, t):
    g = g + DECAY * p
    m["square"] = 0.9 * m.get("square", 1.0) + 0.1 * g * g
    m["way"] = 0.9 * m.get("way", 0) + RATE * g / np.sqrt(m["square"] + 1.0)
    return p - m["way"]


def adam_way(g, m, t, eps):
    m["first"] = 0.9 * m.get("first", 0) + 0.1 * g
    m["second"] = 0.999 * m.get("second", 0) + 0.001 * g * g
    return m["first"] / (1 - 0.9**t) / (np.sqrt(m["second"] / (1 - 0.999**t)) + eps)


def adam(p, g, m, t):
    return p - RATE * adam_way(g + DECAY * p, m, t, 1e-8)


def adamw(p, g, m, t):
    return p - RATE * (adam_way(g, m, t, 1e-8) + DECAY * p)


def lamb(p, g, m, t):
    return p - RATE * ratio(p, adam_way(g, m, t, 1e-6) + DECAY * p)


def lars(p, g, m, t):
    way = g + DECAY * p
    way = 0.001 * ratio(p, way) if p.ndim > 1 else way
    m["way"] = 0.9 * m.get("way", 0) + RATE * way
    return p - m["way"]


def lion(p, g, m, t):
    sign = np.sign(0.9 * m.get("way", 0) + 0.1 * g)
    m["way"] = 0.99 * m.get("way", 0) + 0.01 * g
    return p - RATE * (sign + DECAY * p)


SLOW = {f.__name__: f for f in (rmsprop, adam, adamw, lamb, lars, lion)}


@pytest.mark.parametrize("name", SLOW)
def test_five_steps(name):
    optimizer, _ = make_optimizer({"name": name, "weight_decay": DECAY}, CONSTANT, 9, 1, PARAMS)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.float64, PARAMS))
    memory = [{} for _ in leaves]
    for t, grads in enumerate(gradients(5), start=1):
        grads = [np.float64(g) for g in jax.tree.leaves(grads)]
        leaves = [SLOW[name](p, g, m, t) for p, g, m in zip(leaves, grads, memory)]
    expected = jax.tree.unflatten(tree, leaves)
    chex.assert_trees_all_close(run(optimizer, gradients(5)), expected, rtol=2e-5, atol=1e-6)


def test_rmsprop_makes_tensorflows_step():
    # One step of TensorFlow's: gradient 2, rate 0.1, decay 0.9, momentum 0.9, epsilon 1.
    params = {"kernel": np.float32([0.0])}
    optimizer, _ = make_optimizer({"name": "rmsprop"}, CONSTANT, 9, 1, params)
    update, _ = optimizer.update({"kernel": np.float32([2.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(update["kernel"], [-0.131876], atol=5e-7)


def test_muon_makes_the_step_of_a_kernel_orthogonal():
    rng = np.random.default_rng(0)
    params = {
        "conv": {"kernel": rng.standard_normal((3, 3, 2, 6)).astype(np.float32)},
        "bn": {"scale": np.ones(6, np.float32)},
    }
    grads = jax.tree.map(lambda p: rng.standard_normal(p.shape).astype(np.float32), params)
    optimizer, _ = make_optimizer({"name": "muon"}, CONSTANT, 9, 1, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    way = np.asarray(updates["conv"]["kernel"]).reshape(18, 6) / (-RATE * 0.2 * np.sqrt(18))
    # Five Newton-Schulz steps bring the singular values near 1 and keep the singular vectors.
    left, _, right = np.linalg.svd(grads["conv"]["kernel"].reshape(18, 6), full_matrices=False)
    inner = left.T @ way @ right.T
    assert np.diag(inner).min() > 0.6 and np.diag(inner).max() < 1.3
    np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=0.01)
    sign = np.sign(grads["bn"]["scale"])
    np.testing.assert_allclose(updates["bn"]["scale"], -RATE * sign, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_pulls_and_a_rate_of_zero_freezes(name):
    rates = [("conv/.*", 0), ("bn/scale", 0.5), ("bn/bias", 1)]
    options = {"name": name, "weight_decay": DECAY, "decay": "all"}
    whole, _ = make_optimizer(options, CONSTANT, 9, 1, PARAMS)
    parts, _ = make_optimizer(options | {"rates": rates}, CONSTANT, 9, 1, PARAMS)
    moved, _ = jax.jit(whole.update)(gradients(1)[0], whole.init(PARAMS), PARAMS)
    slower, _ = jax.jit(parts.update)(gradients(1)[0], parts.init(PARAMS), PARAMS)
    assert not np.any(slower["conv"]["kernel"])
    np.testing.assert_allclose(slower["bn"]["scale"], 0.5 * moved["bn"]["scale"], rtol=1e-6)
    np.testing.assert_array_equal(slower["bn"]["bias"], moved["bn"]["bias"])


def first_step(grads, **options):
    optimizer, _ = make_optimizer({"momentum": 0.0, **options}, CONSTANT, 9, 1, PARAMS)
    return optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0]


def test_clipping_by_the_norm_over_all_parameters():
    grads = gradients(1)[0]
    length = norm(np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)]))
    expected = jax.tree.map(lambda g: -RATE * g * 0.5 / length, grads)
    chex.assert_trees_all_close(first_step(grads, clip_norm=0.5), expected, rtol=1e-5)
    expected = jax.tree.map(lambda g: -RATE * g, grads)
    chex.assert_trees_all_close(first_step(grads, clip_norm=2 * length), expected, rtol=1e-5)


def test_adaptive_clipping_by_unit():
    grads = {
        "conv": {"kernel": np.float32([[3.0, 1e-3], [4.0, 0.0]])},
        "bn": jax.tree.map(np.zeros_like, PARAMS["bn"]),
    }
    found = first_step(grads, clip_adaptive=0.1)["conv"]["kernel"]
    limit = 0.1 * np.sqrt(1.0 + 0.25)  # a tenth of the norm of the first output's weights
    expected = -RATE * np.float32([[3 / 5 * limit, 1e-3], [4 / 5 * limit, 0.0]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
