"""ResNeXt: the paper's three equivalent forms of a block, inner widths, a slow NumPy form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables
from slow_resnet import Slow, slow_resnet

import jaxcnn
from jaxcnn.models.blocks import Bottleneck
from jaxcnn.ops import BatchNorm, BatchNormAct

CARDINALITY, PATH_WIDTH = 4, 3


def paths(net, x):
    """What each path of figure 3a has behind its 3x3 convolution, and its last 1x1 kernel."""
    conv1, conv2, conv3 = (net.modules[f"conv{i}"]["kernel"] for i in (1, 2, 3))

    def norm(y, name, part):
        m = {key: value[part] for key, value in net.modules[name].items()}
        y = reference.batch_norm(y, m["scale"], m["bias"], m["mean"], m["var"], 1e-5)
        return reference.relu(y)

    for i in range(CARDINALITY):
        part = slice(i * PATH_WIDTH, (i + 1) * PATH_WIDTH)
        y = norm(reference.conv(x, conv1[..., part]), "bn1", part)
        y = norm(reference.conv(y, conv2[..., part], 1, 1), "bn2", part)
        yield y, conv3[:, :, part]


def test_block_equals_the_sum_of_paths_and_their_concatenation():
    block = Bottleneck(
        width=4,
        groups=CARDINALITY,
        base_width=PATH_WIDTH * 64 // 4,
        norm=functools.partial(BatchNorm, use_running_average=True),
        norm_act=functools.partial(BatchNormAct, use_running_average=True),
    )
    x = draw_images((2, 5, 6, 16))
    variables = draw_variables(block, x.shape)
    assert variables["params"]["conv2"]["kernel"].shape == (3, 3, 3, 12)
    form_c = jax.jit(block.apply)(variables, x)

    net = Slow(variables)
    found = list(paths(net, x))
    aggregated = sum(reference.conv(y, kernel) for y, kernel in found)  # figure 3a
    joined = reference.conv(
        np.concatenate([y for y, _ in found], -1), net.modules["conv3"]["kernel"]
    )  # figure 3b
    for branch in (aggregated, joined):
        want = reference.relu(x + net.norm(branch, "bn3"))
        np.testing.assert_allclose(form_c, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("resnext50_32x4d", [128, 256, 512, 1024]),
        ("resnext101_64x4d", [256, 512, 1024, 2048]),
        ("resnext101_32x8d", [256, 512, 1024, 2048]),
        ("resnext29_8x64d_cifar", [512, 1024, 2048]),
    ],
)
def test_inner_widths_are_the_papers(name, inner):
    model = jaxcnn.create_model(name)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    kernels = [params[f"stage{i + 1}_block1"]["conv2"]["kernel"] for i in range(len(inner))]
    assert [kernel.shape[3] for kernel in kernels] == inner
    assert [kernel.shape[2] for kernel in kernels] == [n // model.groups for n in inner]


def test_network_equals_the_slow_one():
    model = jaxcnn.create_model(
        "resnext29_8x64d_cifar", blocks=(1, 2), width=8, stem=(8,), base_width=16, num_classes=5
    )
    variables = draw_variables(model, (1, 8, 8, 3))
    images = draw_images((2, 9, 8, 3))
    want = slow_resnet(variables, images, kind="B", strided=2, groups=8)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())
