"""Inception modules and networks against the papers' tables: shapes, jaxprs, closed forms."""

import functools
import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal

import jaxcnn
from jaxcnn import layers
from jaxcnn.models import inception, inception_v3, registry
from jaxcnn.models.costs import count_macs, count_params
from jaxcnn.models.inception import Chain, Conv, Mixed, Pool, ResidualMixed

linear = layers.conv
rectified = functools.partial(layers.ConvBNAct, norm_act=None)


def image(size, channels=3):
    height, width = layers.pair(size)
    return jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)


@functools.cache
def shapes_of(model, size):
    shapes = jax.eval_shape(model.init, jax.random.key(0), image(size))
    return {k: v for k, v in shapes.items() if k != "endpoints"}


# Output of each module at the papers' sizes: (size, channels), where several follow each other
# alike only the last.
SHAPES = {
    "bn_inception": {
        "inception3a": (28, 256),
        "inception3b": (28, 320),
        "inception3c": (14, 576),
        "inception4a": (14, 576),
        "inception4b": (14, 576),
        "inception4c": (14, 576),
        "inception4d": (14, 576),
        "inception4e": (7, 1024),
        "inception5a": (7, 1024),
        "inception5b": (7, 1024),
        "stem": (28, 192),
        "stage1": (28, 320),
        "stage2": (14, 576),
        "stage3": (7, 1024),
    },
    "se_bn_inception": {
        "inception4b": (14, 576),
        "inception4c": (14, 608),
        "inception4d": (14, 608),
        "inception4e": (7, 1056),
        "inception5a": (7, 1024),
        "stage3": (7, 1024),
    },
    "inception_v3": {
        "entry": (35, 192),
        "mixed_5b": (35, 256),
        "mixed_5c": (35, 288),
        "mixed_5d": (35, 288),
        "mixed_6a": (17, 768),
        "mixed_6e": (17, 768),
        "mixed_7a": (8, 1280),
        "mixed_7b": (8, 2048),
        "mixed_7c": (8, 2048),
        "stem": (35, 192),
        "stage1": (35, 288),
        "stage2": (17, 768),
        "stage3": (8, 2048),
    },
    "inception_v4": {
        "entry/mixed1": (73, 160),
        "entry/mixed2": (71, 192),
        "stem": (35, 384),
        "stage1_block4": (35, 384),
        "reduction_a": (17, 1024),
        "stage2_block7": (17, 1024),
        "reduction_b": (8, 1536),
        "stage3_block3": (8, 1536),
        "stage1": (35, 384),
        "stage2": (17, 1024),
        "stage3": (8, 1536),
    },
    "inception_resnet_v1": {
        "stem": (35, 256),
        "stage1_block5": (35, 256),
        "reduction_a": (17, 896),
        "stage2_block10": (17, 896),
        "reduction_b": (8, 1792),
        "stage3_block5": (8, 1792),
        "stage3": (8, 1792),
    },
    "inception_resnet_v2": {
        "entry/mixed1": (35, 320),
        "stem": (35, 320),
        "stage1_block10": (35, 320),
        "reduction_a": (17, 1088),
        "stage2_block20": (17, 1088),
        "reduction_b": (8, 2080),
        "stage3_block10": (8, 2080),
        "stage3": (8, 2080),
    },
    "inception_resnet_v2_paper": {
        "stem": (35, 384),
        "reduction_a": (17, 1152),
        "stage2_block10": (17, 1152),
        "reduction_b": (8, 2144),
        "stage3_block5": (8, 2144),
    },
}
FEATURES = {
    "bn_inception": 1024,
    "se_bn_inception": 1024,
    "inception_v3": 2048,
    "inception_v4": 1536,
    "inception_resnet_v1": 1792,
    "inception_resnet_v2": 1536,
    "inception_resnet_v2_paper": 2144,
}


ONCE_MORE = ("se_bn_inception", "inception_resnet_v1", "inception_resnet_v2_paper")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ONCE_MORE)) for n in SHAPES]
)
def test_shapes_are_those_of_the_papers_tables(name):
    model = jaxcnn.create_model(name)
    size = jaxcnn.model_info(name).input_size[0]
    apply = functools.partial(
        model.apply,
        mutable=["endpoints", "intermediates"],
        capture_intermediates=lambda module, _: isinstance(module, (Mixed, ResidualMixed, Chain)),
    )
    _, state = jax.eval_shape(apply, shapes_of(model, size), image(size))
    modules = jax.tree_util.tree_leaves_with_path(state["intermediates"])
    found = {"/".join(k.key for k in path[:-2]): leaf.shape for path, leaf in modules}
    found |= {k: leaf.shape for k, leaf in state["endpoints"].items()}
    for key, (side, channels) in SHAPES[name].items():
        assert found[key] == (1, side, side, channels), key
    assert found["pre_logits"] == (1, FEATURES[name])
    assert found.get("aux1") == ((1, 1000) if model.aux_heads else None)


@pytest.mark.parametrize(
    "name, params",
    [("bn_inception", 11_178_336), ("inception_v3", 23_817_352), ("inception_v4", 42_648_232)],
)
def test_parameters_without_gamma_are_those_of_tf_slim(name, params):
    model = jaxcnn.create_model(name, gamma=False, aux_heads=False)
    assert count_params(shapes_of(model, 75)["params"]) == params


def test_auxiliary_head_costs_only_where_it_is_asked_for():
    model = jaxcnn.create_model("inception_v3")
    variables = shapes_of(model, 299)
    rngs = {"dropout": jax.random.key(0)}

    def macs(mutable):
        def forward(variables, x):
            return model.apply(variables, x, train=True, rngs=rngs, mutable=mutable)

        return count_macs(forward, variables, image(299))

    published = jaxcnn.model_info("inception_v3").macs
    head = 5 * 5 * 768 * 128 + 5 * 5 * 128 * 768 + 768 * 1000
    assert macs(["batch_stats"]) == published
    assert macs(["batch_stats", "endpoints"]) == published + head


@pytest.mark.parametrize(
    "name, size",
    [("inception_v3", 75), ("inception_resnet_v1", (139, 82)), ("bn_inception", (299, 36))],
)
def test_any_size_has_the_same_parameters(name, size):
    model = jaxcnn.create_model(name, aux_heads=name != "bn_inception")
    assert shapes_of(model, size) == shapes_of(model, 224)


def test_what_cannot_be_is_refused():
    for name in ("inception_v3", "inception_v4", "inception_resnet_v2"):
        with pytest.raises(ValueError, match=r"74x80; Inception.* needs at least 75x75"):
            shapes_of(jaxcnn.create_model(name), (74, 80))
    with pytest.raises(ValueError, match="BN-Inception has no auxiliary heads"):
        shapes_of(jaxcnn.create_model("bn_inception", aux_heads=True), 32)


def test_rematerialised_and_bfloat16_networks_have_the_same_float32_parameters():
    create = functools.partial(jaxcnn.create_model, "inception_resnet_v2", blocks=(1, 1, 1))
    plain, other = create(), create(remat=True, dtype=jnp.bfloat16)
    variables = shapes_of(other, 75)
    assert variables == shapes_of(plain, 75)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = functools.partial(other.apply, mutable=["endpoints"])
    logits, state = jax.eval_shape(apply, variables, image(75))
    assert logits.dtype == jnp.float32
    assert state["endpoints"]["stage3"].dtype == jnp.bfloat16


def unreached(model, size, endpoints):
    """Parameters whose gradient is the constant zero in the traced derivative."""
    variables = shapes_of(model, size)

    def loss(params, statistics, x):
        mutable = ["batch_stats", "endpoints"] if endpoints else ["batch_stats"]
        logits, state = model.apply(
            {"params": params, **statistics},
            x,
            train=True,
            mutable=mutable,
            rngs={"dropout": jax.random.key(0)},
        )
        heads = [v for k, v in state.get("endpoints", {}).items() if k.startswith("aux")]
        return jnp.sum(logits) + sum(map(jnp.sum, heads))

    statistics = {k: v for k, v in variables.items() if k != "params"}
    jaxpr = jax.make_jaxpr(jax.grad(loss))(variables["params"], statistics, image(size)).jaxpr
    zeros = {
        eqn.outvars[0]
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "broadcast_in_dim"
        and isinstance(eqn.invars[0], Literal)
        and eqn.invars[0].aval.dtype != jax.dtypes.float0
        and eqn.invars[0].val == 0
    }
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
    ]
    return [
        path
        for path, out in zip(paths, jaxpr.outvars, strict=True)
        if isinstance(out, Literal) or out in zeros
    ]


@pytest.mark.parametrize(
    "name, size, options",
    [
        ("se_bn_inception", 32, {}),
        ("inception_resnet_v2", 75, {"blocks": (1, 1, 1), "aux_heads": True}),
    ],
)
def test_gradient_reaches_every_parameter(name, size, options):
    model = jaxcnn.create_model(name, **options)
    assert not unreached(model, size, endpoints=True)
    if model.aux_heads:
        without = unreached(model, size, endpoints=False)
        assert without and all(path.startswith("aux") for path in without)


def test_factorised_convolutions_lie_along_their_axis_and_save_what_the_paper_says():
    x = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4].set(1.0)

    def spread(*steps):
        module = Chain(tuple(steps), linear)
        y, variables = module.init_with_output(jax.random.key(0), x)
        reached = np.argwhere(np.abs(np.asarray(y[0])).sum(-1) > 1e-7)
        kernels = sum(leaf.size for leaf in jax.tree.leaves(variables))
        return tuple(np.ptp(reached, axis=0) + 1), kernels

    assert spread(Conv(1, (1, 7))) == ((1, 7), 7)
    assert spread(Conv(1, (7, 1))) == ((7, 1), 7)
    full, factors = spread(Conv(1, 3)), spread(Conv(1, (1, 3)), Conv(1, (3, 1)))
    assert full[0] == factors[0] == (3, 3) and (full[1], factors[1]) == (9, 6)  # 33 % fewer
    full, factors = spread(Conv(1, 5)), spread(Conv(1, 3), Conv(1, 3))
    assert full[0] == factors[0] == (5, 5) and (full[1], factors[1]) == (25, 18)  # 28 %
    # Block B of Inception-v3: the short branch has 1x7 before 7x1, the long one the reverse.
    short, long = inception_v3.block_b(128)[1:3]
    assert [step.kernel for step in short] == [1, (1, 7), (7, 1)]
    assert [step.kernel for step in long] == [1, (7, 1), (1, 7), (7, 1), (1, 7)]


def test_scale_weighs_the_residual():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 5, 6)), jnp.float32)
    branches = ((Conv(3),), (Conv(2), Conv(4, (1, 3))))

    def block(scale, act):
        return ResidualMixed(branches, scale, rectified, layers.conv, act)

    variables = block(1.0, False).init(jax.random.key(1), x)
    assert variables["params"]["expand"]["kernel"].shape == (1, 1, 7, 6)
    assert variables["params"]["expand"]["bias"].shape == (6,)
    np.testing.assert_array_equal(block(0.0, False).apply(variables, x), x)
    np.testing.assert_array_equal(block(0.0, True).apply(variables, x), nn.relu(x))
    whole = block(1.0, False).apply(variables, x) - x
    assert np.abs(whole).max() > 0.1
    np.testing.assert_allclose(
        block(0.17, False).apply(variables, x), x + 0.17 * whole, rtol=1e-5, atol=1e-6
    )


def test_average_pools_at_the_border():
    x = jnp.ones((1, 4, 5, 1))

    def pooled(count):
        return Chain((Pool("avg"),), linear, count).apply({}, x)[0, :, :, 0]

    counted = np.outer([2, 3, 3, 2], [2, 3, 3, 3, 2]) / 9
    np.testing.assert_allclose(pooled(True), counted, rtol=1e-6)
    np.testing.assert_allclose(pooled(False), np.ones((4, 5)), rtol=1e-6)


@pytest.mark.parametrize("name, counts", [("inception_v3", True), ("inception_v4", False)])
def test_networks_pass_their_way_of_averaging_on(name, counts):
    for option in (counts, not counts):
        options = {} if option is counts else {"count_include_pad": option}
        mixed = jaxcnn.create_model(name, **options).mixed(train=False)
        module = mixed(((Pool("avg"),),))
        corner = module.apply({}, jnp.ones((1, 3, 3, 1)))[0, 0, 0, 0]
        assert corner == pytest.approx(4 / 9 if option else 1.0)


def test_halving_pools_round_up_and_begin_as_caffes():
    rows = jnp.arange(8.0)
    even = jnp.broadcast_to(rows[None, :, None, None], (1, 8, 8, 1))
    # Windows begin at rows 0, 2, 4 and 6; the last one hangs over the edge.
    np.testing.assert_array_equal(Pool("max", 2)(even)[0, :, 0, 0], [2, 4, 6, 7])
    odd = even[:, :7, :7]
    # On an odd size they begin at rows -1, 1, 3 and 5, so that strided 3x3 convolutions fit.
    np.testing.assert_array_equal(Pool("max", 2)(odd)[0, :, 0, 0], [1, 3, 5, 6])
    np.testing.assert_array_equal(Pool("max", 2, valid=True)(odd)[0, :, 0, 0], [2, 4, 6])


def test_initial_values_of_the_auxiliary_head():
    model = jaxcnn.create_model("inception_v3")
    wide = model.unit(True, nn.initializers.truncated_normal(0.01))
    head = inception.AuxHead(10, model.unit(True), wide)
    params = head.init(jax.random.key(0), jnp.zeros((1, 17, 17, 4)))["params"]
    for kernel, std in ((params["conv2"]["conv"]["kernel"], 0.01), (params["fc"]["kernel"], 0.001)):
        assert np.abs(kernel).max() <= 2 * std
        assert np.std(kernel) == pytest.approx(0.8796 * std, rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["inception_resnet_v1", "inception_resnet_v2_paper"],  # the others' files are tested as such
)
def test_every_parameter_has_a_torch_name_of_its_own(name):
    family = registry.model_info(name).family
    rules = importlib.import_module(f"jaxcnn.weights.rules.{family}")
    params = shapes_of(jaxcnn.create_model(name, aux_heads=True), 75)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [
        rules.torch_name(name, "/".join(k.key for k in path[:-1])) + "." + path[-1].key
        for path, _ in leaves
    ]
    assert len(set(names)) == len(leaves)
