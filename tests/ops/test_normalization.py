"""BatchNorm against Flax's own and against its formula in float64; response normalization."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as definitions
from convolutions import close, draw

from jaxcnn import ops
from jaxcnn.ops import BatchNorm, BatchNormAct, normalization
from jaxcnn.runtime import compilation

EPSILON = 1e-3
OPTIONS = {"use_running_average": False, "momentum": 0.7, "epsilon": EPSILON}


@pytest.fixture(params=["platform", "reference", "gpu", "tpu"])
def form(request, monkeypatch):
    """What computes: this platform, the reference, or what a GPU or a TPU would run."""
    of_others = {"gpu": of_a_gpu, "tpu": of_a_tpu}
    if request.param in of_others:
        monkeypatch.setattr(normalization, "by_platform", of_others[request.param])
    with ops.use("reference" if request.param == "reference" else "platform"):
        yield request.param


def of_a_gpu(plain, *args, cpu=None, gpu=None):
    return (gpu or plain)(*args)


def of_a_tpu(plain, *args, cpu=None, gpu=None):
    return plain(*args)


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


def compiled(module, *args):
    return jax.jit(lambda *args: outputs_and_gradients(module, *args))(*args)


@functools.cache
def of_flax(dtype, relu, with_skip):
    """What Flax computes for `inputs(dtype)`."""
    x, g, skip, variables = inputs(dtype)
    inside = {kind: {"bn": values} for kind, values in variables.items()}
    found = jax.jit(lambda *a: outputs_and_gradients(Flax(dtype, relu), *a))(
        x, g, inside, *((skip,) if with_skip else ())
    )
    return [part["bn"] if isinstance(part, dict) else part for part in found]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("behind", ["nothing", "relu", "shortcut and relu"])
def test_same_as_flax(dtype, behind, form):
    x, g, skip, variables = inputs(dtype)
    skips = (skip,) if "shortcut" in behind else ()
    ours = jax.jit(lambda *a: outputs_and_gradients(kind_of(behind)(dtype=dtype, **OPTIONS), *a))(
        x, g, variables, *skips
    )
    theirs = of_flax(dtype, "relu" in behind, bool(skips))
    assert jax.tree.structure(list(ours)) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        rounding = 1e-5 if a.dtype == jnp.float32 and dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=rounding, atol=rounding
        )


def test_closed_form(form):
    """Ioffe & Szegedy 2015, algorithm 1 and the derivatives below it, by NumPy in float64."""
    x, g, _, variables = inputs()
    y, stats, dx, dparams = compiled(BatchNorm(**OPTIONS), x, g, variables)
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
    ours = compiled(BatchNorm(**OPTIONS, **options), x, g, given)
    whole = compiled(BatchNorm(**OPTIONS), x, g, {**variables, "params": plain})
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
        return compiled(kind(**OPTIONS), x, g, variables, skip)

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
    y, want_stats, dx, want_dparams, dskip = compiled(whole, x, g, variables, skip)
    assert_close(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), images), (y, dx, dskip))
    for found, want in ((dparams, want_dparams), (stats, want_stats)):
        assert_close(jax.tree.map(lambda a: a[0], found), want)


def test_a_group_has_to_be_there(form):
    x, _, _, variables = inputs()
    for group, message in ((8, "a group is 8 examples, but there are 4"), (3, "do not fit")):
        with pytest.raises(ValueError, match=message):
            BatchNorm(group=group, **OPTIONS).apply(variables, x, mutable=["batch_stats"])


def test_types_of_parameters_and_gradients(form, float64):
    """Whatever the types of images and shortcut."""
    x, g, skip, variables = inputs()
    module = BatchNormAct(dtype=jnp.float64, **OPTIONS)
    made = module.init(jax.random.key(0), x.astype(jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    given = x.astype(jnp.float64), g.astype(jnp.float64), variables, skip.astype(jnp.bfloat16)
    y, _, dx, dparams, dskip = compiled(module, *given)
    assert (y.dtype, dx.dtype, dskip.dtype) == ("float64", "float64", "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(dparams)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_gradient_in_two_passes_of_a_gpu(relu, skip, float64):
    """And over rows, of a CPU: the same sums."""
    x, g, mask = draw(4, 3, 3, 5), draw(4, 3, 3, 5, seed=1), draw(4, 3, 3, 5, seed=2) > 0
    mean, factor, bias = (draw(1, 1, 1, 5, seed=i) for i in (3, 4, 5))
    positive = mask if skip else (x - mean) * factor + bias > 0
    options = {"relu": relu or skip, "dtype": jnp.float64, "skip": skip}
    arguments = tuple(map(jnp.asarray, (g, x, mean, factor, bias, positive)))
    want = normalization._gradient(*arguments, **options)
    for gradient in (normalization._gradient_in_two_passes, normalization._gradient_by_rows):
        found = jax.jit(lambda *a, f=gradient: f(*a, **options))(*arguments)
        assert len(found) == len(want) == 4 + skip
        for a, b in zip(found, want):
            close(a, b)


@pytest.mark.parametrize("behind", ["nothing", "relu", "shortcut and relu"])
@pytest.mark.parametrize("group", [None, 2])
def test_every_derivative_is_the_references(behind, group, float64):
    """Forward mode, second and third derivatives, `vmap` of one argument and of all."""
    x, t, skip, tskip = (draw(4, 3, 3, 5, seed=i) for i in range(4))
    module = kind_of(behind)(dtype=jnp.float64, group=group, **OPTIONS)
    params = {"scale": draw(5, seed=5), "bias": draw(5, seed=6)}
    tparams = {"scale": draw(5, seed=7), "bias": draw(5, seed=8)}
    stats = {"mean": draw(5, seed=9), "var": np.abs(draw(5, seed=10))}

    def apply(params, x, skip):
        skips = (skip,) if "shortcut" in behind else ()
        variables = {"params": params, "batch_stats": stats}
        return module.apply(variables, x, *skips, mutable=["batch_stats"])

    def loss(*args):
        y, updated = apply(*args)
        return jnp.sum(jnp.sin(y)) + sum(jnp.sum(a**2) for a in jax.tree.leaves(updated))

    def run(*args):
        along = (tparams, t, tskip)
        gradient = jax.grad(loss, (0, 1, 2))
        hvp = lambda *args: jax.jvp(gradient, args, along)[1]  # noqa: E731
        several = jnp.stack([args[1], args[1][::-1] + 1, t])
        return (
            jax.jvp(apply, args, along), hvp(*args), jax.jvp(hvp, args, along)[1],
            jax.vmap(gradient, (None, 0, None))(args[0], several, args[2]),
            jax.vmap(hvp, (None, None, 0))(args[0], args[1], several),
        )  # fmt: skip

    found = jax.jit(lambda *args: run(*args))(params, x, skip)
    with ops.use("reference"):
        want = jax.jit(lambda *args: run(*args))(params, x, skip)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        close(a, b, rtol=1e-9, atol=1e-9)


# --- far from zero ------------------------------------------------------------------------------

FAR = [(10, 1e-5), (100, 1e-5), (1000, 1e-4)]


def far(mean):
    """Images of this mean and standard deviation 1, and their output in float64."""
    rng = np.random.default_rng(1)
    x = (mean + rng.standard_normal((8, 16, 16, 12))).astype(np.float32)
    wide = x.astype(np.float64)
    centered = wide - wide.mean((0, 1, 2))
    return jnp.asarray(x), centered / np.sqrt(wide.var((0, 1, 2)) + 1e-5)


@pytest.mark.parametrize("mean, limit", FAR)
def test_mean_far_from_zero(mean, limit, form):
    """With fresh running statistics, on a TPU once the running mean is near; the variance, too."""
    x, want = far(mean)
    module = BatchNorm(use_running_average=False, momentum=0.0)
    variables = module.init(jax.random.key(0), x)
    if form == "tpu":
        variables["batch_stats"]["mean"] = jnp.full(12, mean * 1.001)
    y, new = compilation.jit(lambda v, x: module.apply(v, x, mutable=["batch_stats"]))(variables, x)
    error = float(np.abs(y - want).max())
    print(f"mean/std {mean}, {form}: {error:.1e}")
    assert error < limit
    var = np.asarray(x, np.float64).var((0, 1, 2))
    np.testing.assert_allclose(new["batch_stats"]["var"], var, rtol=1e-5)


@pytest.mark.parametrize("mean, limit", FAR)
def test_mean_far_from_zero_of_four_devices(mean, limit):
    """Once the running mean is near; devices whose own means differ share their statistics."""
    x, want = far(mean)
    module = BatchNorm(use_running_average=False, momentum=0.9, axis_name="devices")
    statistics = {"mean": jnp.full(12, mean * 1.001), "var": jnp.ones(12)}
    variables = {"params": {"scale": jnp.ones(12), "bias": jnp.zeros(12)}}

    def run(x):
        given = {**variables, "batch_stats": statistics}
        return module.apply(given, x, mutable=["batch_stats"])

    y, _ = jax.pmap(run, "devices")(x.reshape(4, 2, *x.shape[1:]))
    error = float(np.abs(y.reshape(x.shape) - want).max())
    print(f"mean/std {mean}, four devices: {error:.1e}")
    assert error < limit


# --- response normalization ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 5, 16])
def test_response_normalization_as_printed(channels, form, float64):
    x = 30 * draw(2, 3, 4, channels)
    close(ops.local_response_norm(x), definitions.local_response_norm(x))


@pytest.mark.parametrize("n, k, alpha, beta", [(5, 1.0, 1e-4, 0.75), (3, 2.0, 1e-2, 0.5)])
def test_response_normalization_with_alpha_over_n(n, k, alpha, beta, form, float64):
    x = 30 * draw(2, 3, 4, 9)
    actual = ops.local_response_norm(x, n=n, k=k, alpha=alpha, beta=beta, alpha_div_n=True)
    close(actual, definitions.local_response_norm(x, n, k, alpha / n, beta))


def test_gradient_of_response_normalization_by_differences(form, float64):
    x, g, direction = 30 * draw(1, 2, 2, 7), draw(1, 2, 2, 7, seed=1), draw(1, 2, 2, 7, seed=2)
    gradient = jax.grad(lambda x: jnp.sum(ops.local_response_norm(x) * g))(x)
    ends = [
        np.sum(definitions.local_response_norm(x + sign * 1e-4 * direction) * g) for sign in (1, -1)
    ]
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / 2e-4, rtol=1e-8)


@pytest.mark.parametrize("n, k, alpha, beta", [(5, 1.0, 1e-2, 0.75), (4, 2.0, 1e-1, 0.5)])
def test_response_normalization_and_its_derivatives(n, k, alpha, beta, form, float64):
    x, t = 3 * draw(2, 3, 4, 9), draw(2, 3, 4, 9, seed=1)

    def run(x):
        def loss(x):
            return jnp.sum(jnp.sin(ops.local_response_norm(x, n=n, k=k, alpha=alpha, beta=beta)))

        return jax.jvp(loss, (x,), (t,)), jax.jvp(jax.grad(loss), (x,), (t,))

    found = jax.jit(lambda x: run(x))(x)
    with ops.use("reference"):
        want = jax.jit(lambda x: run(x))(x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        close(a, b)
