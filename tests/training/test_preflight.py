"""One mistake at a time in an experiment that is right."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.training import train
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
        ("0 and 1", "training split's images range from 0 to 1"),
        ("black", "all pixels of the training split's images have the same value, 0"),
        ("from 1", "training split's labels range from 1 to 10; the classes are 0 to 9"),
        ("float labels", "training split's labels are float32; they must be integers"),
        ("one class", "all 200 training examples are of class 3"),
        ("other size", "images are 32x32x3; the network is made for 28x28x3"),
        ("no test", "the test split has no examples"),
        ("preprocess", r"ranges from \d.* normalization with mean .* pixels between 0 and 1"),
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


def small(**fields):
    config = small_config(steps=2)
    with config.unlocked():
        for name, value in fields.items():
            section, _, field = name.partition("__")
            (config[section] if field else config)[field or section] = value
    return config


def test_a_schedule_without_a_name_is_constant(tmp_path):
    config = small()
    config.schedule = {"learning_rate": 0.1}
    assert [r.kind for r in train(config, tmp_path / "run")][-1] == "end"


def test_a_plain_mapping_may_have_members(tmp_path):
    config = small(train__members="2").to_dict()
    assert {r.member for r in train(config, tmp_path / "run")} == {0, 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data__mixup": 0.2, "train__batch_size": 8, "train__devices": 8},
            "mixup and cutmix need",
        ),
        ({"data__mixup": 0.2, "loss": {"name": "lenet_mse"}}, "does not take the soft targets"),
        ({"optimizer": {"name": "optax:noisy_sgd", "key": 0}}, "which checkpoints cannot"),
    ],
)
def test_what_fails_within_a_step_is_named_before_it(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        list(train(small(**fields), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_with_local_statistics_is_resumed_on_as_many_devices(tmp_path):
    config = small_config(batch_size=16, steps=2)
    config.train.update({"bn_sync": "local", "devices": 2})
    run(config, tmp_path / "run")
    config.train.devices = 4
    with pytest.raises(ValueError, match=r"statistics of 8 examples; .* they would be of 4"):
        run(config, tmp_path / "run", resume=True)
