"""Checks of a configuration: unknown, missing and unused fields, and values that cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxcnn._checks import near, one_of
from jaxcnn.models.registry import resolve
from jaxcnn.training.config.schema import (
    DTYPES,
    ENSEMBLE_MODES,
    OPEN_SECTIONS,
    PARALLEL,
    RUNTIME_FIELDS,
    default_config,
    leaves,
    units,
    within,
)


def validate(config: Mapping[str, Any]) -> None:
    """Checks what can be checked without data and devices; the rest is checked where it is used.

    Raises:
      ValueError: an unknown or missing field, or a value that cannot be, named.
    """
    known, given = leaves(default_config()), leaves(config)
    for field in given:
        if field not in known and not within(field, OPEN_SECTIONS):
            raise ValueError(f"unknown field config.{field}{near(field, known)}")
    for field in known:
        if field not in given and not within(field, OPEN_SECTIONS):
            raise ValueError(f"config.{field} is missing")
    for section in ("loss", "optimizer", "schedule"):
        if section not in config:
            raise ValueError(f"config.{section} is missing")
    resolve(given["model.name"])
    one_of("config.model.dtype", given["model.dtype"], DTYPES)
    one_of("config.train.parallel", given["train.parallel"], PARALLEL)
    if given["train.ensemble_mode"] is not None:
        one_of("config.train.ensemble_mode", given["train.ensemble_mode"], ENSEMBLE_MODES)
    if given["model.weights_only"] is not None and given["model.weights"] is None:
        raise ValueError("config.model.weights_only is set, and config.model.weights is not")
    counts = ("train.batch_size", "train.accumulate", "eval.batch_size", "checkpoint.keep")
    for field in (*counts, "log.every_steps"):
        _at_least(field, given[field], 1)
    for field in ("train.seed", "train.devices", "train.steps_per_call", "log.profile"):
        _at_least(field, given[field], 0)
    if given["train.bn_group"] is not None:
        _at_least("train.bn_group", given["train.bn_group"], 1)
    for field in ("train.init_seed", "train.dropout_seed"):
        if given[field] is not None:
            _at_least(field, given[field], 0)
    smoothing, decay = given.get("loss.label_smoothing", 0), given["train.ema_decay"]
    for field, value in (("loss.label_smoothing", smoothing), ("train.ema_decay", decay)):
        if not 0 <= value < 1:
            raise ValueError(f"config.{field} is {value}; it must be in [0, 1)")
    for section, name in (("train", "length"), ("eval", "every"), ("checkpoint", "every")):
        known_units = [f"{section}.{name}_{unit}" for unit in units(name)]
        values = [given[field] for field in known_units if given[field] is not None]
        if len(values) != 1:
            raise ValueError(
                f"set one of config.{', config.'.join(known_units)}, not {len(values)}"
            )
        if not values[0] > 0:
            raise ValueError(f"config.{section}.{name} is {values[0]}; it must be above 0")
        if not math.isfinite(values[0]):
            raise ValueError(f"config.{section}.{name} is {values[0]}; it must be finite")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Fields in which a resumed run's configuration would change what comes out, in words."""
    before, after = leaves(old), leaves(new)
    found = []
    for field in sorted(before.keys() | after.keys()):
        was, now = (_plain(values.get(field)) for values in (before, after))
        if was != now and not within(field, RUNTIME_FIELDS):
            found.append(f"config.{field} was {was!r} and is {now!r}")
    return found


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _at_least(field: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"config.{field} is {value!r}; it must be an integer, {least} or more")


class TrackedConfig(Mapping):
    """A configuration that remembers which fields were read, to find those that nothing reads."""

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

    def share(self, other: TrackedConfig) -> None:
        """Counts as read what the other has read."""
        self._read |= other._read

    def of(self, config: Mapping[str, Any]) -> TrackedConfig:
        """Another configuration; what is read in one of the two counts as read in both."""
        return TrackedConfig(config, self._prefix, self._read)

    def unread(self) -> list[str]:
        """Paths of the fields that have a value and were not read."""
        paths = leaves(self._config, self._prefix)
        return sorted(p for p, value in paths.items() if value is not None and p not in self._read)
