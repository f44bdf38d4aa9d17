"""What a study is: settings to compare, what they share, and how it is shown.

One's own study is a file with `get_study()`, of ten lines:

    from jaxcnn.studies.study import Run, Study

    def get_study():
        return Study(
            title="Dropout in LeNet-5",
            base={"model.name": "lenet5", "train.length_epochs": 20.0},
            runs=[Run(f"dropout {p}", {"model.options": {"dropout": p}}, x=p) for p in (0.0, 0.5)],
            x="dropout",
        )

Fields are those of `jaxcnn.training.config.default_config`, with dots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcnn._checks import near
from jaxcnn.training.config import (
    OPEN_SECTIONS,
    default_config,
    leaves,
    set_duration,
    units,
    within,
)
from jaxcnn.training.config.files import override, split_overrides

Overrides = Mapping[str, Any]
_DURATIONS = (("train", "length"), ("eval", "every"), ("checkpoint", "every"))
SCHEDULE_DURATIONS = ("warmup", "boundaries", "every", "rise")


@dataclasses.dataclass(frozen=True)
class Run:
    """One setting of a study; it is trained once for each seed.

    Fields:
      label: its name in table and figure.
      overrides: what sets it apart, {"model.name": "plain20_cifar"}.
      panel: the part of the figure that its curves are drawn in; panels stand side by side.
      x: its place on the study's x-axis; None where the study has none but steps.
      published: the error of the full study in percent, as published.
      rank: runs of the highest rank are left out first where a budget is short; 0 never is.
    """

    label: str
    overrides: Overrides
    panel: str = ""
    x: float | None = None
    published: float | None = None
    rank: int = 0


@dataclasses.dataclass(frozen=True)
class Study:
    """Settings to compare.

    Fields:
      title: of table and figure.
      base: fields that all runs share, in the full study.
      runs: the settings.
      small: fields that differ in the small form, which a budget scales down further; the full
        study leaves them out.
      seeds: how many, in the full study; the small form has one.
      x: name of the x-axis on which the last errors are drawn; None draws curves over steps alone.
      metric: of the evaluations' rows, such as "top1_error".
      source: where the published errors are from, and whose question it is.
    """

    title: str
    base: Overrides
    runs: Sequence[Run]
    small: Overrides = dataclasses.field(default_factory=dict)
    seeds: int = 3
    x: str | None = None
    metric: str = "top1_error"
    source: str = ""


def make_config(*overrides: Overrides) -> ConfigDict:
    """The default configuration with fields set, later ones over earlier ones.

    A duration that is set in one unit is cleared in the other.

    Raises:
      ValueError: a field is unknown.
    """
    config = default_config()
    for given in overrides:
        for field, value in given.items():
            _set(config, field, value)
    return config


def read_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """{"train.batch_size": 64} of "train.batch_size=64" strings, read as the field's type.

    Raises:
      ValueError: no "=", an unknown field, or a value of another type.
    """
    fields = default_config()
    found: dict[str, Any] = {}
    for field, value in split_overrides(texts).items():
        override(fields, field, value)
        found |= {name: v for name, v in leaves(fields).items() if within(name, (field,))}
    return found


def _set(config: ConfigDict, field: str, value: Any) -> None:
    section, _, last = field.rpartition(".")
    parent: Any = config
    for name in filter(None, section.split(".")):
        parent = parent.get(name)
        if not isinstance(parent, ConfigDict):
            break
    known = isinstance(parent, ConfigDict) and (last in parent or within(field, OPEN_SECTIONS))
    if not known:
        raise ValueError(f"unknown field config.{field}{near(field, leaves(config))}")
    for owner, name in _DURATIONS:
        if section == owner and last in [f"{name}_{unit}" for unit in units(name)]:
            set_duration(config[owner], name, **{last.removeprefix(f"{name}_"): value})
            return
    with parent.unlocked():
        name, _, unit = last.rpartition("_")
        if section == "schedule" and name in SCHEDULE_DURATIONS and unit in units("every"):
            for other in units("every"):
                if f"{name}_{other}" in parent:
                    del parent[f"{name}_{other}"]
        parent[last] = value
