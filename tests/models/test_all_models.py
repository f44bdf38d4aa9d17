"""What holds for every network: sizes, endpoints, types, transformations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.models.costs import equation_macs, sub_jaxprs
from jaxcnn.runtime.compilation import compile_init as quick_jit

RESNET = {"blocks": (2, 1, 1, 1), "width": 8, "stem": (8,)}
ENDS_IN_FC = {"fc_width": 16, "num_classes": 5}

# One or more of each family, narrow and shallow where the network's options allow it:
# options, size of the images, names of the endpoints besides `pre_logits`.
NETWORKS = {
    "lenet5_modern": ({}, 32, "stage1 stage2"),
    "lenet5_1998": ({"head": "softmax"}, 32, "stage1 stage2 stage3"),
    "alexnet_2gpu": (
        {"widths": (4, 8, 8, 8, 8), **ENDS_IN_FC},
        224,
        "stage1 stage2 stage3 stage4 stage5",
    ),
    "zfnet_512": (
        {"widths": (4, 4, 8, 8, 8), **ENDS_IN_FC},
        224,
        "stage1 stage2 stage3 stage4 stage5",
    ),
    "vgg_c_bn": (
        {"widths": (4, 4, 8, 8, 8), "min_size": 32, **ENDS_IN_FC},
        32,
        "stage1 stage2 stage3 stage4 stage5",
    ),
    "googlenet": ({"num_classes": 5}, 32, "stem stage1 stage2 stage3 aux1 aux2"),
    "bn_inception": ({"num_classes": 5}, 32, "stem stage1 stage2 stage3"),
    "inception_v3": ({"num_classes": 5}, 75, "stem stage1 stage2 stage3 aux1"),
    "inception_v4": ({"num_classes": 5}, 75, "stem stage1 stage2 stage3"),
    "inception_resnet_v2": (
        {"num_classes": 5, "blocks": (1, 1, 1), "aux_heads": True},
        75,
        "stem stage1 stage2 stage3 aux1",
    ),
    "resnet34": (RESNET, 32, "stem stage1 stage2 stage3 stage4"),
    "resnet50d": (
        {**RESNET, "stem": (4, 4, 8)},
        32,
        "stem stage1 stage2 stage3 stage4",
    ),
    "resnet20_cifar": (
        {"blocks": (1, 1, 1), "width": 4, "stem": (4,)},
        8,
        "stem stage1 stage2 stage3",
    ),
    "resnet50_v2": ({**RESNET, "stem": 8}, 32, "stem stage1 stage2 stage3 stage4"),
    "wrn16_8_cifar": ({"blocks": (1, 1, 1), "width": 8}, 8, "stem stage1 stage2 stage3"),
    "resnext50_32x4d": (
        {**RESNET, "groups": 8, "width": 16, "base_width": 16},
        32,
        "stem stage1 stage2 stage3 stage4",
    ),
    "se_resnet50": (
        {**RESNET, "se_reduction": 4},
        32,
        "stem stage1 stage2 stage3 stage4",
    ),
    "senet154": (
        {
            **RESNET,
            "groups": 8,
            "width": 16,
            "base_width": 16,
            "stem": (4, 4, 8),
            "se_reduction": 4,
        },
        32,
        "stem stage1 stage2 stage3 stage4",
    ),
    "dpn92": (
        {
            "blocks": (2, 1, 1, 1),
            "width": 8,
            "mid": 16,
            "groups": 8,
            "growth": (2, 2, 2, 2),
            "stem": (8, 7),
        },
        32,
        "stem stage1 stage2 stage3 stage4",
    ),
}
CHANNELS = {"lenet5_modern": 1, "lenet5_1998": 1}
FIXED_SIZE = {"lenet5_modern", "lenet5_1998", "alexnet_2gpu", "zfnet_512", "vgg_c_bn"}

every_network = pytest.mark.parametrize("name", NETWORKS)
# Each compiles a network: those that differ most run always.
DIFFERENT = ("lenet5_1998", "alexnet_2gpu", "vgg_c_bn", "resnet34", "resnet50_v2", "se_resnet50")
some_networks = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in DIFFERENT)) for n in NETWORKS]
)


def build(name, batch=1, size=None, **options):
    """(model, images) with the options of the table."""
    given, native, _ = NETWORKS[name]
    model = jaxcnn.create_model(name, **{**given, **options})
    height, width = (native, native) if size is None else size
    return model, draw_images((batch, height, width, CHANNELS.get(name, 3)))


def shapes_of(model, images):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return {k: v for k, v in shapes.items() if k != "endpoints"}


@functools.cache
def native_shapes(name):
    """Of the variables of the table's network."""
    return shapes_of(*build(name))


@functools.cache
def native_endpoints(name):
    """Shapes of the endpoints of the table's network, for two images."""
    model, images = build(name, batch=2)
    return jax.eval_shape(functools.partial(jaxcnn.endpoints, model), native_shapes(name), images)


def test_every_family_is_here():
    from jaxcnn.models import registry

    assert {jaxcnn.model_info(name).family for name in NETWORKS} == set(registry.FAMILIES)


@every_network
def test_endpoints_have_the_declared_names(name):
    model, found = build(name)[0], native_endpoints(name)
    assert set(found) == {*NETWORKS[name][2].split(), "pre_logits"}
    for key, value in found.items():
        if key.startswith("aux"):
            assert value.shape == (2, model.num_classes) and value.dtype == jnp.float32
        elif key == "pre_logits":
            assert len(value.shape) == 2
        else:
            assert value.shape[0] == 2
    stages = [found[key].shape for key in sorted(found) if key.startswith("stage")]
    sizes = [shape[1] for shape in stages if len(shape) == 4]
    assert sizes == sorted(sizes, reverse=True)


@every_network
def test_without_a_classifier_the_features_come_back(name):
    model, images = build(name, batch=2, num_classes=0)
    variables = shapes_of(model, images)
    features = jax.eval_shape(model.apply, variables, images)
    assert features.shape == native_endpoints(name)["pre_logits"].shape
    assert not [key for key in variables["params"] if key.startswith("aux")]


@every_network
def test_larger_images(name):
    """Also uneven ones. Networks that end in fully connected layers take them with `dense`."""
    _, native, _ = NETWORKS[name]
    size = (native + 33, native + 50)
    if name not in FIXED_SIZE:
        model, images = build(name, size=size)
        assert shapes_of(model, images) == native_shapes(name)
    elif name.startswith("lenet5"):
        model, images = build(name, size=size)
        with pytest.raises(ValueError, match=f"images are {size[0]}x{size[1]}; LeNet-5 takes"):
            shapes_of(model, images)
        return
    else:
        model, images = build(name, size=size)
        with pytest.raises(ValueError, match="dense=True"):
            shapes_of(model, images)
        model = model.clone(dense=True)
        assert shapes_of(model, images) == native_shapes(name)
    logits = jax.eval_shape(model.apply, native_shapes(name), images)
    assert logits.shape == (1, model.num_classes)


@pytest.mark.parametrize("name", jaxcnn.list_models())
def test_images_that_cannot_be_used(name):
    model = jaxcnn.create_model(name)
    channels = jaxcnn.model_info(name).input_size[2]
    size = model.min_size
    for shape, complaint in [
        ((1, size - 1, size + 9, channels), f"images are {size - 1}x{size + 9}; .* at least"),
        ((1, size + 9, size - 1, channels), f"images are {size + 9}x{size - 1}; .* at least"),
        ((1, size, size, channels + 1), r"images have shape .* takes \[N, height, width"),
        ((size, size, channels), "images have shape"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    "name, options, size",
    [("resnet20_cifar", {"blocks": (1,)}, 32), ("vgg_a", {"dense": True, "fc_width": 8}, 33)],
)
def test_logits_of_bfloat16_are_not_rounded_to_it(name, options, size):
    model = jaxcnn.create_model(name, dtype=jnp.bfloat16, num_classes=64, min_size=32, **options)
    images = jax.random.normal(jax.random.key(0), (4, size, size, 3))
    logits = jax.jit(lambda key: model.init_with_output(key, images)[0])(jax.random.key(1))
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.5


@some_networks
def test_bfloat16_computes_but_keeps_nothing(name):
    """Every product is in bfloat16; parameters, statistics and outputs are float32."""
    model, images = build(name, batch=2, dtype=jnp.bfloat16)
    shapes = shapes_of(model, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    closed = jax.make_jaxpr(model.apply)(shapes, images)
    assert closed.out_avals[0].dtype == jnp.float32
    products = list(_products(closed.jaxpr))
    assert products
    for eqn in products:
        assert {v.aval.dtype for v in eqn.invars} == {jnp.dtype("bfloat16")}, eqn
    training = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    logits, updates = jax.eval_shape(training, shapes, images, rngs={"dropout": jax.random.key(0)})
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} <= {jnp.dtype("float32")}
    assert jax.tree.map(jnp.shape, updates.get("batch_stats")) == jax.tree.map(
        jnp.shape, shapes.get("batch_stats")
    )


def _products(jaxpr):
    for eqn in jaxpr.eqns:
        if equation_macs(eqn):
            yield eqn
            continue
        for sub in sub_jaxprs(eqn):
            yield from _products(sub)


@some_networks
def test_gradient_reaches_every_parameter(name):
    model, images = build(name, batch=2)
    variables = draw_variables(model, images.shape)
    params = variables.pop("params")

    @quick_jit
    def gradient(params):
        def loss(params):
            logits, state = model.apply(
                {"params": params, **variables}, images, mutable=["endpoints"]
            )
            aux = [v for k, v in state["endpoints"].items() if k.startswith("aux")]
            return sum(jnp.sum(jax.nn.log_softmax(v)[:, 0]) for v in (logits, *aux))

        return jax.grad(loss)(params)

    gradients = jax.device_get(gradient(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


REMAT = [
    "resnet34",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("vgg_c_bn", "resnet50_v2", "dpn92", "inception_resnet_v2", "inception_v3")
    ),
]


@pytest.mark.parametrize("remat", [True, "cheap"])
@pytest.mark.parametrize("name", REMAT)
def test_remat_changes_no_gradient(name, remat):
    """The same variables, logits, statistics and gradients, computed with less memory."""
    model, images = build(name, batch=4)
    variables = draw_variables(model, images.shape)
    stats = {"batch_stats": variables["batch_stats"]}

    def train(model):
        def loss(params):
            logits, state = model.apply(
                {"params": params, **stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            return jnp.mean(jax.nn.logsumexp(logits, -1)), state

        return jax.value_and_grad(loss, has_aux=True)

    forgetful = model.clone(remat=remat)
    assert shapes_of(forgetful, images) == shapes_of(model, images)
    assert "remat" in str(jax.make_jaxpr(train(forgetful))(variables["params"]))
    expected, actual = (quick_jit(train(m))(variables["params"]) for m in (model, forgetful))
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_checkpoint_around_a_whole_network():
    model, images = build("resnet20_cifar", batch=2)
    variables = draw_variables(model, images.shape)

    def loss(apply, variables):
        return jnp.sum(apply(variables, images) ** 2)

    grads = [
        quick_jit(jax.grad(functools.partial(loss, apply)))(variables)["params"]
        for apply in (model.apply, jax.checkpoint(model.apply))
    ]
    chex.assert_trees_all_close(*grads, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5_1998", "resnext50_32x4d"])
def test_vmap_over_variables_is_an_ensemble(name):
    """Also the gradient, which goes through the networks' own derivative rules."""
    model, images = build(name, **({} if name == "lenet5_1998" else {"blocks": (1, 1)}))
    members = [draw_variables(model, images.shape, seed=seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def value_and_grad(variables):
        def loss(params):
            logits = model.apply({**variables, "params": params}, images)
            return jnp.sum(jax.nn.log_softmax(logits)[:, 0]), logits

        return jax.grad(loss, has_aux=True)(variables["params"])

    single = quick_jit(value_and_grad)
    grads, logits = quick_jit(jax.vmap(value_and_grad))(stacked)
    for i, member in enumerate(members):
        expected, expected_logits = single(member)
        np.testing.assert_allclose(logits[i], expected_logits, rtol=1e-4, atol=1e-5)
        for actual, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(expected)):
            atol = 1e-4 * float(jnp.abs(wanted).max()) + 1e-7
            np.testing.assert_allclose(actual[i], wanted, rtol=1e-3, atol=atol)


def test_vmap_over_images_is_a_batch():
    model, images = build("resnet20_cifar", batch=3)
    variables = draw_variables(model, images.shape)
    one = jax.vmap(lambda image: model.apply(variables, image[None])[0])
    np.testing.assert_allclose(one(images), model.apply(variables, images), rtol=1e-4, atol=1e-5)


def test_training_uses_the_dropout_key_and_evaluation_none():
    model, images = build("vgg_c_bn", batch=2)
    variables = draw_variables(model, images.shape)
    train = jax.jit(
        lambda key: model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )[0]
    )
    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    model.apply(variables, images)  # no key needed


class VariantsTest(chex.TestCase):
    """The forward pass as such, compiled, from host arrays, and mapped over 8 devices."""

    @chex.variants(without_jit=True, with_device=True, without_device=True)
    def test_forward(self):
        for name in ("lenet5_1998", "resnet20_cifar"):
            model, images = build(name)
            variables = draw_variables(model, images.shape)
            logits = self.variant(model.apply)(variables, images)
            expected = jax.jit(model.apply)(variables, images)
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    @chex.variants(with_pmap=True)
    def test_forward_on_every_device(self):
        model, images = build("lenet5_modern")
        variables = draw_variables(model, images.shape)
        logits = self.variant(model.apply)(variables, images)
        np.testing.assert_allclose(logits, model.apply(variables, images), rtol=1e-4, atol=1e-5)


def test_as_an_nnx_module():
    """For users of NNX: `bridge.ToNNX` wraps a network, statistics and dropout included."""
    from flax import nnx
    from flax.nnx import bridge

    model, images = build("resnet20_cifar", batch=4, blocks=(1,))
    module = bridge.ToNNX(model, rngs=nnx.Rngs(0)).lazy_init(images)
    logits = module(images)
    assert logits.shape == (4, 10) and logits.dtype == jnp.float32

    # The same function of the same variables.
    assert module.stem_conv["kernel"].shape == (3, 3, 3, 4)
    variables = {
        "params": nnx.to_pure_dict(nnx.state(module, nnx.Param)),
        "batch_stats": nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)),
    }
    np.testing.assert_allclose(logits, model.apply(variables, images), rtol=1e-5, atol=1e-5)

    # A training step moves the statistics in place.
    before = np.asarray(module.stem_bn["mean"][...])
    module(images, train=True, mutable=["batch_stats"])
    assert np.abs(np.asarray(module.stem_bn["mean"][...]) - before).max() > 0


def test_networks_are_pure():
    """Applied eagerly to arrays of NumPy that cannot be written, it leaves them as they were."""
    model, images = build("resnet20_cifar", batch=2, blocks=(1,))
    variables = jax.tree.map(np.array, draw_variables(model, images.shape))
    jax.tree.map(lambda leaf: leaf.setflags(write=False), variables)
    paths = jax.tree.structure(variables)
    copy = jax.tree.map(np.copy, variables)
    first, again = (
        model.apply(variables, images, train=True, mutable=["batch_stats"]) for _ in range(2)
    )
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal(variables, copy)
    assert jax.tree.structure(variables) == paths
