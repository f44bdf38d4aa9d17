"""Data, loss, optimizer, schedule and augmentation of one's own: by address, and as objects."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_parts
import pytest
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn import _objects
from jaxcnn.cli import main
from jaxcnn.data.augment import pipeline
from jaxcnn.training import train
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import clear_superseded, override
from jaxcnn.training.optim import losses, optimizers, schedules
from jaxcnn.training.output.metrics_files import read_rows

PARAMS = {"kernel": np.ones((3, 2), np.float32)}
CONSTANT = {"name": "constant", "learning_rate": 0.5}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with own_parts.py."""
    shutil.copy(Path(__file__).with_name("own_parts.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_config(**fields):
    config = small_config()
    config.data.train_split, config.data.test_split = "train", "test"
    for field, value in fields.items():
        override(config, field.replace("__", "."), str(value))
    clear_superseded(config, [field.replace("__", ".") for field in fields])
    return config


def rows_of(directory, kind="train"):
    return [row for row in read_rows(directory) if row["kind"] == kind]


def stopped_and_resumed(config, directory, **objects):
    """A run that is left after seven steps, and gone on with."""
    for report in train(config, directory, **objects):
        if report.kind == "step" and report.step == 7:
            break
    return run(config, directory, resume=True, **objects)


def test_by_address(folder, capsys):
    config = own_config(
        model__name="own_parts.py:Net",
        data__source="own_parts.py:open_mine",
        data__augment="(('own_parts.py:noise', 5.0), ('flip', 0.5))",
        loss__name="own_parts.py:focal",
        loss__gamma=1.5,
        optimizer__name="own_parts.py:slow_lion",
        optimizer__slowness=4.0,
        optimizer__clip_norm=1.0,
        schedule__name="own_parts.py:rise",
        schedule__learning_rate=0.01,
        schedule__power=2.0,
    )
    assert set(config.optimizer) == {"name", "slowness", "clip_norm"}
    reports = run(config, folder / "whole")
    assert not [r.values["text"] for r in reports if r.kind == "notice"]
    recorded = json.loads((folder / "whole" / "config.json").read_text())
    assert recorded["class_names"] == ["dark", "gray", "light"]
    assert recorded["config"]["loss"]["name"] == "own_parts.py:focal"
    for row in rows_of("whole"):
        assert row["learning_rate"] == pytest.approx(0.01 * (row["step"] / 12) ** 2)

    stopped_and_resumed(config, folder / "parts")
    assert_same_run(folder / "whole", folder / "parts")

    assert main(["evaluate", "whole"]) in (None, 0)
    assert "top-1" in capsys.readouterr().out
    assert main(["export", "whole", "own.safetensors"]) in (None, 0)
    Path("own_parts.py").rename("moved.py")
    for command in (["evaluate", "whole"], ["export", "whole", "other.safetensors"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "'own_parts.py:" in said and "there is no file own_parts.py in" in said


def test_as_objects(folder, monkeypatch, capsys):
    config = own_config()
    objects = {
        "model": own_parts.Net(width=6),
        "data": own_parts.open_mine(),
        "loss": lambda logits, labels: own_parts.focal(logits, labels, gamma=1.0),
        "optimizer": optax.adam(1e-2),
        "prepare": own_parts.noise,
    }
    before = config.to_json()
    reports = run(config, folder / "whole", **objects)
    assert config.to_json() == before
    (notice,) = [report.values["text"] for report in reports if report.kind == "notice"]
    assert "schedule.learning_rate" in notice
    recorded = json.loads((folder / "whole" / "config.json").read_text())["config"]
    assert recorded["model"]["name"] == "python:Net" and recorded["data"]["source"] == "python:data"
    assert recorded["loss"] == {"name": "python:loss", "aux_weight": 0.0}
    assert recorded["optimizer"] == {"name": "python:optimizer"}
    assert recorded["data"]["augment"] == [["python:noise", None]]
    assert "learning_rate" not in rows_of("whole")[0]

    stopped_and_resumed(config, folder / "parts", **objects)
    assert_same_run(folder / "whole", folder / "parts")

    # In another program, which does not have the objects:
    monkeypatch.setattr(_objects, "_passed", {})
    given = (
        "train\\(config, workdir, resume=True, model=..., data=..., loss=..., optimizer=..., pre"
    )
    with pytest.raises(ValueError, match=f"model and data and loss and .* came from .*{given}"):
        run(small_config(model="own_parts.py:Net"), folder / "whole", resume=True)
    assert main(["evaluate", "whole"]) == 2
    assert "is an object that a Python program passed to train()" in capsys.readouterr().err


def test_what_is_called_and_with_what(folder):
    logits, labels = jnp.float32([[2, 1, 0], [0, 0, 3]]), jnp.int32([0, 1])
    made = losses.make_loss("own_parts.py:focal", 3, gamma=1.0)
    np.testing.assert_allclose(made(logits, labels), own_parts.focal(logits, labels, gamma=1.0))

    prepare = pipeline.make_prepare((("own_parts.py:noise", None),), (0.0,) * 3, (1 / 255,) * 3)
    images, keys = jnp.full((2, 4, 4, 3), 100, jnp.uint8), jax.random.split(jax.random.key(0), 2)
    expected = own_parts.noise(jax.random.fold_in(keys[1], 0), images[1])
    np.testing.assert_allclose(prepare(images, keys)[1], expected, rtol=1e-5)
    np.testing.assert_allclose(prepare(images)[1], images[1])

    rate = schedules.make_schedule(
        {"name": "optax:linear_schedule", "init_value": 0.2, "end_value": 0.0}
        | {"transition_steps": 4},
        10,
        2.5,
    )
    assert float(rate(1)) == pytest.approx(0.15)

    def step(**section):
        made, rate = optimizers.make_optimizer(section, CONSTANT, 10, 2.5, PARAMS)
        updates, _ = made.update(PARAMS, made.init(PARAMS), PARAMS)
        return float(updates["kernel"][0, 0]), rate

    assert step(name="optax:sgd")[0] == pytest.approx(-0.5)
    assert step(name="optax:sgd", rates=((".*", 0.1),))[0] == pytest.approx(-0.05)
    assert step(name="optax:adamw", weight_decay=0.2)[0] == pytest.approx(-0.6, rel=1e-4)
    update, rate = step(name="own_parts.py:own_rate", b1=0.5)
    assert update == pytest.approx(-1e-3, rel=1e-3) and rate is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "own_parts.py:focl"}, "has no 'focl'; did you mean 'focal'"),
        ({"name": "parts.py:focal"}, "there is no file parts.py in .*did you mean 'own_parts.py'"),
        ({"name": "own_parts.py:focal", "gama": 1}, "unknown option 'gama' of loss.*mean 'gamma'"),
        ({"name": "own_parts.py:loss_of_logits"}, r"cannot be called with \(logits, labels\): too"),
        ({"name": "own_parts.py:mean_loss"}, r"returned float32\[\] for logits float32\[2,3\]"),
    ],
)
def test_losses_that_cannot_be_used(folder, options, message):
    name = options.pop("name")
    with pytest.raises(ValueError, match=message):
        losses.make_loss(name, 3, **options)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "optax:lino"}, "optax has no 'lino'; did you mean 'lion'"),
        (
            {"name": "optax:lion", "b3": 1},
            "unknown option 'b3' of optimizer 'optax:lion'; it takes learning_rate, b1",
        ),
        ({"name": "optax:scale"}, r"'optax:scale' cannot be called with \(\): missing .*step_size"),
        ({"name": "own_parts.py:number_for_optimizer"}, "of type float; it must return an optax.G"),
        ({"name": "own_parts.py:update_of_one_number"}, "not have the shapes of the parameters"),
    ],
)
def test_optimizers_that_cannot_be_used(folder, section, message):
    with pytest.raises(ValueError, match=message):
        optimizers.make_optimizer(section, CONSTANT, 10, 2.5, PARAMS)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "optax:cosine_decay_schedule"}, r"with \(\): missing a required argument: 'init"),
        ({"name": "own_parts.py:rise", "factor": 1}, "unknown option 'factor' of schedule"),
        ({"name": "own_parts.py:number_for_schedule", "learning_rate": 1}, "returned an object of"),
        (
            {"name": "own_parts.py:rate_of_two", "learning_rate": 1},
            r"int32\[2\] for a step; the ra",
        ),
    ],
)
def test_schedules_that_cannot_be_used(folder, section, message):
    with pytest.raises(ValueError, match=message):
        schedules.make_schedule(section, 10, 2.5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.augment", "(('own_parts.py:smaller', 1),)", r"returned uint8\[31,32,3\]; it must"),
        ("data.augment", "(('own_parts.py:without_key', 1),)", r"with \(key, image, amount\): too"),
        ("data.source", "own_parts.py:nothing", r"of type NoneType; it must return \(\(images"),
        ("data.source", "own_parts.py:with_argument", r"with \(\): missing a required argument"),
        ("data.source", "own_parts.py:floats", r"'train' has images float32\[90,8,8,3\]; they m"),
        ("data.source", "own_parts.py:gray", r"images uint8\[90,8,8\]; they must be uint8\[N,H,W"),
        ("data.source", "own_parts.py:one_hot", r"labels float64\[90,3\]; they must be int32"),
        ("data.source", "own_parts.py:fewer_labels", "has 90 images and 89 labels"),
        ("data.source", "own_parts.py:count_of_classes", "has class names 3; they must be strings"),
        ("data.source", "own_parts.py:two_names", "label 2 of example 2 in 'train' of .* 0 to 1"),
        ("loss.name", "own_parts.py:mean_loss", "it must return one number for each example"),
        (
            "data.source",
            "own_parts.py:misspelled_source",
            r"py, line \d+: NameError: name 'opne_mine'",
        ),
        ("loss.name", "own_parts.py:misspelled_loss", r"py, line \d+: AttributeError: .* men"),
        (
            "data.augment",
            "(('own_parts.py:misspelled_step', 1),)",
            r"py, line \d+: KeyError: 'imge'",
        ),
        (
            "optimizer.name",
            "own_parts.py:misspelled_optimizer",
            r"py, line \d+: AttributeError: .* 'sgdd'",
        ),
        (
            "schedule.name",
            "own_parts.py:misspelled_schedule",
            r"py, line \d+: NameError: name 'stp'",
        ),
        ("model.name", "own_parts.py:WithoutTrain", "cannot be called with .images, train=False"),
        ("model.name", "own_parts.py:Maps", r"returned float32\[1,32,32,10\] for images "),
        ("model.name", "own_parts.py:Pair", r"returned an object of type tuple .* float32\[1,10\]"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_directory(
    tiny_network,  # noqa: F811
    folder,
    capsys,
    field,
    value,
    message,
):
    Path("config.py").write_text(
        "from small import small_config\n"
        "def get_config():\n"
        "    config = small_config()\n"
        "    config.data.train_split = config.data.test_split = 'train'\n"
        "    return config\n"
    )
    assert main(["train", "config.py", f"{field}={value}", "--workdir", "runs"]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error:" in one]
    assert re.search(message, line), line
    assert not Path("runs").exists()


def test_an_argument_of_ones_own_takes_any_value(folder):
    names = {"model": "Net", "loss": "focal", "schedule": "rise"}
    config = own_config(**{f"{section}__name": f"own_parts.py:{n}" for section, n in names.items()})
    override(config, "loss.threshold", "7")  # that of another loss is in [0, 1)
    override(config, "schedule.power", "-2")
    validate(config)
    override(config, "loss.aux_weight", "-1")
    with pytest.raises(ValueError, match=r"config\.loss\.aux_weight is -1"):
        validate(config)


def test_members_cannot_differ_in_a_rate_that_the_optimizer_has_itself(tiny_network, folder):  # noqa: F811
    config = own_config(optimizer__name="own_parts.py:own_rate")
    config.train.members = "schedule.learning_rate=0.1,0.2"
    with pytest.raises(ValueError, match="learning rate, but the optimizer sets its own"):
        run(config, folder / "runs")
