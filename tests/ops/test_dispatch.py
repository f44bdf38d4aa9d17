"""Which implementation a program holds, and the switch between them."""

import collections
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn import ops
from jaxcnn.ops import BatchNormAct, dispatch


def counts(function, *args, platform):
    """{kind of operation: how many} of the program lowered for a platform."""
    text = jax.jit(lambda *args: function(*args)).trace(*args)
    text = text.lower(lowering_platforms=(platform,)).as_text()
    return collections.Counter(re.findall(r"stablehlo\.(\w+)", text))


def with_gradients(function):
    def both(*args):
        y, pull = jax.vjp(function, *args)
        return y, pull(y)

    return both


def of_reference(function, *args, platform):
    with ops.use("reference"):
        return counts(function, *args, platform=platform)


def ones(*shape):
    return jnp.ones(shape, jnp.float32)


OPERATIONS = {
    "2 groups": (functools.partial(ops.conv, padding=1, groups=2), ones(1, 32, 32, 64),
                 ones(3, 3, 32, 64)),
    "32 groups": (functools.partial(ops.conv, padding=1, groups=32), ones(1, 8, 8, 64),
                  ones(3, 3, 2, 64)),
    "1x1": (functools.partial(ops.conv, stride=2), ones(1, 5, 5, 2), ones(1, 1, 2, 3)),
    "few channels": (functools.partial(ops.conv, padding=1), ones(1, 9, 9, 3), ones(3, 3, 3, 4)),
    "Winograd's": (functools.partial(ops.conv, padding=1), ones(4, 14, 14, 128),
                   ones(3, 3, 128, 128)),
    "stem": (functools.partial(ops.conv, stride=2, padding=3), ones(1, 16, 16, 3),
             ones(7, 7, 3, 8)),
    "average": (functools.partial(ops.avg_pool, window=3, stride=1), ones(1, 7, 7, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tpu_gets_the_reference(name):
    """Operation by operation, in both directions: nothing of a CPU's or a GPU's is there."""
    function, *args = OPERATIONS[name]
    found = counts(with_gradients(function), *args, platform="tpu")
    want = of_reference(with_gradients(function), *args, platform="tpu")
    for kind in ("convolution", "dot_general", "concatenate", "reduce_window", "slice", "gather"):
        assert found[kind] == want[kind], kind
    if "average" not in name:
        assert found["convolution"] == 3


@pytest.mark.parametrize("name", ["2 groups", "max"])
def test_operations_are_evaluated_with_jit_disabled(name):
    """As JAX_DISABLE_JIT=1 does for debugging: in both directions, with the same results."""
    pool = functools.partial(ops.max_pool, window=3, stride=2), ones(1, 7, 7, 2)
    function, *args = pool if name == "max" else OPERATIONS[name]
    expected = jax.jit(with_gradients(function))(*args)
    with jax.disable_jit():
        found = with_gradients(function)(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_max_pooling_promotes_no_type(window, stride):
    pool = with_gradients(functools.partial(ops.max_pool, window=window, stride=stride))
    with jax.numpy_dtype_promotion("strict"):
        jax.jit(pool)(ones(1, 8, 8, 2))


def test_max_pooling_on_a_tpu_is_xlas_own():
    pool = with_gradients(functools.partial(ops.max_pool, window=3, stride=2))
    found = counts(pool, ones(1, 7, 7, 2), platform="tpu")
    assert found["select_and_scatter"] == 1 and found["pad"] == 0


def test_a_cpu_gets_its_own():
    for name, kind in (("32 groups", "dot_general"), ("1x1", "dot_general"),
                       ("Winograd's", "dot_general")):  # fmt: skip
        function, *args = OPERATIONS[name]
        assert counts(with_gradients(function), *args, platform="cpu")[kind] > 0
    function, *args = OPERATIONS["Winograd's"]
    assert counts(with_gradients(function), *args, platform="cpu")["convolution"] == 0


def test_a_gpu_gets_its_own():
    pool = with_gradients(functools.partial(ops.max_pool, window=3, stride=2))
    found = counts(pool, ones(1, 7, 7, 2), platform="cuda")
    assert found["select_and_scatter"] == found["reduce_window"] == 0
    for name, wide in (("stem", "tensor<4x4x16x8xf32>"), ("32 groups", "tensor<3x3x64x64xf32>")):
        function, *args = OPERATIONS[name]
        lowered = jax.jit(with_gradients(function)).trace(*args)
        text = lowered.lower(lowering_platforms=("cuda",)).as_text()
        assert wide in text and text.count("stablehlo.convolution") == 3
        assert "dot_general" not in text and "concatenate" not in text


def test_networks_under_vmap_share_a_convolution_on_a_gpu():
    """Eight of 16 channels, four at a time, in the forward pass and in both gradients."""
    one = jax.vmap(functools.partial(ops.conv, padding=1))
    args = ones(8, 2, 6, 6, 16), ones(8, 3, 3, 16, 16)
    text = jax.jit(with_gradients(one)).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    assert "tensor<3x3x64x128xf32>" in text
    assert text.count("stablehlo.convolution") == 3 and text.count("_group_count = 2 ") == 3


def test_batch_norm_on_a_gpu_takes_one_pass_a_direction():
    """Both sums of a direction are one operation over the images."""
    module = BatchNormAct(use_running_average=False)
    x = ones(4, 6, 6, 8)
    variables = module.init(jax.random.key(0), x)

    def run(params, x):
        given = {**variables, "params": params}
        return module.apply(given, x, mutable=["batch_stats"])[0]

    lowered = jax.jit(with_gradients(run)).trace(variables["params"], x)
    text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    over_images = re.findall(r"stablehlo\.reduce\([^\n]*dimensions = \[0, 1, 2\]", text)
    pairs = [line for line in over_images if line.count(" init:") == 2]
    assert len(pairs) == 2


@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
@pytest.mark.parametrize("name, size, options", [
    ("resnext29_8x64d_cifar", 8, {"blocks": (1, 1, 1), "width": 16, "stem": (8,), "groups": 8}),
    ("vgg_b_bn", 32, {"widths": (8, 128, 8, 8, 8), "fc_width": 16, "min_size": 32}),
])  # fmt: skip
def test_network_lowered_for_a_platform_that_is_not_here(name, size, options, platform):
    """Its training step has the reference's convolutions and products, and no more."""
    model = jaxcnn.create_model(name, **options)
    images = draw_images((4, size, size, 3))
    variables = draw_variables(model, images.shape)

    def gradient(variables, images):
        def loss(params):
            given = {**variables, "params": params}
            logits, updated = model.apply(
                given, images, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            return jax.nn.logsumexp(logits, -1).mean(), updated

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    found = counts(gradient, variables, images, platform=platform)
    want = of_reference(gradient, variables, images, platform=platform)
    assert found["convolution"] == want["convolution"] > 10
    assert found["dot_general"] == want["dot_general"]
    if platform == "tpu":
        for kind in ("select_and_scatter", "gather", "scatter", "concatenate", "pad"):
            assert found[kind] == want[kind], kind


# --- the switch ---------------------------------------------------------------------------------


def pooled(x):
    return ops.max_pool(x, 3, 2)


def test_the_switch_is_part_of_the_key_of_a_compiled_function():
    compiled = jax.jit(pooled)
    x = ones(1, 9, 9, 2)

    def program():
        return compiled.lower(x).as_text()

    own = program()
    with ops.use("reference"):
        plain = program()
        with ops.use("platform"):
            assert program() == own
        assert program() == plain != own
    assert program() == own


def test_the_switch_turns_off_every_implementation():
    with ops.use("reference"):
        for function, *args in OPERATIONS.values():
            text = str(jax.make_jaxpr(with_gradients(function))(*args))
            assert "platform_index" not in text and "custom_" not in text
            assert " conv[" not in text


def test_an_unknown_mode_is_named():
    message = "'fast'; it must be one of platform, reference"
    with pytest.raises(ValueError, match=message), ops.use("fast"):
        pass


def test_the_environment_sets_the_mode(monkeypatch):
    for value, answer in (("reference", True), ("platform", False), ("", False)):
        monkeypatch.setenv("JAXCNN_OPS", value)
        assert dispatch.reference_requested() == answer


def test_a_mode_that_the_environment_cannot_mean(monkeypatch):
    monkeypatch.setenv("JAXCNN_OPS", "no")
    with pytest.raises(ValueError, match="JAXCNN_OPS is 'no'; it must be one of"):
        ops.conv(ones(1, 3, 3, 1), ones(1, 1, 1, 1))


# --- a linear function with its own transpose ---------------------------------------------------


def _forward(t, u, r, *, power):
    return (t * r**power + u,)


def _backward(g, r, *, power):
    return g * r**power, g


PAIR = dispatch.linear_pair("test_pair", _forward, _backward, counts=(2, 1), cpu=_backward)


def test_linear_pair_has_derivatives_of_every_order(float64):
    rng = np.random.default_rng(0)
    t, u, r, s = (rng.standard_normal((2, 3)) for _ in range(4))

    def own(t, u, r):
        return PAIR(t, u, r, power=3)[0]

    def plain(t, u, r):
        return _forward(t, u, r, power=3)[0]

    def derivatives(f, t, u, r):
        def loss(t, u, r):
            return jnp.sum(jnp.sin(f(t, u, r)))

        gradient = jax.grad(loss, (0, 1, 2))
        return (
            f(t, u, r), gradient(t, u, r), jax.jvp(f, (t, u, r), (s, s, s)),
            jax.jvp(gradient, (t, u, r), (s, u, t)), jax.hessian(loss, (0, 1, 2))(t, u, r),
            jax.vmap(gradient, (0, None, 0))(t, u[0], r),
            jax.vmap(gradient, (None, 1, 1))(t[:, 0], u, r),
            jax.vmap(jax.vmap(gradient))(t, u, r),
            jax.linear_transpose(lambda t: f(t, t, r), t)(s),
        )  # fmt: skip

    found, want = (jax.jit(functools.partial(derivatives, f))(t, u, r) for f in (own, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_no_images():
    """The shapes of a batch of 0 images, whose size says nothing about the other axes."""
    w, none = ones(3, 3, 3, 4), ones(0, 9, 9, 3)
    networks = jnp.stack([w, w])

    def loss(x, w):
        y = ops.conv(ops.conv(x, w, stride=2), ones(1, 1, 4, 4))
        return ops.max_pool(y, 2, 2).sum()

    for platform in ("cpu", "cuda", "tpu"):
        counts(jax.grad(loss), none, w, platform=platform)
    assert not jax.jit(jax.vmap(jax.grad(loss, 1), (None, 0)))(none, networks).any()
    assert jax.eval_shape(jax.vmap(loss, (0, None)), jnp.stack([none, none]), w).shape == (2,)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME", "strides": 2},
        {"padding": "VALID"},
        {"padding": "CIRCULAR"},
    ],
    ids=str,
)
def test_options_of_linen(options):
    x = jnp.asarray(draw_images((2, 7, 7, 3)), jnp.bfloat16)
    theirs = nn.Conv(4, (3, 3), dtype=jnp.bfloat16, **options)
    ours = theirs.clone(conv_general_dilated=ops.conv_general_dilated)
    variables = theirs.init(jax.random.key(0), x)
    y, wanted = ours.apply(variables, x), theirs.apply(variables, x)
    assert y.dtype == wanted.dtype
    np.testing.assert_allclose(np.float32(y), np.float32(wanted), rtol=2e-2, atol=2e-2)


def test_the_type_of_a_sum_is_passed_on():
    x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
    w = jnp.ones((3, 3, 2, 4), jnp.bfloat16)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "preferred_element_type": jnp.float32}
    assert ops.conv_general_dilated(x, w, (1, 1), "VALID", **options).dtype == jnp.float32


def test_numbers_of_numpy_and_cropping():
    x, w = ones(1, 9, 9, 48), ones(3, 3, 1, 48)
    one = np.int64(1)
    np.testing.assert_array_equal(
        ops.conv(x, w, groups=48, stride=one, padding=one), ops.conv(x, w, groups=48, padding=1)
    )
    np.testing.assert_array_equal(ops.max_pool(x, one * 2, one), ops.max_pool(x, 2, 1))
    np.testing.assert_array_equal(
        ops.conv(x, w, groups=48, padding=-1), ops.conv(x[:, 1:-1, 1:-1], w, groups=48)
    )


def test_batch_over_explicit_mesh_axes():
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("batch",), devices=jax.devices()[:2], axis_types=explicit)
    x, w = draw_images((4, 8, 8, 3)), draw_images((3, 3, 3, 4), seed=1)
    norm = BatchNormAct(use_running_average=False)
    variables = norm.init(jax.random.key(0), ones(1, 1, 1, 4))

    def loss(x, w):
        y, _ = norm.apply(variables, ops.conv(x, w, padding=1), mutable=["batch_stats"])
        return jnp.sin(ops.avg_pool(ops.max_pool(y, 2, 2), 3, 1, 1)).sum()

    wanted = jax.jit(jax.grad(loss, (0, 1)))(x, w)
    spec = jax.sharding.PartitionSpec
    with jax.sharding.set_mesh(mesh):
        x, w = jax.device_put(x, spec("batch")), jax.device_put(w, spec())
        found = jax.jit(jax.grad(loss, (0, 1)))(x, w)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
