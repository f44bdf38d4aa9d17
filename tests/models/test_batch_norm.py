"""BatchNorm in the platform's form against Flax's own and against its formula in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.batch_norm import BatchNorm

EPSILON = 1e-3
OPTIONS = {"use_running_average": False, "momentum": 0.7, "epsilon": EPSILON}


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(3)
    x, g = (jnp.asarray(rng.standard_normal((4, 6, 5, 3)), dtype) for _ in range(2))
    scale, bias = jnp.asarray([0.5, 2.0, -1.0]), jnp.asarray([0.0, 1.0, 3.0])
    stats = {"mean": jnp.asarray([0.0, 1.0, 2.0]), "var": jnp.asarray([1.0, 2.0, 3.0])}
    return 2 * x + 1, g, {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}


def outputs_and_gradients(module, x, g, variables):
    def run(x, params):
        stats = {"batch_stats": variables["batch_stats"]}
        return module.apply({"params": params, **stats}, x, mutable=["batch_stats"])

    y, pull, updated = jax.vjp(run, x, variables["params"], has_aux=True)
    return y, updated["batch_stats"], *pull(g)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_same_as_flax(dtype):
    given = inputs(dtype)
    ours, theirs = (
        jax.jit(lambda *a, m=m: outputs_and_gradients(m, *a))(*given)
        for m in (BatchNorm(dtype=dtype, **OPTIONS), nn.BatchNorm(dtype=dtype, **OPTIONS))
    )
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        rounding = 1e-5 if a.dtype == jnp.float32 and dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=rounding, atol=rounding
        )


def test_closed_form():
    """Ioffe & Szegedy 2015, algorithm 1 and the derivatives below it, by NumPy in float64."""
    x, g, variables = inputs()
    y, stats, dx, dparams = outputs_and_gradients(BatchNorm(**OPTIONS), x, g, variables)
    x, g = np.asarray(x, np.float64).reshape(-1, 3), np.asarray(g, np.float64).reshape(-1, 3)
    scale, bias = (np.asarray(variables["params"][k], np.float64) for k in ("scale", "bias"))
    deviation = np.sqrt(x.var(0) + EPSILON)
    unit = (x - x.mean(0)) / deviation
    want = scale / deviation * (g - g.mean(0) - unit * (g * unit).mean(0))
    np.testing.assert_allclose(y.reshape(-1, 3), unit * scale + bias, atol=1e-5)
    np.testing.assert_allclose(dx.reshape(-1, 3), want, atol=1e-5)
    np.testing.assert_allclose(dparams["scale"], (g * unit).sum(0), rtol=1e-5)
    np.testing.assert_allclose(dparams["bias"], g.sum(0), rtol=1e-5)
    running = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.7 * running["mean"] + 0.3 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.7 * running["var"] + 0.3 * x.var(0), rtol=1e-5)


def test_named_once_in_a_program():
    x, _, variables = inputs()
    module = BatchNorm(use_running_average=True, name="bn")
    names = {str(e.source_info.name_stack) for e in jax.make_jaxpr(module.apply)(variables, x).eqns}
    assert names and not any("bn/bn" in name for name in names)


def test_sums_of_rows_on_a_cpu():
    """The program adds up over the rows alone, in both directions."""
    x, g, variables = inputs()
    text = str(jax.make_jaxpr(lambda *a: outputs_and_gradients(BatchNorm(**OPTIONS), *a))(
        x, g, variables))  # fmt: skip
    assert "reduce_sum[axes=(0,)" in text and "axes=(0, 1, 2)" not in text
