"""Options that a network cannot have are errors; no option is ignored or cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.layers import conv
from jaxcnn.models import blocks, lenet, registry, resnet, resnet_v2, wide_resnet

# network, options, size of the images, a part of the message
IMPOSSIBLE = (
    ("vgg_d", {"convs": (2, 2, 3, 3), "widths": (4, 4, 4, 4)}, 224, "map is 14x14, but fc6 spans"),
    ("vgg_d", {"kernel": 4, "widths": (4, 4, 4, 4, 4)}, 224, "last feature map is .*padding"),
    ("vgg_d", {"convs": (1, 1, 1, 1, 1, 1)}, 224, "convs is .* each of the 5 stages"),
    ("vgg_d", {"fc_width": 0, "dense": True}, 224, "dense is True; it must be False with fc_width"),
    ("vgg_d", {"min_size": 16}, 32, "min_size is 16; it must be at least 32"),
    ("alexnet", {"conv1_padding": 1}, 224, "map is 5x5, but fc6 spans 6x6"),
    ("alexnet", {"widths": (8, 8, 8, 8)}, 224, "widths is .*five numbers"),
    ("alexnet", {"groups": (1, 1)}, 224, "groups is .*five numbers"),
    ("alexnet", {"min_size": 32, "fc_width": 0}, 40, "pooling over 3x3 .* too small"),
    ("zfnet", {"widths": (8,)}, 224, "widths is .*five numbers"),
    ("inception_v3", {"min_size": 32}, 32, "pooling over 3x3 .* too small"),
    ("dpn68", {"blocks": (1, 1, 1, 1, 1)}, 64, "growth is .* each of the 5 stages"),
    ("resnet18", {"groups": 32}, 64, "groups is 32; it must be 1 for BasicBlock"),
    ("resnet18", {"base_width": 4}, 64, "base_width is 4; it must be 64 for BasicBlock"),
    ("resnet18", {"halve_first": True}, 64, "halve_first is True; it must be False"),
    ("resnet18", {"stride_on": "2x2"}, 64, "stride_on is '2x2'"),
    ("resnet18", {"stride_on": "1x1"}, 64, "stride_on is '1x1'; it must be 3x3 for BasicBlock"),
    ("resnet18_v2", {"groups": 2}, 64, "groups is 2; it must be 1 for PreActBasicBlock"),
    ("resnext50_32x4d", {"width": 8}, 64, "width 8 with base_width 4 leaves no channel"),
    ("se_resnet18", {"width": 8}, 64, "needs at least 16 channels, but there are 8"),
    ("googlenet", {"width": -1.0}, 64, "width is -1.0; it must be positive"),
)


@pytest.mark.parametrize(("name", "options", "size", "message"), IMPOSSIBLE)
def test_impossible_networks(name, options, size, message):
    model = jaxcnn.create_model(name, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg16", {"dropout": 1.5}, "dropout is 1.5; it must be a probability from 0 to 1"),
        ("resnet18", {"drop_path": -0.5}, "drop_path is -0.5; it must be a probability"),
        ("resnet18", {"num_classes": True}, "num_classes is True"),
        ("resnet18", {"remat": 1}, "remat is 1; it must be False, True or 'cheap'"),
        ("resnet18", {"block": "PreActBasicBlock"}, "block is .*did you mean .BasicBlock"),
        ("resnet18_v2", {"block": "BasicBlock"}, "block is .*PreActBasicBlock"),
        ("resnet18", {"block": blocks.PreActBasicBlock}, "block is .*must be a ResidualBlock"),
    ],
)
def test_impossible_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        jaxcnn.create_model(name, **options)


def test_vgg_has_as_many_convolutions_as_asked_for():
    """The third convolution of a stage is net C's 1x1; a fifth one is not left out."""
    model = jaxcnn.create_model(
        "vgg_c", convs=(1, 1, 5, 1, 1), widths=(2, 2, 2, 2, 2), fc_width=4, num_classes=3
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    stage = shapes["params"]["block3"]
    assert [stage[f"conv{i}"]["kernel"].shape[0] for i in range(1, 6)] == [3, 3, 1, 3, 3]


def test_a_narrow_googlenet_keeps_every_branch():
    model = jaxcnn.create_model("googlenet", width=0.01, aux_heads=False)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert min(min(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 1


@pytest.mark.parametrize(
    ("build", "depth", "right"),
    [
        (resnet.imagenet, 42, "18, 34, 50, 101, 152, 200"),
        (resnet_v2.imagenet, 42, "18, 34, 50, 101, 152, 200"),
        (resnet.cifar, 21, "6n.2"),
        (wide_resnet.cifar, 30, "6n.4"),
    ],
)
def test_depths(build, depth, right):
    with pytest.raises(ValueError, match=f"depth is {depth}; it must be .*{right}"):
        build(depth, 1) if build is wide_resnet.cifar else build(depth)


def test_named_padding_is_refused():
    layer = conv(8, 3, 1, 1)
    assert layer.padding == ((1, 1), (1, 1))
    with pytest.raises(ValueError, match="padding is 'SAME'; it must be numbers"):
        conv(8, 3, 1, "SAME")


@pytest.mark.parametrize("loss", [lenet.mse_loss, lenet.map_loss])
def test_the_losses_of_lenet_refuse_soft_targets(loss):
    with pytest.raises(ValueError, match=r"labels are float32\[2,10\].*mixup"):
        loss(jnp.zeros((2, 10)), jnp.full((2, 10), 0.1))


def test_average_pooling_of_inception_resnet_counts_the_padding_in_every_block():
    """The option has to reach the residual blocks; their own average pooling is at the border."""
    from jaxcnn.models.inception import Conv, Pool

    chains = ((Pool("avg"), Conv(2)),)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 75, 75, 3)), jnp.float32)
    logits = []
    for counted in (False, True):
        model = jaxcnn.create_model(
            "inception_resnet_v2",
            stem=(Conv(2, 3, 2, valid=True),),
            **{f"block_{letter}": chains for letter in "abc"},
            **{f"reduction_{letter}": ((Pool("max", 2, valid=True),),) for letter in "ab"},
            blocks=(1, 1, 1),
            linear_end=False,
            last_features=0,
            num_classes=2,
            count_include_pad=counted,
        )
        variables = jax.jit(model.init)(jax.random.key(0), images)
        logits.append(jax.jit(model.apply)(variables, images))
    assert not np.allclose(logits[0], logits[1], rtol=1e-4)


def test_a_callers_change_of_the_aliases_stays_with_the_caller():
    registry.list_aliases()["vgg16"] = "vgg_a"
    assert registry.resolve("vgg16") == "vgg_d"


def test_pixels_of_alexnet_and_zfnet_are_from_0_to_255():
    """Their initial kernels, N(0, 0.01^2), are meant for such values; torchvision's are not."""
    for name in ("alexnet", "alexnet_caffenet", "alexnet_ungrouped", "zfnet_384", "zfnet_512"):
        assert jaxcnn.model_info(name).std == pytest.approx((1 / 255,) * 3)
    assert jaxcnn.model_info("alexnet_owt").std == (0.229, 0.224, 0.225)
    assert jaxcnn.model_info("resnet200").year == 2016


def test_blocks_of_a_subclass_may_use_the_options_of_bottlenecks():
    class Grouped(blocks.BasicBlock):
        """Uses `groups`."""

    model = jaxcnn.create_model("resnet18", block=Grouped, groups=2, width=4, blocks=(1, 1))
    assert model.groups == 2
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
