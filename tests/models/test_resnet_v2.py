"""Pre-activation ResNet: slow NumPy forms, both forms of the stem, identities."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from slow_resnet import slow_resnet_v2

import jaxcnn
from jaxcnn.models.blocks import PreActBasicBlock
from jaxcnn.ops import BatchNormAct

SMALL = {"blocks": (2, 1), "width": 8, "stem": 8, "num_classes": 5}
CASES = {
    # Options of ours; options of the slow form; height and width of the image.
    "basic A": ("resnet110_v2_cifar", {}, {"kind": "A", "strided": 1}, (9, 8)),
    "bottleneck, stride on 1x1": ("resnet164_v2_cifar", {}, {"kind": "B", "strided": 1}, (8, 9)),
    "wide": ("wrn28_10_cifar", {"width": 12}, {"kind": "B", "strided": 1}, (8, 8)),
    "ImageNet basic": ("resnet18_v2", {}, {"kind": "B", "strided": 1, "pool": "pad"}, (35, 32)),
    "ImageNet": ("resnet50_v2", {}, {"kind": "B", "strided": 2, "pool": "pad"}, (32, 35)),
    "groups": (
        "resnext29_8x64d_v2_cifar",
        {"groups": 4, "base_width": 16},
        {"kind": "B", "strided": 2, "groups": 4},
        (8, 8),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_network_equals_the_slow_one(case):
    name, options, slow, size = CASES[case]
    model = jaxcnn.create_model(name, **SMALL | options)
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, *size, 3))
    want = slow_resnet_v2(variables, images, **slow)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


def with_norm_in_the_stem(variables):
    """The same arrays for `stem_norm=True`: the first block's first BatchNorm is the stem's."""
    moved = {}
    for collection, modules in variables.items():
        modules = {name: dict(module) for name, module in modules.items()}
        modules["stem_bn"] = modules["stage1_block1"].pop("bn1")
        moved[collection] = modules
    return moved


@pytest.mark.parametrize(
    ("name", "equal"), [("resnet50_v2", True), ("resnet18_v2", False), ("wrn16_8_cifar", True)]
)
def test_norm_in_the_stem_is_another_function_only_where_the_first_shortcut_is_an_identity(
    name, equal
):
    model = jaxcnn.create_model(name, **SMALL | {"width": 16 if equal else 8, "blocks": (1, 1)})
    variables = draw_variables(model, (1, 32, 32, 3))  # scales are positive
    images = draw_images((2, 32, 32, 3))
    bare = jax.jit(model.apply)(variables, images)
    normed = jax.jit(model.clone(stem_norm=True).apply)(with_norm_in_the_stem(variables), images)
    difference = np.abs(bare - normed).max() / np.abs(bare).max()
    assert difference < 1e-5 if equal else difference > 1e-2


def test_blocks_are_identities_where_their_last_convolution_is_zero():
    model = jaxcnn.create_model("resnet110_v2_cifar", **SMALL)
    variables = draw_variables(model, (1, 8, 8, 3))
    for name, module in variables["params"].items():
        if name.startswith("stage"):
            module["conv2"]["kernel"] *= 0
    found = jax.jit(functools.partial(jaxcnn.endpoints, model))(
        variables, draw_images((2, 8, 8, 3))
    )
    np.testing.assert_array_equal(found["stage1"], found["stem"])

    # No ReLU on the way: a negative input comes out as it went in.
    norm_act = functools.partial(BatchNormAct, use_running_average=True)
    block = PreActBasicBlock(width=4, norm_act=norm_act)
    x = draw_images((1, 4, 4, 4))
    variables = draw_variables(block, x.shape)
    variables["params"]["conv2"]["kernel"] *= 0
    assert x.min() < 0
    np.testing.assert_array_equal(block.apply(variables, x), x)


@pytest.mark.parametrize(
    ("name", "depth", "uncounted"),
    [
        ("resnet110_v2_cifar", 110, 0),
        ("resnet164_v2_cifar", 164, 3),  # projections
        ("resnet152_v2", 152, 4),
        ("wrn16_8_cifar", 16, 1),  # a wide net's depth has its projections and no classifier
        ("wrn28_10_cifar", 28, 1),
    ],
)
def test_depth_is_the_number_of_layers(name, depth, uncounted):
    model = jaxcnn.create_model(name)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert len(kernels) == depth + uncounted


def test_recomputing_blocks_changes_no_gradient():
    model = jaxcnn.create_model("resnet164_v2_cifar", **SMALL)
    variables = draw_variables(model, (1, 8, 8, 3))
    images = draw_images((4, 8, 8, 3))

    def gradient(model):
        def loss(params):
            logits, _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits**2)

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = gradient(model), gradient(model.clone(remat=True))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * scale)
        assert np.abs(a).max() > 0


def test_names_are_timms():
    rules = importlib.import_module("jaxcnn.weights.rules.resnet_v2")
    name = functools.partial(rules.torch_name, "resnet50_v2")
    assert name("stage4_block3/bn2") == "stages.3.blocks.2.norm2"
    assert name("stage2_block1/proj_conv") == "stages.1.blocks.0.downsample.conv"
    assert name("final_bn") == "norm"
    assert rules.dense_layout("resnet50_v2", "fc") == "conv1x1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortcut": "b"}, r"shortcut is 'b'; it must be one of A,.*"),
        ({"fan": "avg"}, r"fan is 'avg'; it must be one of out, in"),
    ],
)
def test_impossible_options_are_named(options, message):
    model = jaxcnn.create_model("resnet50_v2", **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
