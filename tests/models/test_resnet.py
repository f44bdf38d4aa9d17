"""ResNet: slow NumPy forms of every option, shortcuts by hand, strides, training options."""

import functools
import importlib
from collections import Counter

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from slow_resnet import slow_resnet

import jaxcnn
from jaxcnn.analysis import bench
from jaxcnn.models import blocks, registry
from jaxcnn.ops import BatchNorm, BatchNormAct
from jaxcnn.runtime.compilation import compile_init, memory_bytes

SMALL = {"blocks": (2, 1), "width": 8, "stem": (8,), "num_classes": 5}


def shapes(name, size=224, **options):
    model = jaxcnn.create_model(name, **options)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), images), images


CASES = {
    # Options of ours; options of the slow form; height and width of the image.
    "A": ("resnet20_cifar", {}, {"kind": "A", "strided": 1}, (9, 8)),
    "A_symmetric": (
        "resnet20_cifar",
        {"shortcut": "A_symmetric"},
        {"kind": "A_symmetric", "strided": 1},
        (8, 8),
    ),
    "B": ("resnet18", {}, {"kind": "B", "strided": 1, "pool": "pad"}, (33, 32)),
    "C": ("resnet20_cifar", {"shortcut": "C"}, {"kind": "C", "strided": 1}, (8, 8)),
    "plain": ("plain20_cifar", {}, {"kind": "none", "strided": 1}, (8, 8)),
    "v1": ("resnet50_v1", {}, {"kind": "B", "strided": 1, "pool": "ceil"}, (35, 32)),
    "v1.5": ("resnet50", {}, {"kind": "B", "strided": 2, "pool": "pad"}, (35, 32)),
    # 34 pixels: the stem leaves 9, so that the pooling of the shortcut has a last window of 1.
    "D": (
        "resnet50d",
        {"stem": (4, 6, 8)},
        {"kind": "D", "strided": 2, "pool": "pad"},
        (34, 36),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_network_equals_the_slow_one(case):
    name, options, slow, size = CASES[case]
    model = jaxcnn.create_model(name, **SMALL | options)
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, *size, 3))
    want = slow_resnet(variables, images, **slow)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


def test_shortcut_a_takes_every_second_pixel_and_appends_zeros():
    x = jnp.arange(1 * 3 * 4 * 2, dtype=jnp.float32).reshape(1, 3, 4, 2)
    y = blocks.subsample(x, 5, 2)
    assert y.shape == (1, 2, 2, 5)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 4], [16, 20]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[1, 5], [17, 21]])
    np.testing.assert_array_equal(y[..., 2:], 0)
    centered = blocks.subsample(x, 5, 2, symmetric=True)
    np.testing.assert_array_equal(centered[..., 1:3], y[..., :2])
    assert float(jnp.sum(jnp.abs(centered))) == float(jnp.sum(jnp.abs(y)))
    assert blocks.BasicBlock(width=2, shortcut="A").identity(x, 2) is x


@pytest.mark.parametrize("depth", [20, 110])
def test_plain_net_has_the_parameters_of_the_residual_one(depth):
    _, plain, _ = shapes(f"plain{depth}_cifar", 32)
    _, residual, _ = shapes(f"resnet{depth}_cifar", 32)
    assert plain == residual
    kernels = [k for k in jax.tree.leaves(plain["params"]) if k.ndim > 1]
    assert len(kernels) == depth  # convolutions and the classifier


def test_shortcut_options_cost_what_the_papers_table_says():
    def projections(name):
        _, tree, _ = shapes(name)
        return sum("proj_conv" in block for block in tree["params"].values())

    # "thirteen extra": option C of ResNet-34 projects all 16 shortcuts, B three.
    assert [projections(f"resnet34{o}") for o in ("_a", "", "_c")] == [0, 3, 16]
    assert projections("resnet50") == 4


def test_stride_is_on_the_first_1x1_in_the_paper_and_on_the_3x3_in_v1_5():
    sizes = {}
    for name in ("resnet50_v1", "resnet50"):
        model, variables, images = shapes(name)
        capture = functools.partial(
            model.apply, capture_intermediates=True, mutable=["intermediates"]
        )
        state = jax.eval_shape(capture, variables, images)[1]["intermediates"]
        block = state["stage3_block1"]
        sizes[name] = [block[f"conv{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)]
    assert sizes == {"resnet50_v1": [14, 14, 14], "resnet50": [28, 14, 14]}


def test_endpoints_sizes_and_dtypes():
    model, variables, images = shapes("resnet50", dtype=jnp.bfloat16)
    found = jax.eval_shape(functools.partial(jaxcnn.endpoints, model), variables, images)
    assert {name: leaf.shape[1:] for name, leaf in found.items()} == {
        "stem": (56, 56, 64),
        "stage1": (56, 56, 256),
        "stage2": (28, 28, 512),
        "stage3": (14, 14, 1024),
        "stage4": (7, 7, 2048),
        "pre_logits": (2048,),
    }
    assert found["stage4"].dtype == jnp.bfloat16
    logits = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == (1, 1000) and logits.dtype == jnp.float32

    model, variables, images = shapes("resnet20_cifar", 40, num_classes=0)
    assert "fc" not in variables["params"]
    assert jax.eval_shape(model.apply, variables, images).shape == (1, 64)
    found = jax.eval_shape(functools.partial(jaxcnn.endpoints, model), variables, images)
    assert set(found) == {"stem", "stage1", "stage2", "stage3", "pre_logits"}
    assert found["stage3"].shape == (1, 10, 10, 64)


def test_zero_gamma_makes_blocks_identities_that_can_learn():
    options = SMALL | {"zero_gamma": True, "shortcut": "B"}
    model = jaxcnn.create_model("resnet20_cifar", **options)
    variables = compile_init(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    images = draw_images((4, 8, 8, 3))
    found = jax.jit(functools.partial(jaxcnn.endpoints, model))(variables, images)
    np.testing.assert_array_equal(found["stage1"], found["stem"])

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(nn.log_softmax(logits)[:, 0])

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    for block in ("stage1_block1", "stage1_block2", "stage2_block1"):
        assert np.abs(gradient[block]["bn2"]["scale"]).min() > 0


def test_drop_path_leaves_branches_out_of_examples_and_keeps_the_mean():
    rate, copies = 0.3, 2000
    block = blocks.BasicBlock(
        width=4,
        shortcut="A",
        norm=functools.partial(BatchNorm, use_running_average=True),
        norm_act=functools.partial(BatchNormAct, use_running_average=True),
        drop_path=rate,
        train=True,
    )
    kept = block.clone(drop_path=0.0)
    x = jnp.abs(draw_images((1, 4, 4, 4)))
    variables = draw_variables(kept, (1, 4, 4, 4))
    branch = block.clone(shortcut="none")  # whose BatchNorm comes before the ReLU

    @jax.jit
    def run(variables, x):
        many = jnp.tile(x, (copies, 1, 1, 1))
        out = block.apply(variables, many, rngs={"dropout": jax.random.key(1)})
        _, state = branch.apply(variables, x, capture_intermediates=True)
        return out, state["intermediates"]["bn2"]["__call__"][0]

    out, y = run(variables, x)
    dropped = np.isclose(out, x, atol=1e-6).all((1, 2, 3))
    np.testing.assert_allclose(
        out[~dropped], np.broadcast_to(nn.relu(x + y / (1 - rate)), out[~dropped].shape), atol=1e-5
    )
    # Four standard deviations of a mean of Bernoulli variables.
    assert abs(dropped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / copies)


def test_drop_path_grows_with_depth_and_rests_in_evaluation():
    model = jaxcnn.create_model("resnet20_cifar", **SMALL | {"blocks": (2,), "drop_path": 1.0})
    variables = draw_variables(model, (1, 8, 8, 3))
    images = draw_images((16, 8, 8, 3))

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return jnp.sum(logits**2)

        return jax.grad(loss)(params)

    found = gradient(variables["params"])
    assert np.abs(found["stage1_block1"]["conv1"]["kernel"]).max() > 0  # kept at a rate of 1/2
    assert np.abs(found["stage1_block2"]["conv1"]["kernel"]).max() == 0  # never kept
    logits = jax.jit(model.apply)(variables, images)
    want = jax.jit(model.clone(drop_path=0.0).apply)(variables, images)
    np.testing.assert_array_equal(logits, want)


def loss_by_remat(model, variables, images):
    """A function of (remat, params), and one of remat: what its backward pass keeps."""

    def loss(remat, params):
        other = model.clone(remat=remat)
        logits, _ = other.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2)

    def kept(remat):
        forget = functools.partial(loss, remat)
        backward = jax.eval_shape(lambda p: jax.vjp(forget, p)[1], variables["params"])
        return jax.tree.leaves(backward)

    return loss, kept


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        # Both stages' inputs; the 3x3 convolutions, and in stage 2 a 1x1 convolution of 128
        # channels. Those of 16 and 64 channels are computed again.
        ("resnet50", {(16, 64): 2, (16, 16): 2, (8, 32): 3}),
        # The same, and the input of the last BatchNorm.
        ("resnet50_v2", {(16, 64): 2, (16, 16): 2, (8, 32): 3, (8, 128): 1}),
    ],
)
def test_cheap_remat_stores_what_is_expensive(name, kept):
    """Sizes and channels of the feature maps behind the stem, as autodiff keeps them."""
    model = jaxcnn.create_model(name, blocks=(2, 2), width=16, num_classes=5)
    images = jnp.zeros((2, 64, 64, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)

    _, arrays = loss_by_remat(model, variables, images)

    def maps(remat):
        leaves = [x for x in arrays(remat) if x.ndim == 4 and x.dtype == jnp.float32]
        return Counter(x.shape[2:] for x in leaves if x.shape[0] == 2 and x.shape[1] <= 16)

    assert maps("cheap") == kept
    statistics = [x for x in arrays("cheap") if x.shape[:-1] == (1, 1, 1)]
    assert len(statistics) >= len(jax.tree.leaves(variables["batch_stats"]))
    assert maps(False).total() > 3 * maps("cheap").total()


def test_what_remat_keeps_for_the_backward_pass():
    """Bytes, as autodiff keeps them: all activations, those of convolutions, those of blocks."""
    model = jaxcnn.create_model("resnet20_cifar", **SMALL)
    variables = draw_variables(model, (1, 8, 8, 3))
    images = draw_images((4, 8, 8, 3))

    loss, arrays = loss_by_remat(model, variables, images)

    def kept(remat):
        return sum(x.size * x.dtype.itemsize for x in arrays(remat))

    assert kept(False) > 1.2 * kept("cheap") > 1.8 * kept(True)
    plain, *others = (
        jax.jit(jax.grad(functools.partial(loss, remat)))(variables["params"])
        for remat in (False, True, "cheap")
    )
    for other in others:
        chex.assert_trees_all_close(plain, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("remat", [True, "cheap"])
def test_remat_does_not_change_the_initialization(remat):
    """A block that is wrapped would be traced for each of its parameters."""
    model = jaxcnn.create_model("resnet20_cifar", **SMALL)
    plain, other = (
        str(jax.make_jaxpr(m.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
        for m in (model, model.clone(remat=remat))
    )
    assert plain == other


def test_remat_saves_memory_of_the_compiled_step():
    """XLA must not merge what the backward pass recomputes with the forward pass."""

    def memory(remat):
        model = jaxcnn.create_model("resnet20_cifar", remat=remat, blocks=(3, 3), width=16)
        step, arguments = bench.make_step(
            "resnet20_cifar", train=True, batch=32, dtype="float32", image_size=32, model=model
        )
        return memory_bytes(step.lower(*arguments).compile())

    assert memory(False) > 1.05 * memory("cheap") > 1.25 * memory(True)


def test_unknown_remat_is_named():
    for name in ("resnet20_cifar", "lenet5"):
        with pytest.raises(ValueError, match="remat is 'chaep'; it must be False, True or 'cheap'"):
            jaxcnn.create_model(name, remat="chaep")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortcut": "E"}, r"shortcut is 'E'; it must be one of A, A_symmetric, B, C, D, none"),
        ({"block_type": "botleneck"}, r"block_type is 'botleneck'.*did you mean 'bottleneck'"),
        ({"block": "Basicblock"}, r"block is 'Basicblock'; did you mean 'BasicBlock'"),
        ({"stride_on": "2x2"}, r"stride_on is '2x2'; it must be one of 1x1, 3x3"),
        ({"stem": (8, 8)}, r"stem is \(8, 8\); it must be the channels of 1 convolution or of 3"),
        ({"shortcut": "A", "zero_gamma": True}, r"zero_gamma needs projecting.*shortcut is 'A'"),
        ({"branch_relu": True, "zero_gamma": True}, r"zero_gamma with branch_relu"),
        ({"shortcut": "none", "drop_path": 0.1}, r"drop_path is 0.1; a plain net has no branch"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        shapes("resnet50", **options)


def test_blocks_are_a_class_its_name_or_by_their_old_option(caplog):
    model = jaxcnn.create_model("resnet50", block=blocks.BasicBlock)
    assert jaxcnn.create_model("resnet50", block="BasicBlock") == model
    assert jaxcnn.create_model("resnet34") == model
    v2 = jaxcnn.create_model("resnet34_v2")
    assert v2.block is blocks.PreActBasicBlock
    caplog.clear()
    registry._warn_once.cache_clear()
    for _ in range(2):
        assert jaxcnn.create_model("resnet50", block_type="basic") == model
    assert [r.getMessage() for r in caplog.records] == [
        "the option block_type is now block: write block='BasicBlock'"
    ]
    assert jaxcnn.create_model("resnet50_v2", block_type="basic") == v2


@pytest.mark.parametrize(("name", "size"), [("resnet50", 32), ("resnet20_cifar", 8)])
def test_smallest_image(name, size):
    _, variables, _ = shapes(name, size)
    assert variables["params"]
    with pytest.raises(ValueError, match=f"images are {size - 1}x{size - 1}.* needs at least"):
        shapes(name, size - 1)


def test_names_are_torchvisions_and_timms():
    rules = importlib.import_module("jaxcnn.weights.rules.resnet")
    assert rules.torch_name("resnet50", "stage4_block3/conv2") == "layer4.2.conv2"
    assert rules.torch_name("resnet50", "stage2_block1/proj_bn") == "layer2.0.downsample.1"
    assert rules.torch_name("resnet101d", "stage2_block1/proj_bn") == "layer2.0.downsample.2"
    assert rules.torch_name("resnet50c", "stem_conv3") == "conv1.6"
    for name in ("resnet18", "resnet50d"):
        _, tree, _ = shapes(name)
        paths = {
            "/".join(key.key for key in path[:-1])
            for path, _ in jax.tree_util.tree_leaves_with_path(tree["params"])
        }
        assert len({rules.torch_name(name, path) for path in paths}) == len(paths)


def test_option_a_cannot_drop_channels():
    model = jaxcnn.create_model("resnet20_cifar", width=8)
    with pytest.raises(ValueError, match="16 input channels and 8 output"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
