"""Checks of a configuration: unknown, missing and unused fields, and invalid values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcnn._checks import near, near_or_all
from jaxcnn._objects import PYTHON, is_address
from jaxcnn.training.config.schema import (
    EXTENSION_FIELDS,
    FIELDS,
    OBJECTS,
    OPEN_SECTIONS,
    RUNTIME_FIELDS,
    default_config,
    leaves,
    units,
    within,
)
from jaxcnn.training.optim import RESERVED_FIELDS


def validate(config: Mapping[str, Any]) -> None:
    """Checks everything that needs neither data nor devices; other checks happen at use.

    Args:
      config: a configuration with the fields of `default_config`.

    Raises:
      ValueError: a field is unknown or missing, or has an invalid value; the message names it.
    """
    from jaxcnn.models.registry import resolve  # imports JAX, which reading a run does not need

    known, given = leaves(default_config()), leaves(config)
    for field in given:
        if field not in known and not within(field, OPEN_SECTIONS):
            raise ValueError(f"unknown field config.{field}{near(field, known)}")
    for field in known:
        if field not in given and not within(field, OPEN_SECTIONS):
            raise ValueError(f"config.{field} is missing")
    for section in ("loss", "optimizer", "schedule"):
        if not isinstance(config.get(section), (ConfigDict, Mapping)):
            raise ValueError(f"config.{section} is missing")
        given |= {f"{section}.{name}": config[section][name] for name in config[section]}
    for field, value in given.items():
        if field in FIELDS and not _is_custom_argument(field, given):
            check_field(field, value)
    check_options(resolve(given["model.name"]), config["model"]["options"])
    if given["model.weights_only"] is not None and given["model.weights"] is None:
        raise ValueError("config.model.weights_only is set, but config.model.weights is not")
    for section, name in (("train", "length"), ("eval", "every"), ("checkpoint", "every")):
        known_units = [f"{section}.{name}_{unit}" for unit in units(name)]
        values = [given[field] for field in known_units if given[field] is not None]
        if len(values) != 1:
            raise ValueError(
                f"set one of config.{', config.'.join(known_units)}, not {len(values)}"
            )


def _is_custom_argument(field: str, given: Mapping[str, Any]) -> bool:
    """Whether a field is an argument of a custom function, which may have any value."""
    section, _, last = field.partition(".")
    if section not in RESERVED_FIELDS or last in RESERVED_FIELDS[section]:
        return False
    return is_address(given.get(f"{section}.name"))


def check_field(name: str, value: Any) -> None:
    """Raises ValueError unless the value is valid for the field; see `schema.FIELDS`."""
    field = FIELDS[name]
    if value is None and field.optional:
        return
    if value is None or not field.is_valid(value):
        hint = near(str(value), field.choices) or f"; it must be {field.valid}"
        raise ValueError(f"config.{name} is {_shown(value)}{hint}")


def _shown(value: Any, longest: int = 80) -> str:
    """A value in one line that is not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= longest else f"{text[:longest]} ..."


# Options of a network that the rest of the configuration determines.
FIXED_OPTIONS = {
    "num_classes": "the data",
    "dtype": "config.model.dtype",
    "axis_name": "config.train.bn_sync",
    "bn_group": "config.train.bn_group",
}
# Options of `create_model` that are not fields of the networks; `create_model` checks them.
_CREATED_OPTIONS = ("box_head", "block_type")
_OPTION_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}


def check_options(model: str, options: Any) -> None:
    """Raises ValueError unless a network has these options and the values have the right types."""
    if not isinstance(options, (ConfigDict, Mapping)):
        raise ValueError(f"config.model.options is {options!r}; it must be fields and values")
    from jaxcnn.models.registry import RENAMED_OPTIONS, create_model

    module = create_model(model)
    types: dict[str, str] = {  # texts where the module's file imports annotations from __future__
        field.name: getattr(field.type, "__name__", str(field.type))
        for field in dataclasses.fields(module)
    }
    for name in options:
        value = options[name]
        if name in FIXED_OPTIONS:
            raise ValueError(
                f"config.model.options.{name} cannot be set; it follows from {FIXED_OPTIONS[name]}"
            )
        if name in _CREATED_OPTIONS:
            continue
        if name not in types:
            name = RENAMED_OPTIONS.get(name, name)
        if name not in types or name in ("parent", "name"):
            hint = near_or_all(name, sorted({*types} - {"parent", "name", *FIXED_OPTIONS}))
            raise ValueError(f"unknown option {name!r} of model {model!r}{hint}")
        right = _OPTION_TYPES.get(types[name])
        if right and (not isinstance(value, right) or (type(value) is bool and bool not in right)):
            raise ValueError(
                f"config.model.options.{name} is {_shown(value)}; it must be {types[name]}"
            )


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, extend: bool = False, moved: bool = False
) -> list[str]:
    """Describes differences between configurations that would change the results of a resumed run.

    Args:
      old: the configuration that the run was started with.
      new: the configuration to resume it with.
      extend: whether the length may differ.
      moved: whether the path of image files may differ, since the examples are compared when they
        are opened.

    Returns:
      One description per difference.
    """
    before, after = leaves(old), leaves(new)
    passed = [
        argument
        for argument, field in OBJECTS.items()
        if f"'{PYTHON}" in repr(before.get(field))
        and _plain(before[field]) != _plain(after.get(field))
    ]
    if passed:
        arguments = ", ".join(f"{argument}=..." for argument in passed)
        return [
            f"its {' and '.join(passed)} came from a Python program; continue there, with "
            f"train(config, workdir, resume=True, {arguments})"
        ]
    allowed = (*RUNTIME_FIELDS, *EXTENSION_FIELDS) if extend else RUNTIME_FIELDS
    changes = []
    for field in sorted(before.keys() | after.keys()):
        was, now = (_plain(values.get(field)) for values in (before, after))
        if field == "data.source" and moved and _have_moved(was, now):
            continue
        if was != now and not within(field, allowed):
            changes.append(f"{field}: {_shown(was, 40)} in the run, {_shown(now, 40)} now")
    return changes


def _have_moved(before: Any, now: Any) -> bool:
    """Whether two sources are the same but for the path of their files."""
    from jaxcnn.data.kinds import without_place

    texts = isinstance(before, str) and isinstance(now, str)
    return texts and without_place(before) == without_place(now)


def differences_text(different: Sequence[str]) -> str:
    """The first three of some differences, and how many more there are."""
    more = [f"and {len(different) - 3} more"] if len(different) > 3 else []
    return "; ".join([*different[:3], *more])


def _plain(value: Any) -> Any:
    """Converts a value to what a JSON round trip returns."""
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class TrackedConfig(Mapping):
    """A read-only configuration that tracks which fields were read, to report unused fields.

    Args:
      config: the configuration.
      prefix: path of the section that `config` is, such as "train.".
      read: the paths read so far, shared with other sections.
    """

    def __init__(self, config: Mapping[str, Any], prefix: str = "", read: set | None = None):
        self._config, self._prefix = config, prefix
        self._read: set[str] = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        value = self._config[name]
        path = self._prefix + name
        if isinstance(value, (ConfigDict, Mapping)):
            return TrackedConfig(value, f"{path}.", self._read)
        self._read.add(path)
        return value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"unknown field config.{self._prefix}{name}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._config)

    def __len__(self) -> int:
        return len(self._config)

    def add_reads(self, other: TrackedConfig) -> None:
        """Marks the fields that `other` has read as read."""
        self._read |= other._read

    def with_shared_reads(self, config: Mapping[str, Any]) -> TrackedConfig:
        """Tracks another configuration; a field read in either one counts as read in both."""
        return TrackedConfig(config, self._prefix, self._read)

    def unread(self) -> list[str]:
        """Returns the paths of the fields that have a value and were not read."""
        paths = leaves(self._config, self._prefix)
        return sorted(p for p, value in paths.items() if value is not None and p not in self._read)
