"""Wide ResNet: where the dropout is, how kernels start, what is wide on ImageNet.

Its blocks are those of `resnet_v2` and `resnet`, and are checked there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.runtime.compilation import compile_init


def test_dropout_is_between_the_convolutions_and_only_while_training():
    # As wide as the stem, so that the first shortcuts are identities.
    model = jaxcnn.create_model("wrn16_8_cifar", blocks=(2, 1), width=8, stem=8, num_classes=5)
    dropping = model.clone(dropout=1.0)
    variables = draw_variables(model, (1, 8, 8, 3))
    images = draw_images((2, 8, 8, 3))
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_array_equal(jax.jit(dropping.apply)(variables, images), logits)

    @jax.jit
    def train(variables, images):
        run = functools.partial(dropping.apply, train=True, rngs={"dropout": jax.random.key(0)})
        return run(variables, images, mutable=["batch_stats", "endpoints"])[1]

    state = train(variables, images)
    # Nothing passes the last convolution, so only the (identity) shortcuts are left ...
    np.testing.assert_array_equal(state["endpoints"]["stage1"], state["endpoints"]["stem"])
    # ... and the BatchNorm ahead of the dropout has seen the first convolution.
    assert np.abs(state["batch_stats"]["stage1_block1"]["bn2"]["mean"]).max() > 0.05


def test_wide_nets_are_initialised_by_the_fan_in():
    model = jaxcnn.create_model("wrn16_8_cifar", blocks=(1,), width=256, stem=64)
    params = compile_init(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    kernel = params["stage1_block1"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 64, 256)
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (9 * 64)), rtol=0.02)


@pytest.mark.parametrize("name", ["wide_resnet50_2", "wide_resnet101_2"])
def test_wide_imagenet_nets_double_the_inner_channels_only(name):
    images = jnp.zeros((1, 32, 32, 3))
    wide, plain = (
        jax.eval_shape(jaxcnn.create_model(n).init, jax.random.key(0), images)["params"]
        for n in (name, name.removeprefix("wide_").removesuffix("_2"))
    )
    for block in (key for key in wide if key.startswith("stage")):
        for layer, factors in (("conv1", (1, 2)), ("conv2", (2, 2)), ("conv3", (2, 1))):
            a, b = (net[block][layer]["kernel"].shape[2:] for net in (wide, plain))
            assert a == tuple(f * n for f, n in zip(factors, b))
