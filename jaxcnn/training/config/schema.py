"""The fields of a configuration.

A configuration is a `ConfigDict` of sections. The name of a duration ends with its unit, such as
`length_epochs`, `length_steps` or `length_examples`; one of them is set and the others are None.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from jaxcnn._checks import note_once, one_of
from jaxcnn._objects import is_address, is_passed, load_object, parameters
from jaxcnn.training.optim import RESERVED_FIELDS

DTYPES = ("float32", "bfloat16")
PARALLEL = ("auto", "jit", "shard_map", "pmap")
ENSEMBLE_MODES = ("sequential", "vmap")
MOST_MEMBERS = 1000
# Renamed fields and values: {old field: (field, {old value: value})}.
RENAMED: dict[str, tuple[str, dict[str, str]]] = {
    "train.members_by": ("train.ensemble_mode", {"turn": "sequential"}),
}
# Sections whose fields depend on the name that is set; the fields are checked at use.
OPEN_SECTIONS = ("model.options", "loss", "optimizer", "schedule")
# Fields that change how a run is executed, but not its results.
RUNTIME_FIELDS = (
    *("data.dir", "data.cache", "data.cache_gib", "data.workers"),
    *("train.parallel", "train.devices", "checkpoint", "log"),
    *("train.members", "train.ensemble_mode"),
)
# Fields that may also differ when a run is extended. `overrides` belongs to an ensemble of
# different networks; the configurations of its members are compared one by one.
EXTENSION_FIELDS = (
    *("train.length_epochs", "train.length_steps", "train.length_examples"),
    *("train.length_percent", "eval.batch_size", "overrides"),
)
# Arguments of `jaxcnn.training.train` that are objects, and the fields that name them.
OBJECTS = {
    "model": "model.name",
    "data": "data.source",
    "loss": "loss.name",
    "optimizer": "optimizer.name",
    "prepare": "data.augment",
}


class Field(NamedTuple):
    """The valid values of a field.

    Attributes:
      valid: description for messages, follows "it must be".
      is_valid: whether a value other than None is valid.
      optional: whether None is valid.
      choices: the valid strings, to suggest near matches.
    """

    valid: str
    is_valid: Callable[[Any], bool]
    optional: bool = False
    choices: tuple[str, ...] = ()


_LARGE = 10**9
_LONGEST_TEXT = 4096


def _integer(least: int, most: int = _LARGE, *, optional: bool = False) -> Field:
    def is_valid(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Field(f"an integer, {least} or more and at most {most:,}", is_valid, optional)


def _number(least: float, most: float, bounds: str = "[]", *, optional: bool = False) -> Field:
    """A number in an interval; `bounds` "(]" excludes `least` and includes `most`."""

    def is_valid(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        above = value > least if bounds[0] == "(" else value >= least
        return above and (value < most if bounds[1] == ")" else value <= most)

    return Field(f"a number in {bounds[0]}{least:g}, {most:g}{bounds[1]}", is_valid, optional)


def _text(*choices: str, optional: bool = False) -> Field:
    def is_valid(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return value in choices if choices else 0 < len(value) <= _LONGEST_TEXT

    valid = (
        f"one of {', '.join(choices)}"
        if choices
        else f"a string of 1 to {_LONGEST_TEXT:,} characters"
    )
    return Field(valid, is_valid, optional, choices)


def _is_pairs(value: Any, second: Callable[[Any], bool] = lambda _: True) -> bool:
    """Whether a value is ((text, second), ...) with valid `second`s."""
    return isinstance(value, (tuple, list)) and all(
        isinstance(p, (tuple, list)) and len(p) == 2 and isinstance(p[0], str) and second(p[1])
        for p in value
    )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_regex(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _is_boundaries(value: Any) -> bool:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return len(values) > 0 and all(_is_finite_number(v) and 0 < v < 1e15 for v in values)


def _is_members(value: Any) -> bool:
    """A count or a list of values; `training.ensemble.members` reads them."""
    if not isinstance(value, str) or len(value) > 100 * MOST_MEMBERS:
        return False
    if "=" in value:
        return value.count(",") < MOST_MEMBERS
    digits = value.strip()
    return digits.isdecimal() and len(digits) < 10 and 1 <= int(digits) <= MOST_MEMBERS


def _durations(name: str) -> dict[str, Field]:
    """Returns the fields of a duration that is one number, by unit."""
    return {
        f"{name}_epochs": _number(0, 1e6, "(]", optional=True),
        f"{name}_steps": _integer(1, optional=True),
        f"{name}_examples": _integer(1, 10**15, optional=True),
        f"{name}_percent": _number(0, 100, "(]", optional=True),
    }


_SWITCH = Field("True or False", lambda value: isinstance(value, bool))
_SEED = _integer(0, 2**32 - 1)
_PIXELS = _integer(1, 2**14, optional=True)
_MULTIPLIERS = Field(
    "pairs of a regular expression and a number",
    lambda value: _is_pairs(value, _is_finite_number),
    optional=True,
)
_BATCH = _integer(1, 2**20)
_UNIT_NUMBER = _number(0, 1, "[)")

# The valid values of each field. `loss`, `optimizer` and `schedule` list the fields of all names.
FIELDS: dict[str, Field] = {
    "model.name": _text(),
    "model.dtype": _text(*DTYPES),
    "model.weights": _text(optional=True),
    "model.weights_only": Field("a regular expression", _is_regex, True),
    "data.source": _text(),
    "data.dir": _text(optional=True),
    "data.cache": _text(optional=True),
    "data.cache_gib": _number(0, 1e9, "(]", optional=True),
    "data.image": _text(optional=True),
    "data.label": _text(optional=True),
    "data.train_split": _text(),
    "data.test_split": _text(),
    "data.augment": Field(
        "pairs of name and amount, such as (('pad_crop', 4), ('flip', 0.5))", _is_pairs
    ),
    "data.mixup": _number(0, 100),
    "data.cutmix": _number(0, 100),
    "data.image_size": _PIXELS,
    "data.crop": _text(optional=True),
    "data.eval_size": _PIXELS,
    "data.eval_resize": _PIXELS,
    "data.workers": _integer(0, 1024, optional=True),
    "train.batch_size": _BATCH,
    **{f"train.{k}": v for k, v in _durations("length").items() if not k.endswith("percent")},
    "train.seed": _SEED,
    "train.init_seed": _SEED._replace(optional=True),
    "train.dropout_seed": _SEED._replace(optional=True),
    "train.members": Field(
        f"a number, 1 to {MOST_MEMBERS:,}, or FIELD=VALUE,VALUE,...", _is_members, True
    ),
    "train.ensemble_mode": _text(*ENSEMBLE_MODES, optional=True),
    "train.parallel": _text(*PARALLEL),
    "train.devices": _integer(0, 2**20),
    "train.bn_sync": _text("global", "local"),
    "train.bn_group": _BATCH._replace(optional=True),
    "train.deterministic": _SWITCH,
    "train.steps_per_call": _integer(0, 10**6),
    "train.accumulate": _BATCH,
    "train.reduce_dtype": _text("bfloat16", optional=True),
    "train.ema_decay": _UNIT_NUMBER,
    "loss.name": _text(),
    "loss.label_smoothing": _UNIT_NUMBER,
    "loss.threshold": _UNIT_NUMBER._replace(optional=True),
    "loss.aux_weight": _number(0, 1e6),
    "loss.box_weight": _number(0, 1e6),
    "optimizer.name": _text(),
    "optimizer.weight_decay": _number(0, 1e3),
    "optimizer.decay": Field(
        "'all', 'kernels', or pairs of a regular expression and a number",
        lambda value: value in ("all", "kernels") or _is_pairs(value, _is_finite_number),
    ),
    "optimizer.rates": _MULTIPLIERS,
    "optimizer.clip_norm": _number(0, 1e6, "(]", optional=True),
    "optimizer.clip_adaptive": _number(0, 1e6, "(]", optional=True),
    **{f"optimizer.{name}": _UNIT_NUMBER for name in ("momentum", "b1", "b2", "rho")},
    **{f"optimizer.{name}": _number(0, 1e3, "(]") for name in ("eps", "trust")},
    "optimizer.nesterov": _SWITCH,
    "schedule.name": _text(),
    "schedule.learning_rate": _number(0, 1e6, "(]"),
    "schedule.factor": _number(0, 1, "()"),
    "schedule.final": _number(0, 1),
    "schedule.start": _number(0, 1),
    "schedule.power": _number(0, 100, "(]"),
    "schedule.patience": _integer(1),
    "schedule.cooldown": _integer(0),
    "schedule.rtol": _number(0, 1, "()"),
    "schedule.min_scale": _number(0, 1, "[)"),
    "schedule.staircase": _SWITCH,
    "schedule.warmup": _text("linear", "constant"),
    "schedule.warmup_from": _number(0, 1e6),
    **{f"schedule.{name}": field for name, field in _durations("every").items()},
    **{f"schedule.{name}": field for name, field in _durations("rise").items()},
    "schedule.warmup_epochs": _number(0, 1e6, optional=True),
    "schedule.warmup_steps": _integer(0, optional=True),
    "schedule.warmup_examples": _integer(0, 10**15, optional=True),
    "schedule.warmup_percent": _number(0, 100, optional=True),
    **{
        f"schedule.boundaries_{unit}": Field("positive numbers", _is_boundaries, True)
        for unit in ("epochs", "steps", "examples", "percent")
    },
    "eval.batch_size": _BATCH,
    **{f"eval.{name}": field for name, field in _durations("every").items()},
    **{f"checkpoint.{name}": field for name, field in _durations("every").items()},
    "checkpoint.keep": _integer(1, 10**6),
    "log.every_steps": _integer(1),
    "log.profile": _integer(0, 10**6),
    "log.wandb": _text(optional=True),
}


def _optimizer_fields(name: str) -> set[str]:
    from jaxcnn.training.optim import optimizers, rules

    if is_address(name):
        return _custom_fields("optimizer", name)
    one_of("optimizer.name", name, rules.RULES)
    return {*optimizers.COMMON_FIELDS, *rules.RULES[name][1]}


def _loss_fields(name: str) -> set[str]:
    from jaxcnn.training.optim import losses

    if is_address(name):
        return _custom_fields("loss", name)
    one_of("loss.name", name, losses.LOSSES)
    return {*RESERVED_FIELDS["loss"], *parameters(losses.LOSSES[name])}


def _schedule_fields(name: str) -> set[str]:
    from jaxcnn.training.optim import schedules

    if is_address(name):
        return _custom_fields("schedule", name)
    one_of("schedule.name", name, schedules.SCHEDULES)
    return {*schedules.SCHEDULE_FIELDS}


def _custom_fields(section: str, name: str) -> set[str]:
    """Returns the fields for a custom function, among them its arguments.

    An object passed in Python takes no arguments from the configuration.
    """
    arguments = () if is_passed(name) else parameters(load_object(name))
    return {*RESERVED_FIELDS[section], *arguments}


# For each section whose fields depend on the name that is set: the fields that a name takes.
SECTION_FIELDS: dict[str, Callable[[str], set[str]]] = {
    "optimizer": _optimizer_fields,
    "loss": _loss_fields,
    "schedule": _schedule_fields,
}


def default_config() -> ConfigDict:
    """Returns the default configuration, locked: only existing fields can be set.

    Names of networks, sources, augmentations, losses, optimizers and schedules may also be
    addresses of custom functions, "my_losses.py:focal" or "package.module:focal"; see
    `docs/extending.md`.

    model: `name`, an id or alias; `dtype` of the computation, "float32" or "bfloat16"; `options`,
      further fields of the network; `weights`, a run directory, published weights or a file that
      initializes everything but the classifiers (see `jaxcnn.load_pretrained`); `weights_only`, a
      regular expression: only matching layers are initialized from `weights`, which may then
      belong to another network.
    data: `source` and `dir`, see `jaxcnn.data.catalog`; `cache`, the directory of copies of files
      in buckets, None for one in the user's cache directory, and `cache_gib`, the size in GiB that
      these may have together, None for no limit; `image` and `label`, columns of an "hf:..."
      or "wds:..." source, None to find them; `train_split` and `test_split`; `augment`, see
      `jaxcnn.training.input.preprocess`; `mixup` and `cutmix`, see `jaxcnn.data.augment.mixing`.
      For streamed photos ("folder:PATH", "tfds:imagenet2012"): `image_size` in training, None for
      the input size of the network; the training `crop`, None for "inception", see
      `jaxcnn.data.crops`; `eval_size` of the center crop in evaluation, None for `image_size`;
      `eval_resize`, to which the shorter side is resized before that crop, None for 8/7 of
      `eval_size`; `workers`, the number of decoding threads, None for one per core.
    train: `batch_size` over all devices; `length_epochs`, `_steps` or `_examples`; `seed` of all
      randomness; `init_seed` of the initial weights and `dropout_seed` of dropout, None for `seed`;
      `parallel`, "auto" for "jit" on one device and "shard_map" on several; `devices`, how many to
      use, 0 for all; `bn_sync`, BatchNorm statistics of the "global" batch or of each device's
      "local" shard; `bn_group`, statistics of groups of this many consecutive examples instead;
      `steps_per_call`, steps per dispatch, 0 for 25, but 1 on a CPU and for streamed photos;
      `accumulate`, number of microbatches per device; `reduce_dtype` in which the devices'
      gradients are added up, "bfloat16" for half of the traffic between devices, None for float32;
      `deterministic`, bit-identical results of repeated runs on a GPU too, at some cost in speed;
      `ema_decay` of a running average of the weights, which is evaluated as well, 0 for none;
      `members`, runs to train together, and `ensemble_mode`, how to train them, see
      `jaxcnn.training.ensemble.members`.
    loss: `name` and options, see `jaxcnn.training.optim.losses`; `aux_weight` of auxiliary heads.
    optimizer, schedule: see `jaxcnn.training.optim.optimizers`.
    eval: `batch_size`; `every_epochs`, `_steps`, `_examples` or `_percent` of the run.
    checkpoint: `every_...` as in `eval`; `keep`, the number of newest checkpoints to keep.
    log: `every_steps`; `profile`, number of calls of the step to trace, see
      `jaxcnn.training.output.profiling`; `wandb`, a Weights & Biases project that also receives the
      metrics, if `wandb` is installed.
    """
    config = ConfigDict()
    config.model = ConfigDict(
        {
            "name": "lenet5_modern",
            "dtype": "float32",
            "options": {},
            "weights": config_dict.placeholder(str),
            "weights_only": config_dict.placeholder(str),
        }
    )
    config.data = ConfigDict(
        {
            "source": "digits",
            "dir": config_dict.placeholder(str),
            "cache": config_dict.placeholder(str),
            "cache_gib": config_dict.placeholder(float),
            "image": config_dict.placeholder(str),
            "label": config_dict.placeholder(str),
            "train_split": "train",
            "test_split": "test",
            "augment": (),
            "mixup": 0.0,
            "cutmix": 0.0,
            "image_size": config_dict.placeholder(int),
            "crop": config_dict.placeholder(str),
            "eval_size": config_dict.placeholder(int),
            "eval_resize": config_dict.placeholder(int),
            "workers": config_dict.placeholder(int),
        }
    )
    config.train = _Section(
        {
            "batch_size": 128,
            **_duration("length", epochs=10.0),
            "seed": 0,
            "init_seed": config_dict.placeholder(int),
            "dropout_seed": config_dict.placeholder(int),
            "members": config_dict.placeholder(str),
            "ensemble_mode": config_dict.placeholder(str),
            "parallel": "auto",
            "devices": 0,
            "bn_sync": "global",
            "bn_group": config_dict.placeholder(int),
            "deterministic": False,
            "steps_per_call": 0,
            "accumulate": 1,
            "reduce_dtype": config_dict.placeholder(str),
            "ema_decay": 0.0,
        }
    )
    config.loss = ConfigDict({"name": "cross_entropy", "label_smoothing": 0.0, "aux_weight": 0.0})
    config.optimizer = ConfigDict(
        {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    )
    config.schedule = ConfigDict({"name": "cosine", "learning_rate": 0.1})
    config.eval = ConfigDict({"batch_size": 256, **_duration("every", epochs=1.0)})
    config.checkpoint = ConfigDict({**_duration("every", epochs=1.0), "keep": 3})
    config.log = ConfigDict(
        {"every_steps": 10, "profile": 0, "wandb": config_dict.placeholder(str)}
    )
    return config.lock()


class _Section(ConfigDict):
    """A section that accepts the former names of renamed fields."""

    def __setitem__(self, key: Any, value: Any) -> None:
        former = f"train.{key}"
        if former in RENAMED:
            field, value = present_name(former, value)
            key = field.rpartition(".")[2]
        super().__setitem__(key, value)


def present_name(field: str, value: Any) -> tuple[str, Any]:
    """Returns the current names of a field and its value; prints a former name once as a notice."""
    if field not in RENAMED:
        return field, value
    name, values = RENAMED[field]
    note_once(f"config.{field} is now config.{name}")
    return name, values.get(value, value)


def with_present_names(config: Any) -> Any:
    """Returns the configuration, or a copy with the current names if it has renamed fields."""
    given = leaves(config)
    if not any(field in given for field in RENAMED):
        return config
    config = copy.deepcopy(config)
    unlocked = config.unlocked() if isinstance(config, ConfigDict) else contextlib.nullcontext()
    with unlocked:
        for former in RENAMED.keys() & given.keys():
            section, _, last = former.rpartition(".")
            field, value = present_name(former, given[former])
            del config[section][last]
            config[section][field.rpartition(".")[2]] = value
    return config


def _duration(name: str, *, epochs: float) -> dict[str, Any]:
    fields = ConfigDict(
        {f"{name}_{unit}": config_dict.placeholder(kind) for unit, kind in units(name).items()}
    )
    fields[f"{name}_epochs"] = epochs
    return {key: fields.get_ref(key) for key in fields}


def units(name: str) -> dict[str, type]:
    """Returns the units of the duration `length` or `every`, each with its type.

    `every` may also be in percent of the length.
    """
    absolute = {"epochs": float, "steps": int, "examples": int}
    return absolute if name == "length" else absolute | {"percent": float}


def set_duration(section: ConfigDict, name: str, **value: float) -> None:
    """Sets a duration in one unit and clears the others.

    `set_duration(config.train, "length", steps=5)`

    Args:
      section: the section, changed in place.
      name: "length" or "every".
      **value: one unit and its value.

    Raises:
      ValueError: the keyword arguments are not exactly one known unit.
    """
    known = units(name)
    if len(value) != 1 or not value.keys() <= known.keys():
        raise ValueError(f"{name}: give one of {', '.join(known)}")
    for unit in known:
        section[f"{name}_{unit}"] = value.get(unit)


def smoke(
    config: ConfigDict, *, source: str = "synthetic", batch_size: int = 16, evaluated: int = 64
) -> ConfigDict:
    """Shortens a configuration to five steps of a small batch, to try it in seconds.

    Args:
      config: the configuration, changed in place.
      source: the data source.
      batch_size: examples per step, in training and in evaluation.
      evaluated: number of test examples to evaluate.

    Returns:
      `config`.
    """
    config.data.source = source
    config.data.train_split = f"train[:{min(128, 8 * batch_size)}]"
    config.data.test_split = f"test[:{evaluated}]"
    config.train.batch_size = config.eval.batch_size = batch_size
    config.train.accumulate = 1
    config.train.bn_group = None
    config.model.weights = config.model.weights_only = None
    for field in ("image", "label", "image_size", "crop", "eval_size", "eval_resize"):
        config.data[field] = None
    set_duration(config.train, "length", steps=5)
    for section in (config.eval, config.checkpoint):
        set_duration(section, "every", steps=5)
    config.log.every_steps = 1
    for name in ("warmup", "rise"):
        _shorten(config, name, lambda _: 2)
    _shorten(config, "boundaries", _last_steps)
    return config


def _last_steps(boundaries: Any) -> tuple[int, ...]:
    """Returns one step for each boundary, at most four: the last steps of a run of five."""
    count = len(boundaries) if isinstance(boundaries, (tuple, list)) else 1
    return tuple(range(5 - min(4, count), 5))


def _shorten(config: ConfigDict, name: str, steps: Callable[[Any], Any]) -> None:
    """Replaces a duration of the schedule, if set, by `steps(value)`."""
    fields = [f"{name}_{unit}" for unit in units("every")]
    values = [config.schedule[f] for f in fields if config.schedule.get(f) is not None]
    if values:
        others = {k: v for k, v in config.schedule.items() if k not in fields}
        config.schedule = {**others, f"{name}_steps": steps(values[0])}


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns every value by its path, {"train.batch_size": 128, ...}, without empty sections."""
    flat: dict[str, Any] = {}
    for name in config:
        value = config[name]
        if isinstance(value, (ConfigDict, Mapping)):
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def within(field: str, sections: Sequence[str]) -> bool:
    """Whether a field is one of `sections`, or lies in one of them."""
    return any(field == section or field.startswith(f"{section}.") for section in sections)
