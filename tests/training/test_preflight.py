"""One mistake at a time in an experiment that is right."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.guard import preflight

pytestmark = pytest.mark.usefixtures("tiny_network")


@pytest.fixture(scope="module")
def experiment(tiny_network):  # noqa: F811
    made = build_experiment(TrackedConfig(small_config()))
    preflight.check(made)
    return made


def train_set(experiment, **changed):
    return dataclasses.replace(
        experiment, train_set=dataclasses.replace(experiment.train_set, **changed)
    )


def plant(mistake, experiment):
    images, labels = experiment.train_set.images, experiment.train_set.labels
    if mistake == "float images":
        return train_set(experiment, images=(images / 255).astype(np.float32))
    if mistake == "0 and 1":
        return train_set(experiment, images=(images > 127).astype(np.uint8))
    if mistake == "black":
        return train_set(experiment, images=np.zeros_like(images))
    if mistake == "from 1":
        return train_set(experiment, labels=labels + 1)
    if mistake == "float labels":
        return train_set(experiment, labels=labels.astype(np.float32))
    if mistake == "one class":
        return train_set(experiment, labels=np.full_like(labels, 3))
    if mistake == "other size":
        return dataclasses.replace(experiment, image_shape=(1, 28, 28, 3))
    if mistake == "no test":
        none = {"images": images[:0], "labels": labels[:0]}
        return dataclasses.replace(
            experiment, test_set=dataclasses.replace(experiment.test_set, **none)
        )
    if mistake == "preprocess":
        return dataclasses.replace(
            experiment, preprocess=lambda batch, keys: {"image": batch["image"]}
        )
    if mistake == "nan":
        bad = jnp.full((8, 32, 32, 3), jnp.nan)
        return dataclasses.replace(experiment, preprocess=lambda batch, keys: {"image": bad})
    assert mistake == "head"
    return dataclasses.replace(experiment, model=experiment.model.clone(num_classes=0))


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("float images", "training split's images are float32; they must be uint8, 0 to 255"),
        ("0 and 1", "training split's images reach from 0 to 1"),
        ("black", "all pixels of the training split's images have the same value, 0"),
        ("from 1", "training split's labels reach from 1 to 10; the classes are 0 to 9"),
        ("float labels", "training split's labels are float32; they must be integers"),
        ("one class", "all 200 training examples are of class 3"),
        ("other size", "images are 32x32x3; the network is made for 28x28x3"),
        ("no test", "the test split has no examples"),
        ("preprocess", r"reaches from \d.* normalization with mean .* pixels between 0 and 1"),
        ("nan", "the first batch is not finite after normalization"),
        ("head", "the network has 8 outputs; the training set has 10 classes"),
    ],
)
def test_a_mistake_is_named(experiment, mistake, text):
    with pytest.raises(ValueError, match=text):
        preflight.check(plant(mistake, experiment))


def test_auxiliary_heads_that_are_missing_are_named(experiment):
    config = small_config()
    config.loss.aux_weight = 0.3
    with pytest.raises(ValueError, match=r"aux_weight is 0\.3, but 'tiny' has no auxiliary heads"):
        preflight.check(build_experiment(TrackedConfig(config)))


def test_nothing_is_written_before(tmp_path):
    config = small_config()
    config.data.train_split = "train[:1]"
    with pytest.raises(ValueError, match="all 1 training examples are of class"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "batch_size", "fields", "alike"),
    [
        ("resnet18", 1, {}, True),
        ("resnet18", 8, {"bn_group": 1}, True),
        ("resnet18", 8, {"accumulate": 8}, True),
        ("resnet18", 2, {"bn_sync": "local", "devices": 2}, True),
        ("resnet18", 2, {"devices": 2}, False),
        ("resnet18", 2, {}, False),
        ("tiny", 1, {}, False),  # its maps are larger than one pixel
        ("resnet20_cifar", 1, {}, False),
    ],
)
def test_batch_norm_of_one_value_is_refused(model, batch_size, fields, alike):
    config = small_config(model=model, batch_size=batch_size)
    config.train.update(fields)
    if model == "resnet18":
        config.model.options = {"blocks": (1, 1, 1, 1), "width": 8}
    made = build_experiment(TrackedConfig(config))
    if not alike:
        preflight.check(made)
        return
    with pytest.raises(
        ValueError, match=r"BatchNorm 'stage4.*' normalizes 1x1 maps of single examples"
    ):
        preflight.check(made)
