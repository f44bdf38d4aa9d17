"""One mistake at a time in a setup that is right."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.guard import preflight

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture
def setup():
    made = build_experiment(TrackedConfig(small_config()))
    preflight.check(made, 0)
    return made


def train_set(setup, **changed):
    return dataclasses.replace(setup, train_set=dataclasses.replace(setup.train_set, **changed))


def plant(mistake, setup):
    images, labels = setup.train_set.images, setup.train_set.labels
    if mistake == "float images":
        return train_set(setup, images=(images / 255).astype(np.float32))
    if mistake == "0 and 1":
        return train_set(setup, images=(images > 127).astype(np.uint8))
    if mistake == "black":
        return train_set(setup, images=np.zeros_like(images))
    if mistake == "from 1":
        return train_set(setup, labels=labels + 1)
    if mistake == "float labels":
        return train_set(setup, labels=labels.astype(np.float32))
    if mistake == "one class":
        return train_set(setup, labels=np.full_like(labels, 3))
    if mistake == "other size":
        return dataclasses.replace(setup, image_shape=(1, 28, 28, 3))
    if mistake == "no test":
        none = {"images": images[:0], "labels": labels[:0]}
        return dataclasses.replace(setup, test_set=dataclasses.replace(setup.test_set, **none))
    if mistake == "prepare":
        return dataclasses.replace(setup, preprocess=lambda batch, keys: {"image": batch["image"]})
    if mistake == "nan":
        bad = jnp.full((8, 32, 32, 3), jnp.nan)
        return dataclasses.replace(setup, preprocess=lambda batch, keys: {"image": bad})
    assert mistake == "head"
    return dataclasses.replace(setup, model=setup.model.clone(num_classes=0))


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("float images", "training split's images are float32; they must be uint8, 0 to 255"),
        ("0 and 1", "training split's images reach from 0 to 1"),
        ("black", "training split's images have one value, 0, everywhere"),
        ("from 1", "training split's labels reach from 1 to 10; the classes are 0 to 9"),
        ("float labels", "training split's labels are float32; they must be integers"),
        ("one class", "all 200 training examples are of class 3"),
        ("other size", "images are 32x32x3; the network is made for 28x28x3"),
        ("no test", "the test split has no examples"),
        ("prepare", r"reaches from \d.* normalised with mean .* pixels between 0 and 1"),
        ("nan", "the first batch is not finite once it is normalised"),
        ("head", "the network has 8 outputs; the training set has 10 classes"),
    ],
)
def test_a_mistake_is_named(setup, mistake, text):
    with pytest.raises(ValueError, match=text):
        preflight.check(plant(mistake, setup), 0)


def test_nothing_is_written_before(tmp_path):
    config = small_config()
    config.data.train_split = "train[:1]"
    with pytest.raises(ValueError, match="all 1 training examples are of class"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
