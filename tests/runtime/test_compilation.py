import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SHAPE, Tiny

from jaxcnn.runtime import compilation


def test_unknown_options_are_left_out(monkeypatch):
    level = {"xla_backend_optimization_level": 0}
    planted = {"xla_no_such_option": 1, "xla_cpu_opt_preset": "NO_SUCH_PRESET", **level}
    assert compilation.accepted(planted) == level
    monkeypatch.setattr(compilation, "CPU_STEP", planted)
    monkeypatch.setattr(compilation, "CPU_INIT", planted)
    x = np.float32([1, 2])
    for compile_ in (compilation.jit, compilation.compile_init):
        double = compile_(lambda x: 2 * x)
        np.testing.assert_array_equal(double(x), [2, 4])
        np.testing.assert_array_equal(double.lower(x).compile()(x), [2, 4])


@pytest.mark.parametrize("compile_", [compilation.jit, compilation.compile_init])
def test_options_reach_the_compiler(monkeypatch, compile_):
    monkeypatch.setattr(compilation, "accepted", lambda options: {"xla_no_such_option": 1})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        compile_(lambda x: x + 1)(1.0)


def test_environment_is_left_alone_and_goes_first(monkeypatch):
    before = os.environ["XLA_FLAGS"]
    compilation.jit(lambda x: x + 1)(1.0)
    assert os.environ["XLA_FLAGS"] == before
    level = {"xla_backend_optimization_level": 0}
    monkeypatch.setenv("XLA_FLAGS", before + " --xla_backend_optimization_level=2")
    assert compilation.accepted(level) == {}


def test_initial_values_are_those_of_an_ordinary_jit_to_the_last_bits():
    images = jnp.zeros((1, *SHAPE))
    chex.assert_trees_all_close(
        compilation.compile_init(Tiny().init)(jax.random.key(0), images),
        jax.jit(Tiny().init)(jax.random.key(0), images),
        rtol=0,
        atol=1e-6,
    )
