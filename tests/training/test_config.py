"""Configurations: reading, overriding, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxcnn import configs
from jaxcnn._checks import note_once
from jaxcnn.training import train
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import (
    TrackedConfig,
    default_config,
    differences,
    leaves,
    set_duration,
    smoke,
    validate,
    with_present_names,
)
from jaxcnn.training.config.files import override, read_config
from jaxcnn.training.config.schema import FIELDS
from jaxcnn.training.guard import preflight
from jaxcnn.training.optim.schedules import make_schedule

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
        "from . import study\n\ndef get_config(arg=None):\n    return study.get_config('smoke')\n"
    )
    before = list(sys.path)
    assert read_config(str(path)).train.seed == 7
    assert sys.path == before
    path.write_text("import study\n")
    with pytest.raises(ValueError, match=r"variant.py, line 1: .* is imported as `from . import"):
        read_config(str(path))


def test_free_sections_take_new_fields(file):
    overrides = ["model.options.width=8", "model.options.act=tanh", "optimizer.nesterov=true"]
    config = read_config(file, [*overrides, "schedule.boundaries_percent=[50, 75]"])
    assert config.model.options.to_dict() == {"width": 8, "act": "tanh"}
    assert config.optimizer.nesterov is True and config.schedule.boundaries_percent == (50, 75)
    config = read_config(file, ["model.options={'blocks': (1, 1), 'remat': True}"])
    assert config.model.options.to_dict() == {"blocks": (1, 1), "remat": True}
    config.model.name = "resnet18"
    validate(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bach_size=3", "unknown field config.train.bach_size; .*'train.batch_size'"),
        ("trian.batch_size=3", "unknown field config.trian.batch_size; .*'train.batch_size'"),
        ("model.bn_momentum=0.9", "unknown .*'model.options.bn_momentum'"),
        ("train.batch_size.x=3", "unknown field config.train.batch_size.x"),
        ("train.batch_size=many", "config.train.batch_size is 'many'; it must be of type int"),
        ("optimizer.nesterov=perhaps", "config.optimizer.nesterov is 'perhaps'.* bool"),
        ("data.augment=((", "config.data.augment is '\\(\\('"),
        ("train=3", "config.train is a section"),
        ("train.batch_size", "expected FIELD=VALUE, got 'train.batch_size'"),
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
    ("text", "message"),
    [
        ("c.model.nmae = 'x'", r"slip.py, line 5: .*nmae"),
        ("c.train.batch_size = 'x'", r"slip.py, line 5: .*str.*int"),
        ("__import__('sys').exit(1)", r"slip.py, line 5: it exits the program \(1\)"),
        ("int('x')", r"slip.py, line 5: invalid literal for int"),
        ("c.train['a'] = c.train['b']", r"slip.py, line 5: .*'b'"),
        ("return get_config()", r"slip.py, line [45]: maximum recursion depth"),
        ("return None", r"get_config\(\) of .*slip.py returned NoneType; it must return"),
        ("undefined", r"slip.py, line 5: name 'undefined' is not defined"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_place(tmp_path, text, message):
    path = tmp_path / "slip.py"
    lines = ["from jaxcnn.training.config import default_config", "", "def get_config(arg=None):"]
    path.write_text(
        "\n".join([*lines, "    c = default_config()", f"    {text}", "    return c\n"])
    )
    with pytest.raises(ValueError, match=message):
        read_config(str(path))


def test_recipes_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config("cifar_resnet:56").model.name == "resnet56_cifar"
    assert read_config("cifar_plain").model.name == "plain20_cifar"  # imports another recipe
    for typo, right in (
        ("configs/lenet.py", "'lenet_digits'"),
        ("cifar_resnt:56", "'cifar_resnet'"),
        ("zzz", "`jaxcnn train` lists"),
    ):
        with pytest.raises(ValueError, match=f"no .*configuration file.*{right}"):
            read_config(typo)


@pytest.mark.parametrize("name", configs.names())
def test_a_recipe_says_what_it_should_reach(name):
    recipe = configs.describe(name)
    assert recipe.title and recipe.target


def test_another_optimizer_drops_the_fields_of_the_last_one(file, capsys):
    config = read_config(file, ["optimizer.name=adam", "optimizer.b1=0.8"])
    assert config.optimizer.to_dict() == {"name": "adam", "weight_decay": 0.0, "b1": 0.8}
    dropped = "config.optimizer.momentum, config.optimizer.nesterov: dropped"
    assert capsys.readouterr().err == f"note: optimizer 'adam' does not take {dropped}\n"
    config = read_config(file, ["optimizer.name=adam", "optimizer.momentum=none"])
    assert "momentum" not in config.optimizer and dropped in capsys.readouterr().err
    config = read_config(file, ["loss.name=lenet_mse"])
    assert config.loss.to_dict() == {"name": "lenet_mse", "aux_weight": 0.0}
    # one that was set as well is not dropped, and is refused where the optimizer is made
    assert (
        "momentum" in read_config(file, ["optimizer.momentum=0.5", "optimizer.name=adam"]).optimizer
    )


BAD = ("none", "x", "(1,2)", "1", "-1", "0", "nan", "inf", "1e300", "9" * 20, "True", "{}", "")


@pytest.mark.parametrize("field", [*FIELDS, "model.options.channels"])
def test_a_bad_value_of_any_field_is_one_line(file, field):
    """Thirteen values that few fields can take: each is accepted or named, never a traceback."""
    refused = 0
    for text in BAD:
        try:
            validate(read_config(file, [f"{field}={text}"]))
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400
            named = field.rpartition(".")[2].partition("_")[0] in str(error)
            assert named or repr(text) in str(error), (field, text, error)
    assert refused


# Fields that hold any text; what reads it checks it. And what else a field takes of these.
FREE = (
    *("model.weights", "data.source", "data.dir", "data.cache"),
    *("data.train_split", "data.test_split"),
    *(
        "data.image",
        "data.label",
        "data.crop",
        "loss.name",
        "optimizer.name",
        "schedule.name",
        "log.wandb",
    ),
)
NEVER = ("x", "nan", "inf", "-inf", "1e300", "9" * 20, "9" * 5000, "[1", "", "'a'", "1;2", "-0.5")
NESTED = "(" * 10_000


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in FREE])
def test_twelve_values_that_no_field_takes(file, field):
    for text in (*NEVER, NESTED):
        with pytest.raises(ValueError) as error:
            validate(read_config(file, [f"{field}={text}"]))
        assert "\n" not in str(error.value) and len(str(error.value)) < 400, text[:20]


@pytest.mark.slow
@pytest.mark.parametrize("field", [*FIELDS, "model.options.act"])
def test_a_value_that_passes_the_checks_can_be_built(file, field):
    """What `validate` accepts is a run, or is refused by what reads it in one line."""
    small = ["data.train_split=train[:64]", "data.test_split=test[:64]"]
    for text in BAD:
        try:
            config = read_config(f"{file}:smoke", [*small, f"{field}={text}"])
            validate(config)
        except ValueError:
            continue
        try:
            preflight.check(build_experiment(TrackedConfig(config)))
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.name", "lenet5_moderm", "unknown model 'lenet5_moderm'; did you mean"),
        ("model.dtype", "float16", "config.model.dtype is 'float16'"),
        ("train.parallel", "shardmap", "config.train.parallel is 'shardmap'; .*'shard_map'"),
        ("train.batch_size", None, "config.train.batch_size is None; it must be an integer"),
        ("train.batch_size", 0, "config.train.batch_size is 0; it must be an integer, 1 or more"),
        ("train.seed", -1, "config.train.seed is -1"),
        ("train.length_epochs", 0.0, r"config.train.length_epochs is 0.0; .* in \(0, 1e\+06\]"),
        ("train.length_epochs", 1e300, "config.train.length_epochs is 1e\\+300; it must be"),
        ("train.members", "99999999999", "config.train.members is '99999999999'; .* 1 to 1,000"),
        ("train.members", "train.seed=" + "1," * 1000, "config.train.members is 'train.seed=1,1"),
        ("train.members", "²", "config.train.members is '²'; it must be a number, 1 to 1,000"),
        ("train.members", "all", "config.train.members is 'all'; .* or FIELD=VALUE,VALUE"),
        ("data.augment", "flip", "config.data.augment is 'flip'; it must be pairs"),
        ("model.options", {"num_classes": 3}, "options.num_classes cannot be set; .* the data"),
        ("model.options", {"activatoin": "relu"}, "unknown option 'activatoin' of model"),
        ("train.length_epochs", None, "set one of config.train.length_epochs, "),
        ("train.length_steps", 4, "set one of config.train.length_epochs, .*, not 2"),
    ],
)
def test_a_wrong_value_is_named(field, value, message):
    config = default_config()
    section, name = field.split(".")
    with config[section].ignore_type():
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
        "data.augment: [] in the run, [['flip']] now",
        "train.batch_size: 128 in the run, 64 now",
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
    note_once.cache_clear()
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


@pytest.mark.parametrize("name", [n for n in configs.names() if not n.startswith("ensembles/")])
def test_the_schedule_of_a_smoke_form_is_within_its_run(name):
    config = read_config(f"{name}:smoke")
    validate(config)
    steps_per_epoch = 128 / config.train.batch_size
    schedule = config.schedule.to_dict()
    rate = make_schedule(schedule, config.train.length_steps, steps_per_epoch, batch_size=16)
    if schedule["name"] == "step":
        last = float(rate(config.train.length_steps))
        assert last < 0.5 * schedule["learning_rate"], "every boundary is within the run"


@pytest.mark.parametrize("duration", ["rise_epochs", "rise_steps", "rise_percent"])
def test_the_rise_of_one_cycle_is_within_a_smoke_run(duration):
    config = default_config()
    config.schedule = {"name": "one_cycle", "learning_rate": 0.1, duration: 10.0}
    if duration == "rise_steps":
        config.schedule[duration] = 10
    validate(smoke(config))
    rate = make_schedule(config.schedule.to_dict(), config.train.length_steps, 8, batch_size=16)
    assert float(rate(2)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("overrides", "unused"),
    [
        (["schedule.factor=0.5"], "schedule.factor"),
        (["data.crop=inception", "data.workers=3"], "data.crop, data.workers"),
        (["train.ensemble_mode=vmap"], "train.ensemble_mode"),
    ],
)
def test_fields_that_nothing_reads_are_said_at_the_start(file, tmp_path, overrides, unused):
    small = ["data.train_split=train[:64]", "data.test_split=test[:64]", "train.devices=1"]
    config = read_config(f"{file}:smoke", [*small, "train.length_steps=1", *overrides])
    texts = []
    with train(config, tmp_path) as reports:
        for report in reports:
            if report.kind == "compiled":
                break
            texts += [report.values["text"]] if report.kind == "notice" else []
    assert f"unused config fields: {unused}" in texts
