"""BatchNorm in each platform's form against Flax's own and against its formula in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops import BatchNorm, BatchNormAct

EPSILON = 1e-3
OPTIONS = {"use_running_average": False, "momentum": 0.7, "epsilon": EPSILON}


@pytest.fixture(params=["cpu", "gpu"])
def form(request, monkeypatch):
    """The form of a platform, here on the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(3)
    x, g, skip = (jnp.asarray(rng.standard_normal((4, 6, 5, 3)), dtype) for _ in range(3))
    params = {"scale": [0.5, 2.0, -1.0], "bias": [0.0, 1.0, 3.0]}
    variables = {"params": params, "batch_stats": {"mean": [0.0, 1.0, 2.0], "var": [1.0, 2.0, 3.0]}}
    variables = {
        kind: {name: jnp.asarray(values, jnp.float32) for name, values in leaves.items()}
        for kind, leaves in variables.items()
    }
    return 2 * x + 1, g, skip, variables


class Flax(nn.Module):
    """Flax's BatchNorm, then the shortcut and the ReLU."""

    dtype: jnp.dtype = jnp.float32
    relu: bool = False

    @nn.compact
    def __call__(self, x, *skip):
        y = nn.BatchNorm(dtype=self.dtype, **OPTIONS, name="bn")(x)
        y = sum(skip, y)
        return nn.relu(y) if self.relu else y


def kind_of(behind):
    return BatchNormAct if "relu" in behind else BatchNorm


def outputs_and_gradients(module, x, g, variables, *skip):
    def run(x, params, *skip):
        stats = {"batch_stats": variables["batch_stats"]}
        return module.apply({"params": params, **stats}, x, *skip, mutable=["batch_stats"])

    y, pull, updated = jax.vjp(run, x, variables["params"], *skip, has_aux=True)
    return y, updated["batch_stats"], *pull(g)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("behind", ["nothing", "relu", "shortcut and relu"])
def test_same_as_flax(dtype, behind, form):
    x, g, skip, variables = inputs(dtype)
    skips = (skip,) if "shortcut" in behind else ()
    ours = jax.jit(lambda *a: outputs_and_gradients(kind_of(behind)(dtype=dtype, **OPTIONS), *a))(
        x, g, variables, *skips
    )
    inside = {kind: {"bn": values} for kind, values in variables.items()}
    theirs = jax.jit(lambda *a: outputs_and_gradients(Flax(dtype, "relu" in behind), *a))(
        x, g, inside, *skips
    )
    theirs = [part["bn"] if isinstance(part, dict) else part for part in theirs]
    assert jax.tree.structure(list(ours)) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        rounding = 1e-5 if a.dtype == jnp.float32 and dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=rounding, atol=rounding
        )


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_closed_form(platform, monkeypatch):
    """Ioffe & Szegedy 2015, algorithm 1 and the derivatives below it, by NumPy in float64."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    x, g, _, variables = inputs()
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


@pytest.mark.parametrize("options", [{"use_scale": False}, {"use_bias": False}])
def test_without_scale_or_bias(options, form):
    x, g, _, variables = inputs()
    absent = "scale" if "use_scale" in options else "bias"
    given = {**variables, "params": {k: v for k, v in variables["params"].items() if k != absent}}
    plain = dict(variables["params"], **{absent: jnp.full(3, float(absent == "scale"))})
    ours = outputs_and_gradients(BatchNorm(**OPTIONS, **options), x, g, given)
    whole = outputs_and_gradients(BatchNorm(**OPTIONS), x, g, {**variables, "params": plain})
    assert set(ours[3]) == set(given["params"])
    for a, b in zip((ours[0], ours[2]), (whole[0], whole[2])):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def assert_close(found, want):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", ["vmap", "remat"])
def test_under_transformations(wrap, form):
    x, g, skip, variables = inputs()

    def run(x, g, skip, kind=BatchNormAct):
        return outputs_and_gradients(kind(**OPTIONS), x, g, variables, skip)

    if wrap == "vmap":
        several = [jnp.stack([a, 2 * a]) for a in (x, g, skip)]
        found = jax.vmap(run)(*several)
        want = [run(*(a[i] for a in several)) for i in range(2)]
        assert_close(found, jax.tree.map(lambda *leaves: jnp.stack(leaves), *want))
    else:
        assert_close(run(x, g, skip, nn.remat(BatchNormAct)), run(x, g, skip))


@pytest.mark.parametrize("axis_name", [None, "devices"])
def test_devices_share_a_batch_or_have_their_own(axis_name, form):
    x, g, skip, variables = inputs()
    module = BatchNormAct(axis_name=axis_name, **OPTIONS)

    def step(x, g, skip):
        y, stats, dx, dparams, dskip = outputs_and_gradients(module, x, g, variables, skip)
        return (y, dx, dskip), jax.lax.psum(dparams, "devices"), jax.lax.pmean(stats, "devices")

    shares = [a.reshape(2, 2, *a.shape[1:]) for a in (x, g, skip)]
    images, dparams, stats = jax.pmap(step, "devices")(*shares)
    group = 2 if axis_name is None else None
    whole = BatchNormAct(group=group, **OPTIONS)
    y, want_stats, dx, want_dparams, dskip = outputs_and_gradients(whole, x, g, variables, skip)
    assert_close(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), images), (y, dx, dskip))
    for found, want in ((dparams, want_dparams), (stats, want_stats)):
        assert_close(jax.tree.map(lambda a: a[0], found), want)


def test_a_group_has_to_be_there(form):
    x, _, _, variables = inputs()
    for group, message in ((8, "a group is 8 examples, but there are 4"), (3, "do not fit")):
        with pytest.raises(ValueError, match=message):
            BatchNorm(group=group, **OPTIONS).apply(variables, x, mutable=["batch_stats"])


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def test_types_of_parameters_and_gradients(form, float64):
    """Whatever the types of images and shortcut."""
    x, g, skip, variables = inputs()
    module = BatchNormAct(dtype=jnp.float64, **OPTIONS)
    made = module.init(jax.random.key(0), x.astype(jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    given = x.astype(jnp.float64), g.astype(jnp.float64), variables, skip.astype(jnp.bfloat16)
    y, _, dx, dparams, dskip = outputs_and_gradients(module, *given)
    assert (y.dtype, dx.dtype, dskip.dtype) == ("float64", "float64", "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(dparams)} == {jnp.dtype("float32")}


def program(*behind):
    x, g, skip, variables = inputs()
    module = kind_of(behind)(**OPTIONS)
    skips = (skip,) if "shortcut" in behind else ()
    return str(
        jax.make_jaxpr(lambda *a: outputs_and_gradients(module, *a))(x, g, variables, *skips)
    )


def test_sums_of_rows_on_a_cpu():
    """The program adds up over the rows alone, in both directions."""
    text = program()
    assert "reduce_sum[axes=(0,)" in text and "axes=(0, 1, 2)" not in text


@pytest.mark.parametrize("behind", [(), ("relu",), ("relu", "shortcut")])
def test_one_pass_a_direction_on_a_gpu(behind, monkeypatch):
    """Both sums of a direction are one operation, and nothing else is added up over images."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = program(*behind)
    assert text.count("reduce[") == 2 and "reduce_sum[axes=(0, 1, 2)" not in text
