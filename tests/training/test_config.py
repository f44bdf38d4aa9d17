"""Configurations: reading, overriding, and what is refused."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import (
    TrackedConfig,
    default_config,
    differences,
    leaves,
    schema,
    set_duration,
    validate,
    with_present_names,
)
from jaxcnn.training.config.files import override, read_config

FILE = """
from jaxcnn.training.config import default_config

def get_config(arg=None):
    if arg not in (None, "smoke"):
        raise ValueError(f"argument is {arg!r}; it must be 'smoke'")
    config = default_config()
    config.train.seed = 7 if arg else 0
    return config
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.py"
    path.write_text(FILE)
    return str(path)


def test_default_is_valid_and_locked():
    config = default_config()
    validate(config)
    with pytest.raises(AttributeError, match="batch_size"):
        config.train.bach_size = 3


def test_defaults_are_not_shared():
    one, other = default_config(), default_config()
    set_duration(one.train, "length", steps=5)
    assert (other.train.length_epochs, other.train.length_steps) == (10.0, None)
    assert (one.train.length_epochs, one.train.length_steps) == (None, 5)


def test_argument_and_overrides(file):
    overrides = [
        "train.batch_size=64",
        "schedule.learning_rate=1e-2",
        "data.dir=/data",
        "data.augment=(('shift', 2),)",
        "optimizer.nesterov=true",
        "model.name=lenet5_modern",
    ]
    config = read_config(f"{file}:smoke", overrides)
    assert config.train.seed == 7
    assert config.train.batch_size == 64
    assert config.schedule.learning_rate == 0.01
    assert config.data.dir == "/data"
    assert config.data.augment == (("shift", 2),)
    assert config.optimizer.nesterov is True
    assert read_config(file).train.seed == 0


def test_a_duration_in_steps_replaces_one_in_epochs(file):
    config = read_config(file, {"train.length_steps": "12", "eval.every_steps": "3"})
    assert (config.train.length_steps, config.train.length_epochs) == (12, None)
    assert (config.eval.every_steps, config.eval.every_epochs) == (3, None)
    validate(config)


def test_a_file_beside_can_be_imported(tmp_path, file):
    path = tmp_path / "variant.py"
    path.write_text(
        "import study\n\ndef get_config(arg=None):\n    return study.get_config('smoke')\n"
    )
    assert read_config(str(path)).train.seed == 7


def test_free_sections_take_new_fields(file):
    overrides = ["model.options.width=8", "model.options.act=tanh", "optimizer.nesterov=true"]
    config = read_config(file, [*overrides, "schedule.boundaries_percent=[50, 75]"])
    assert config.model.options.to_dict() == {"width": 8, "act": "tanh"}
    assert config.optimizer.nesterov is True and config.schedule.boundaries_percent == (50, 75)
    config = read_config(file, ["model.options={'blocks': (1, 1), 'remat': True}"])
    assert config.model.options.to_dict() == {"blocks": (1, 1), "remat": True}
    validate(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bach_size=3", "unknown field config.train.bach_size; .*'train.batch_size'"),
        ("trian.batch_size=3", "unknown field config.trian.batch_size; .*'train.batch_size'"),
        ("train.batch_size.x=3", "unknown field config.train.batch_size.x"),
        ("train.batch_size=many", "config.train.batch_size is 'many'; it must be of type int"),
        ("optimizer.nesterov=perhaps", "config.optimizer.nesterov is 'perhaps'.* bool"),
        ("data.augment=((", "config.data.augment is '\\(\\('"),
        ("train=3", "config.train is a section"),
        ("train.batch_size", "does not say field=value"),
    ],
)
def test_a_wrong_override_is_named(file, override, message):
    with pytest.raises(ValueError, match=message):
        read_config(file, [override])


def test_a_wrong_file_is_named(tmp_path, file):
    with pytest.raises(ValueError, match=r"no configuration file.*stduy.*did you mean.*study"):
        read_config(file.replace("study", "stduy"))
    with pytest.raises(ValueError, match="argument is 'somke'"):
        read_config(f"{file}:somke")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(ValueError, match="has no get_config"):
        read_config(str(empty))
    broken = tmp_path / "broken.py"
    broken.write_text("x = 1\ndef get_config(:\n")
    with pytest.raises(ValueError, match=r"broken.py, line 2"):
        read_config(str(broken))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.name", "lenet5_moderm", "unknown model 'lenet5_moderm'; did you mean"),
        ("model.dtype", "float16", "config.model.dtype is 'float16'"),
        ("train.parallel", "shardmap", "config.train.parallel is 'shardmap'; .*'shard_map'"),
        ("train.batch_size", None, "config.train.batch_size is None; it must be an integer"),
        ("train.batch_size", 0, "config.train.batch_size is 0; it must be an integer, 1 or more"),
        ("train.seed", -1, "config.train.seed is -1"),
        ("train.length_epochs", 0.0, "config.train.length is 0.0; it must be above 0"),
        ("train.length_epochs", None, "set one of config.train.length_epochs, "),
        ("train.length_steps", 4, "set one of config.train.length_epochs, .*, not 2"),
    ],
)
def test_a_wrong_value_is_named(field, value, message):
    config = default_config()
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(ValueError, match=message):
        validate(config)


def test_unknown_and_missing_fields_are_named():
    config = default_config().to_dict()
    config["train"]["bach_size"] = 3
    with pytest.raises(ValueError, match=r"unknown field config\.train\.bach_size; .*batch_size"):
        validate(config)
    del config["train"]["bach_size"], config["train"]["seed"]
    with pytest.raises(ValueError, match=r"config\.train\.seed is missing"):
        validate(config)


def test_differences_are_of_results_only():
    old, new = default_config(), default_config()
    new.data.dir, new.train.devices, new.log.every_steps = "/elsewhere", 4, 99
    assert differences(old.to_dict(), new) == []
    new.train.batch_size, new.data.augment = 64, (("flip",),)
    assert differences(old.to_dict(), new) == [
        "config.data.augment was [] and is [['flip']]",
        "config.train.batch_size was 128 and is 64",
    ]


def test_fields_that_nothing_reads_are_found():
    config = default_config()
    tracked = TrackedConfig(config)
    assert tracked.train.batch_size == tracked["train"]["batch_size"] == 128
    assert tracked.schedule.get("factor") is None
    dict(tracked.optimizer)
    every = {path for path, value in leaves(config).items() if value is not None}
    read = {"train.batch_size", *(f"optimizer.{name}" for name in config.optimizer)}
    assert set(tracked.unread()) == every - read
    with pytest.raises(AttributeError, match=r"config\.train\.bach_size"):
        _ = tracked.train.bach_size


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("eval.every_steps=7", 7),
        ("eval.every_epochs=2", 2 * 1437 / 64),
        ("eval.every_examples=640", 10),
        ("eval.every_percent=25", 100 / 4),
        ("eval.every_examples=1", 1),
    ],
)
def test_a_duration_in_any_unit_clears_the_others(override, expected):
    """1,437 digits in batches of 64; a run of 6,400 examples."""
    path = Path(__file__).parents[2] / "configs" / "lenet_digits.py"
    config = read_config(str(path), [override, "train.length_examples=6400", "train.devices=1"])
    assert config.train.length_epochs is None
    calendar = build_experiment(TrackedConfig(config)).calendar
    assert calendar.total_steps == 100
    assert calendar.eval_every == pytest.approx(expected)


def test_a_length_has_no_percent():
    config = default_config()
    with pytest.raises(ValueError, match="length: give one of epochs, steps, examples"):
        set_duration(config.train, "length", percent=10.0)
    config.eval.every_percent = 10.0
    with pytest.raises(ValueError, match=r"set one of config\.eval\.every_epochs, .*, not 2"):
        validate(config)


def test_renamed_fields_work_by_their_former_names(capsys):
    """In a file of one's own, on the command line, and in a plain mapping such as config.json."""
    schema._noted.clear()
    config = default_config()
    config.train.members_by = "turn"
    override(config, "train.members_by", "turn")
    old = json.loads(config.to_json())
    old["train"]["members_by"] = old["train"].pop("ensemble_mode")
    for made in (config.to_dict(), with_present_names(old), with_present_names(ConfigDict(old))):
        assert made["train"]["ensemble_mode"] == "sequential"
        validate(made)
    assert "ensemble_mode" not in old["train"], "a copy is changed"
    error = capsys.readouterr().err
    assert error == "note: config.train.members_by is now config.train.ensemble_mode\n"


@pytest.mark.parametrize("field", ["eval.every_epochs", "train.length_epochs"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_durations_are_finite(field, value):
    config = default_config()
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(ValueError, match=field.rpartition("_")[0]):
        validate(config)
