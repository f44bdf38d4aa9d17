import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from tiny import SHAPE, Tiny

from jaxcnn.training.optim import optimizers, schedules
from jaxcnn.training.state import abstract_variables

PARAMS = {
    "conv": {"kernel": np.float32([[1.0, -2.0], [0.5, 3.0]])},
    "bn": {"scale": np.float32([1.5, 0.5]), "bias": np.float32([0.1, -0.2])},
}


def gradients(steps):
    rng = np.random.default_rng(0)
    draw = lambda p: rng.standard_normal(p.shape).astype(np.float32)  # noqa: E731
    return [jax.tree.map(draw, PARAMS) for _ in range(steps)]


def torch_sgd(grads, rates, *, momentum, nesterov, decays):
    """Second implementation, float64: L2 into the gradient, rate outside the momentum."""
    out, velocity = jax.tree.map(np.float64, PARAMS), None
    for g, rate in zip(grads, rates):
        g = jax.tree.map(lambda g, p, d: np.float64(g) + d * p, g, out, decays)
        first = velocity is None
        velocity = g if first else jax.tree.map(lambda v, g: momentum * v + g, velocity, g)
        way = jax.tree.map(lambda v, g: g + momentum * v, velocity, g) if nesterov else velocity
        out = jax.tree.map(lambda p, w, r=rate: p - r * w, out, way)
    return out


def run(optimizer, grads):
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for g in grads:
        updates, state = jax.jit(optimizer.update)(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    "decay, shares",
    [
        ("all", (1, 1, 1)),
        ("kernels", (1, 0, 0)),
        ((("bn/(scale|bias)", 0.5), (".*/kernel", 2)), (2, 0.5, 0.5)),
    ],
)
def test_sgd_with_coupled_decay_over_two_drops_of_the_rate(nesterov, decay, shares):
    optimizer, rate = optimizers.make_optimizer(
        {"name": "sgd", "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1, "decay": decay},
        {"name": "step", "learning_rate": 0.5, "boundaries_steps": (3, 5), "factor": 0.1},
        total_steps=8,
        steps_per_epoch=2.5,
        params=PARAMS,
    )
    rates = [0.5, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005, 0.005]
    np.testing.assert_allclose([rate(i) for i in range(8)], rates, rtol=1e-6)
    kernel, scale, bias = (0.1 * share for share in shares)
    decays = {"conv": {"kernel": kernel}, "bn": {"scale": scale, "bias": bias}}
    expected = torch_sgd(gradients(8), rates, momentum=0.9, nesterov=nesterov, decays=decays)
    chex.assert_trees_all_close(run(optimizer, gradients(8)), expected, rtol=1e-5, atol=1e-6)


def test_plain_descent():
    optimizer, _ = optimizers.make_optimizer(
        {"name": "sgd", "momentum": 0.0}, {"name": "constant", "learning_rate": 0.1}, 3, 1, PARAMS
    )
    grads = gradients(3)
    expected = jax.tree.map(lambda p, *g: p - 0.1 * sum(g), PARAMS, *grads)
    chex.assert_trees_all_close(run(optimizer, grads), expected, rtol=1e-5)


def test_decay_reaches_the_parameters_that_it_names():
    params = abstract_variables(Tiny(), (1, *SHAPE))["params"]
    assert set(jax.tree.leaves(optimizers.decay_multipliers("all", params))) == {1.0}
    found = optimizers.decay_multipliers("kernels", params)
    assert found == {
        "conv1": {"kernel": 1.0},
        "bn1": {"scale": 0.0, "bias": 0.0},
        "conv2": {"kernel": 1.0},
        "bn2": {"scale": 0.0, "bias": 0.0},
        "fc": {"kernel": 1.0, "bias": 0.0},
    }


@pytest.mark.parametrize(
    "decay, message",
    [
        ([(".*kernel", 1)], "none matches 'bn/bias': '.*kernel'"),
        ([(".*", 1), ("conv/.*", 0)], "several match 'conv/kernel': '.*', 'conv/.*'"),
        ([(".*", 1), ("head/.*", 0)], "'head/.*', which matches no parameter"),
        ([("(", 1)], "'(', not valid"),
        ("kernel", "optimizer.decay is 'kernel'; did you mean 'kernels'"),
    ],
)
def test_decay_must_cover_each_parameter_once(decay, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizers.decay_multipliers(decay, PARAMS)


def rates(schedule, steps=10, total=10, per_epoch=2.0, **options):
    rate = schedules.make_schedule(schedule, total, per_epoch, **options)
    return [float(jax.jit(rate)(jnp.int32(i))) for i in range(steps)]


def test_schedules_against_closed_forms():
    assert rates({"name": "constant", "learning_rate": 0.5}) == [0.5] * 10
    cosine = {"name": "cosine", "learning_rate": 0.4, "final": 0.25}
    expected = [0.4 * (0.25 + 0.75 * 0.5 * (1 + np.cos(np.pi * i / 10))) for i in range(10)]
    np.testing.assert_allclose(rates(cosine), expected, rtol=1e-5)
    warm = [0.1 + 0.3 * i / 4 for i in range(4)]
    expected = [0.4 * 0.5 * (1 + np.cos(np.pi * i / 6)) for i in range(6)]
    cosine = {"name": "cosine", "learning_rate": 0.4, "warmup_epochs": 2, "warmup_from": 0.1}
    np.testing.assert_allclose(rates(cosine), warm + expected, rtol=1e-5)


def test_further_schedules_against_closed_forms():
    exponential = {"name": "exponential", "learning_rate": 0.4, "factor": 0.94, "every_epochs": 2}
    expected = [0.4 * 0.94 ** (i / 4) for i in range(10)]
    np.testing.assert_allclose(rates(exponential), expected, rtol=1e-5)
    expected = [0.4 * 0.94 ** (i // 4) for i in range(10)]
    np.testing.assert_allclose(rates(exponential | {"staircase": True}), expected, rtol=1e-5)
    poly = {"name": "polynomial", "learning_rate": 0.4, "power": 2, "final": 0.1, "warmup_steps": 2}
    expected = [0, 0.2] + [0.04 + 0.36 * (1 - i / 8) ** 2 for i in range(8)]
    np.testing.assert_allclose(rates(poly), expected, rtol=1e-5)


@pytest.mark.parametrize("staircase", [False, True])
def test_a_warm_up_ends_where_the_decay_is(staircase):
    schedule = {"name": "exponential", "learning_rate": 0.4, "factor": 0.5, "every_steps": 3}
    schedule |= {"staircase": staircase, "warmup_steps": 5, "warmup_from": 0.1}
    done = [i // 3 if staircase else i / 3 for i in range(10)]
    end = 0.4 * 0.5 ** done[5]
    expected = [0.1 + (end - 0.1) * i / 5 for i in range(5)] + [0.4 * 0.5**d for d in done[5:]]
    np.testing.assert_allclose(rates(schedule), expected, rtol=1e-5)


def test_a_warm_up_ends_where_the_steps_are():
    schedule = {"name": "step", "learning_rate": 0.4, "factor": 0.1, "boundaries_steps": (3, 5)}
    expected = [0.004 * i / 5 for i in range(5)] + [0.004] * 5
    np.testing.assert_allclose(rates(schedule | {"warmup_steps": 5}), expected, rtol=1e-5)
    expected = [0.04 * i / 4 for i in range(5)] + [0.004] * 5
    np.testing.assert_allclose(rates(schedule | {"warmup_steps": 4}), expected, rtol=1e-5)


def test_the_rate_of_a_staircase_falls_at_its_step():
    every = 320_292  # GoogLeNet's; a division by it is inexact
    schedule = {"name": "exponential", "learning_rate": 1.0, "factor": 0.5, "staircase": True}
    rate = jax.jit(schedules.make_schedule(schedule | {"every_steps": every}, 10**7, 1.0))
    for k in (1, 2, 4, 7, 16, 28):
        before, after = (float(rate(jnp.int32(k * every + i))) for i in (-1, 0))
        np.testing.assert_allclose((before, after), (0.5 ** (k - 1), 0.5**k), rtol=1e-6)


def test_one_cycle_against_optax():
    schedule = {"name": "one_cycle", "learning_rate": 0.4, "start": 0.04, "final": 0.04 / 50}
    theirs = optax.cosine_onecycle_schedule(20, 0.4, 0.3, div_factor=25, final_div_factor=50)
    expected = [float(theirs(i)) for i in range(20)]
    np.testing.assert_allclose(rates(schedule, 20, 20), expected, rtol=1e-5, atol=1e-6)
    found = rates(schedule | {"rise_percent": 50}, 20, 20)
    assert np.argmax(found) == 10 and found[10] == pytest.approx(0.4)


def test_warm_up_of_resnet_110():
    # 0.01 for 400 steps, then 0.1, divided by 10 at 32k and 48k of 64k steps: He et al. 2016, 4.2.
    schedule = {"name": "step", "learning_rate": 0.1, "boundaries_steps": (32_000, 48_000)}
    schedule |= {"warmup": "constant", "warmup_steps": 400, "warmup_from": 0.01}
    rate = schedules.make_schedule(ConfigDict(schedule), 64_000, 390.625)
    at = [0, 399, 400, 31_999, 32_000, 47_999, 48_000, 63_999]
    expected = [0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose([rate(i) for i in at], expected, rtol=1e-6)


def test_durations_mean_the_same_in_every_unit():
    known = {"steps_per_epoch": 2.5, "batch_size": 4, "total_steps": 50}
    for field in ({"x_steps": 5}, {"x_epochs": 2}, {"x_examples": 20}, {"x_percent": 10}):
        assert schedules.duration(field, "x", **known) == 5
    assert schedules.duration({"x_epochs": (1, 1.5)}, "x", **known) == (2, 4)
    assert schedules.duration(ConfigDict({"x_percent": [50.0, 100]}), "x", **known) == (25, 50)
    assert schedules.duration({"x_steps": None}, "x", **known, default=7) == 7


@pytest.mark.parametrize(
    "config, message",
    [
        ({"x_steps": 5, "x_epochs": 1}, "x_steps and x_epochs are set"),
        ({"x_steps": -5}, "x_steps is -5"),
        ({"x_steps": "5"}, "x_steps is '5'; it must be a number"),
        ({"x_epochs": float("nan")}, "x_epochs is nan"),
        ({"x_examples": 5}, "the batch size is not known"),
        ({"x_percent": 5}, "the length of the run is not known"),
    ],
)
def test_bad_durations(config, message):
    with pytest.raises(ValueError, match=message):
        schedules.duration(config, "x", steps_per_epoch=2.5)
    with pytest.raises(ValueError, match="x_percent is 101; it must be 100 at most"):
        schedules.duration({"x_percent": 101}, "x", steps_per_epoch=2.5, total_steps=9)


PLATEAU = {"name": "plateau", "learning_rate": 1.0, "patience": 2, "factor": 0.1, "rtol": 0.01}


def plateau_rates(schedule, values, between=lambda state: state):
    """Rates after each observed value; a step is made between them, which must not count."""
    optimizer, rate = optimizers.make_optimizer(
        {"name": "sgd", "momentum": 0.9}, schedule, 100, 10, PARAMS
    )
    state, found = optimizer.init(PARAMS), []
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for value in values:
        state = optimizer.update(zero, state, PARAMS)[1]
        state = between(schedules.observe(schedule, state, value))
        found.append(float(schedules.learning_rate(rate, state, 0)))
    return found


# 0.5, 0.4, 0.3 and 0.1 improve by 1 % at least. Two others in a row, not apart, make a plateau.
VALUES = [0.5, 0.4, 0.4, 0.3, 0.3, 0.299, 0.35, 0.35, 0.1, 0.1]
EXPECTED = [1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]


def test_plateau_lowers_the_rate_when_nothing_improves():
    np.testing.assert_allclose(plateau_rates(PLATEAU, VALUES), EXPECTED, rtol=1e-5)
    cool = PLATEAU | {"cooldown": 1}
    expected = [1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1]
    np.testing.assert_allclose(plateau_rates(cool, VALUES), expected, rtol=1e-5)
    floor = PLATEAU | {"min_scale": 0.05}
    assert min(plateau_rates(floor, VALUES)) == pytest.approx(0.05)


def test_plateau_survives_being_written_and_read():
    def through_the_host(state):
        leaves, tree = jax.tree.flatten(state)
        return jax.tree.unflatten(tree, [np.array(leaf) for leaf in leaves])

    found = plateau_rates(PLATEAU, VALUES, between=through_the_host)
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-5)


def test_plateau_scales_the_update_and_takes_a_value_with_it():
    optimizer, _ = optimizers.make_optimizer(
        {"name": "sgd", "momentum": 0.0}, PLATEAU, 100, 10, PARAMS
    )
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    state, sizes = optimizer.init(PARAMS), []
    for _ in range(4):
        updates, state = optimizer.update(ones, state, PARAMS, value=0.5)
        sizes.append(float(updates["bn"]["bias"][0]))
    np.testing.assert_allclose(sizes, [-1, -1, -0.1, -0.1], rtol=1e-5)
    updates, _ = optimizer.update(ones, state, PARAMS)
    np.testing.assert_allclose(updates["bn"]["bias"], -0.1, rtol=1e-5)


def test_observing_changes_nothing_for_other_schedules():
    schedule = {"name": "cosine", "learning_rate": 0.1}
    optimizer, rate = optimizers.make_optimizer({"name": "sgd"}, schedule, 10, 1, PARAMS)
    state = optimizer.init(PARAMS)
    assert schedules.observe(schedule, state, 0.5) is state
    assert schedules.learning_rate(rate, state, 5) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "optimizer, schedule, message",
    [
        ({"name": "sdg"}, {}, "optimizer.name is 'sdg'; did you mean 'sgd'"),
        ({"momentun": 0.9}, {}, "field optimizer.momentun; did you mean 'momentum'"),
        ({"momentum": 1.0}, {}, r"optimizer.momentum is 1.0; it must be in \[0, 1\)"),
        ({"weight_decay": -1e-4}, {}, "optimizer.weight_decay is -0.0001"),
        ({}, {"name": "cosin"}, "schedule.name is 'cosin'; did you mean 'cos"),
        ({}, {"name": "exotic"}, "must be one of constant, step, exponential, cosine, poly"),
        ({}, {"learning_rate": None}, "schedule.learning_rate is missing"),
        ({}, {"learning_rate": -1.0}, "schedule.learning_rate is -1.0; it must be above 0"),
        ({}, {"name": "step"}, "'step' needs boundaries_steps"),
        ({}, {"name": "step", "boundaries_steps": (5, 3)}, "ascending"),
        (
            {},
            {"name": "step", "boundaries_steps": (5, 11)},
            r"\(5, 11\); it must be within",
        ),
        ({}, {"name": "step", "boundaries_epochs": 32_000}, r"\(32000,\); .* the run of 10 steps"),
        ({}, {"name": "step", "boundaries_steps": 5, "factor": 10}, "schedule.factor is 10"),
        ({"name": "adam", "momentum": 0.9}, {}, "unknown field optimizer.momentum"),
        ({"name": "rmsprop", "eps": 0.0}, {}, "optimizer.eps is 0.0; it must be above 0"),
        ({"clip_norm": 0.0}, {}, "optimizer.clip_norm is 0.0; it must be above 0"),
        ({"rates": [("conv/.*", 1)]}, {}, "optimizer.rates must cover each .* 'bn/bias'"),
        ({}, {"name": "exponential"}, "'exponential' needs every_steps"),
        ({}, {"name": "polynomial", "power": 0}, "schedule.power is 0; it must be above 0"),
        ({}, {"name": "one_cycle", "rise_steps": 10}, "rise, in steps is 10; it must be within"),
        ({}, {"name": "plateau", "patience": 0}, "schedule.patience is 0"),
        ({}, {"boundary_steps": (5,)}, "schedule.boundary_steps; did you mean 'boundaries_steps'"),
        ({}, {"warmup_steps": 11}, "warm-up in steps is 11; it must be within the run"),
        ({}, {"warmup_steps": 5, "warmup": "cubic"}, "schedule.warmup is 'cubic'"),
        ({}, {"warmup_steps": 5, "warmup_from": 2.0}, "schedule.warmup_from is 2.0"),
        ({}, {"warmup_steps": 5, "warmup": "constant"}, "schedule.warmup_from is 0.0; .* above 0"),
        ({}, {"name": "one_cycle", "warmup_steps": 5}, "warm-up in steps is 5; it must be 0 with"),
    ],
)
def test_bad_requests(optimizer, schedule, message):
    schedule = {"name": "constant", "learning_rate": 0.1} | schedule
    with pytest.raises(ValueError, match=message):
        optimizers.make_optimizer(optimizer, schedule, 10, 1, PARAMS)
