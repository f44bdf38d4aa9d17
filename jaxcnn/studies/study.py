"""The definition of a study: settings to compare, what they share, and how they are shown.

Your own study is a file of about ten lines that defines `get_study()`:

    from jaxcnn.studies import Run, Study

    def get_study():
        return Study(
            title="Dropout in LeNet-5",
            base={"model.name": "lenet5", "train.length_epochs": 20.0},
            runs=[Run(f"dropout {p}", {"model.options": {"dropout": p}}, x=p) for p in (0.0, 0.5)],
            x="dropout",
        )

The fields are those of `jaxcnn.training.default_config`, written with dots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxcnn._checks import near, one_of
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
    """A setting of a study, which is trained once for each seed.

    Attributes:
      label: its name in the table and the figure.
      overrides: fields of the configuration that distinguish it, {"model.name": "plain20_cifar"}.
      panel: title of the panel of the figure in which its curves are drawn.
      x: its value on the study's x-axis; None if the study has none.
      published: published error of the full version in percent.
      rank: runs of the highest rank are left out first if the budget is short; those of rank 0 are
        always kept.
    """

    label: str
    overrides: Overrides
    panel: str = ""
    x: float | None = None
    published: float | None = None
    rank: int = 0


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: settings to compare.

    Attributes:
      title: of the table and the figure.
      base: fields of the configuration that all runs share.
      runs: the settings.
      small: fields to override in the small version, which is scaled to a time budget.
      seeds: number of seeds in the full version; the small version has one.
      x: label of the x-axis against which the last errors are drawn; None to draw only curves over
        steps.
      metric: error to compare, "top1_error" or "top5_error".
      source: paper that published the comparison and its errors.
    """

    title: str
    base: Overrides
    runs: Sequence[Run]
    small: Overrides = dataclasses.field(default_factory=dict)
    seeds: int = 3
    x: str | None = None
    metric: str = "top1_error"
    source: str = ""

    def __post_init__(self) -> None:
        one_of("the metric of a study", self.metric, ("top1_error", "top5_error"))


def make_config(*overrides: Overrides) -> ConfigDict:
    """Creates the default configuration with overrides.

    A duration that is set in one unit is cleared in the other units.

    Args:
      *overrides: {field: value}; later ones take precedence.

    Raises:
      ValueError: a field is unknown.
    """
    config = default_config()
    for given in overrides:
        for field, value in given.items():
            _set(config, field, value)
    return config


def read_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parses overrides such as "train.batch_size=64", with values of the fields' types.

    Args:
      texts: "field=value" for each.

    Returns:
      {field: value}.

    Raises:
      ValueError: a text has no "=", a field is unknown, or a value has the wrong type.
    """
    fields = default_config()
    overrides: dict[str, Any] = {}
    for field, value in split_overrides(texts).items():
        override(fields, field, value)
        overrides |= {name: v for name, v in leaves(fields).items() if within(name, (field,))}
    return overrides


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
