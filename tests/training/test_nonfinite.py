"""Values that are not finite, planted in a layer of a step that is known."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import registered, run, small_config

from jaxcnn import layers
from jaxcnn.data import catalog
from jaxcnn.data.loader import resident

BAD = 115  # this example of the training set spoils the batch that it is in
FAULTY_STEP = next(s for s in range(99) if BAD in resident.batch_indices(0, s, 200, 48)) + 1


@functools.cache
def corner():
    """The first pixel of the bad example, normalized."""
    train = catalog.load("synthetic", "train[:200]")
    pixel = train.images[BAD, 0, 0] / 255
    return ((pixel - np.array(train.mean)) / np.array(train.std)).astype(np.float32)


@jax.custom_vjp
def bad_gradient(x, factor):
    return x


bad_gradient.defvjp(lambda x, factor: (x, factor), lambda factor, g: (g * factor, None))


class Fault(nn.Module):
    where: str

    def __call__(self, x, images):
        there = jnp.abs(images[:, 0, 0] - corner()[None]).max(-1) < 1e-5
        factor = jnp.where(there, jnp.nan, 1.0)[:, None, None, None]
        return x * factor if self.where == "output" else bad_gradient(x, factor)


class Faulty(layers.Network):
    where: str = "output"
    min_size: int = 4

    @nn.compact
    def __call__(self, images, *, train=False):
        images = self.check_images(images)
        conv, norm = self.conv(), self.norm(train)
        x = nn.relu(norm(name="bn1")(conv(8, 3, 2, padding=1, name="conv1")(images)))
        if train:
            x = Fault(self.where, name="fault")(x, images)
        x = nn.relu(conv(8, 3, 2, padding=1, name="conv2")(x))
        return self.logits(layers.global_avg_pool(x))


@pytest.fixture(autouse=True, scope="module")
def faulty_network():
    with registered("faulty", Faulty):
        yield


def config_of(where):
    config = small_config(model="faulty", steps=8)
    config.model.options = {"where": where}
    config.eval.every_steps = config.checkpoint.every_steps = 2
    return config


def stopped_by(config, directory):
    with pytest.raises(FloatingPointError) as caught:
        run(config, directory)
    return str(caught.value)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_layer_whose_output_is_bad_is_named(tmp_path, devices):
    config = config_of("output")
    config.train.devices = devices
    text = stopped_by(config, tmp_path)
    assert text.startswith(
        f"the loss or its gradient is not finite at step {FAULTY_STEP}: the first values that"
    )
    assert text.endswith("are 2.08 % of the output of fault")  # one of 48 examples


def test_the_gradient_that_is_bad_is_named(tmp_path):
    """It turns bad behind the first layers; back from the loss, theirs come first."""
    config = config_of("gradient")
    config.schedule = {"name": "plateau", "learning_rate": 0.1, "patience": 1}
    text = stopped_by(config, tmp_path)
    assert text.startswith(
        f"the loss or its gradient is not finite at step {FAULTY_STEP}: all activations are"
    )
    assert "back from the loss" in text and "100 % of the gradient of bn1/" in text


def test_several_steps_in_a_call_name_the_first(tmp_path):
    config = config_of("output")
    config.train.steps_per_call = 4
    config.eval.every_steps = config.checkpoint.every_steps = 8
    text = stopped_by(config, tmp_path)
    assert text.startswith(f"the loss or its gradient is not finite at steps {FAULTY_STEP} to ")
    assert text.endswith("of the output of fault")
