"""Ensembles of different networks, described by a file.

The file defines `get_ensemble() -> Ensemble`; configs/ensembles has files for competition entries.
`jaxcnn train FILE --workdir DIR` trains the members in `DIR/member_0` and so on; each of these is
the directory of a complete run. `jaxcnn evaluate --as FILE DIR` evaluates every member by its
protocol, and the ensemble. With ":smoke" after FILE the members are narrow networks, trained for
five steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn._objects import mistakes_in
from jaxcnn.reporting.report import Report
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import (
    apply_overrides,
    load_function,
    read_config,
    split_overrides,
    split_spec,
)
from jaxcnn.training.ensemble import members
from jaxcnn.training.ensemble import shared as shared_build
from jaxcnn.training.output.records import member_directory
from jaxcnn.training.output.workdir import check_workdir


@dataclasses.dataclass(frozen=True)
class Member:
    """A network of an ensemble: how to train and evaluate it.

    Attributes:
      name: name for tables.
      recipe: a configuration file, relative to the folder of the ensemble's file, with ":argument".
      options: fields of the network.
      overrides: fields of the configuration, as for `jaxcnn train`.
      view: views in evaluation, as after the "@" of `jaxcnn evaluate`.
      stand_in: id of a network that replaces it in the smoke form if it has no narrow form; "" for
        none.
      smoke: fields of the network in the smoke form.
    """

    name: str
    recipe: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    view: str = "center"
    stand_in: str = ""
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Members, and how to combine their predictions.

    Attributes:
      members: the members, in the order of their directories.
      combination: name of a row in the table of `jaxcnn evaluate`.
      published: the published error and its source.
      unverified: choices of this project that are not published; "" if there are none.
    """

    members: Sequence[Member]
    combination: str
    published: str
    unverified: str = ""


def is_ensemble(spec: str) -> bool:
    """Whether a configuration file describes an ensemble."""
    file, _ = split_spec(spec)
    return file.suffix == ".py" and file.is_file() and "def get_ensemble" in file.read_text("utf-8")


def read_ensemble(spec: str) -> Ensemble:
    """Reads the ensemble of a file.

    Args:
      spec: "path/to/file.py" or "path/to/file.py:smoke"; the two differ only in training.

    Returns:
      The ensemble.

    Raises:
      ValueError: the file or its `get_ensemble` does not exist, or the argument is unknown.
    """
    path, argument = split_spec(spec)
    if argument not in ("", "smoke"):
        raise ValueError(f"ensemble argument {argument!r} is unknown; it must be 'smoke'")
    get_ensemble = load_function(path, "get_ensemble")
    with mistakes_in(path):
        ensemble = get_ensemble()
    if not isinstance(ensemble, Ensemble):
        raise ValueError(
            f"get_ensemble() of {path} returned {type(ensemble).__name__}; it must return a "
            "jaxcnn.training.Ensemble"
        )
    return ensemble


def ensemble_configs(spec: str, overrides: Sequence[str] = ()) -> list[Any]:
    """Makes the configuration of every member's run.

    The smoke form ignores the overrides of a member, except its network and its seeds.

    Args:
      spec: as in `read_ensemble`.
      overrides: "field=value" strings, set in every configuration.

    Returns:
      The configurations, in the order of the members.

    Raises:
      ValueError: as `read_ensemble` and `read_config`.
    """
    ensemble = read_ensemble(spec)
    path, argument = split_spec(spec)
    common_overrides = split_overrides(overrides)
    configs = []
    for member in ensemble.members:
        recipe = str(path.parent / member.recipe)
        fields = dict(member.overrides)
        if argument == "smoke":
            recipe += ",smoke" if ".py:" in recipe else ":smoke"
            fields = {k: v for k, v in fields.items() if k == "model.name" or k.endswith("seed")}
            if member.stand_in:
                fields["model.name"] = member.stand_in
        config = read_config(recipe, fields)
        recipe_options = dict(config.model.options)
        with config.unlocked():
            if argument == "smoke":
                options = {} if member.stand_in else member.options
                config.model.options = {**options, **recipe_options, **member.smoke}
            else:
                config.model.options = {**recipe_options, **member.options}
        apply_overrides(config, common_overrides)
        validate(config)
        configs.append(config)
    return configs


def train_described(
    spec: str,
    workdir: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
    stop: StopSignals,
) -> Iterator[Report]:
    """Implements `jaxcnn.training.train.train_ensemble`; `stop` records signals to stop."""
    configs = ensemble_configs(spec, overrides)
    mode = members.default_mode()
    groups = _groups(configs)
    shared = [
        shared_build.build_shared([configs[i] for i in group], one_device=mode == "vmap")
        for group in groups
    ]
    description = {"ensemble": Path(spec).name, "overrides": list(overrides)}
    facts = {"members": len(configs), "ensemble_mode": mode}
    options = {"resume": resume, "overwrite": overwrite, "extend": extend}
    directory = check_workdir(workdir, description, **options)
    directories = [member_directory(directory, i) for i in range(len(configs))]
    failed: list[dict[int, FloatingPointError]] = [{} for _ in groups]
    trainings = [
        members.train_group(
            [configs[i] for i in group],
            [directories[i] for i in group],
            group_shared,
            mode,
            stop,
            group_failed,
            **options,
        )
        for group, group_shared, group_failed in zip(groups, shared, failed)
    ]
    stopped = False
    with members.open_all(directory, description, facts, **options):
        for group, reports in zip(groups, trainings):
            with contextlib.closing(reports):
                for report in reports:
                    yield dataclasses.replace(report, member=group[report.member or 0])
                    stopped |= report.kind == "stopped"
            if stopped:
                return
    members.raise_failed(
        {
            group[i]: error
            for group, group_failed in zip(groups, failed)
            for i, error in group_failed.items()
        }
    )


def _groups(configs: Sequence[Any]) -> list[list[int]]:
    """Groups the members whose configurations differ only in `members.FIELDS`."""
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        common = json.loads(config.to_json())
        for field in members.FIELDS:
            section, name = field.split(".")
            common[section].pop(name, None)
        groups.setdefault(json.dumps(common, sort_keys=True), []).append(i)
    return list(groups.values())
