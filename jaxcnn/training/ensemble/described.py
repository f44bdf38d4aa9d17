"""Ensembles of different networks: a file that describes the members, and training all of them.

The file has `get_ensemble() -> Ensemble`; those of competition entries are in configs/ensembles.
`jaxcnn train FILE --workdir DIR` trains the members into `DIR/member_0` and so on, each of which is
a run of its own; `jaxcnn evaluate --as FILE DIR` tests each by its protocol, and all together.
With ":smoke" after FILE the members are narrow networks of five steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.reporting.report import Report
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import load_function, read_config, split_overrides, split_spec
from jaxcnn.training.ensemble import members
from jaxcnn.training.ensemble import shared as members_shared
from jaxcnn.training.output.records import member_directory
from jaxcnn.training.output.workdir import check_workdir


@dataclasses.dataclass(frozen=True)
class Member:
    """A network of an ensemble: how it is trained and how it is tested.

    Fields:
      name: in words, for tables.
      recipe: a configuration file, from the folder of the ensemble's file, with ":argument".
      options: fields of the network.
      overrides: fields of the configuration, as `jaxcnn train` takes them.
      view: how it is tested, as after the "@" of `jaxcnn evaluate`.
      stand_in: id of a network that takes its place in the smoke form, for one that has no narrow
        form; "" for none.
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
    """Members, and how their answers are combined.

    Fields:
      members: in the order of their directories.
      combination: name of a row of the table of `jaxcnn evaluate`.
      published: the error and its source, in words.
      unverified: what is not published and is this project's choice; "" if there is nothing.
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
    """Reads "path/to/file.py", or "path/to/file.py:smoke", which is the same but for training.

    Raises:
      ValueError: no such file or `get_ensemble`, or another argument.
    """
    path, argument = split_spec(spec)
    if argument not in ("", "smoke"):
        raise ValueError(f"ensemble argument {argument!r} is unknown; known is smoke")
    return load_function(path, "get_ensemble")()


def ensemble_configs(spec: str, overrides: Sequence[str] = ()) -> list[Any]:
    """The configurations of the members' runs; `overrides` ("field=value") are set in all of them.

    The smoke form leaves out all of a member's overrides but its network and its seeds.

    Raises:
      ValueError: as `read_ensemble` and `read_config`.
    """
    ensemble = read_ensemble(spec)
    path, argument = split_spec(spec)
    given = split_overrides(overrides)
    made = []
    for member in ensemble.members:
        recipe = str(path.parent / member.recipe)
        own = dict(member.overrides)
        if argument == "smoke":
            recipe += ",smoke" if ".py:" in recipe else ":smoke"
            own = {k: v for k, v in own.items() if k == "model.name" or k.endswith("seed")}
            if member.stand_in:
                own["model.name"] = member.stand_in
        own |= given
        config = read_config(recipe, own)
        recipes = dict(config.model.options)
        with config.unlocked():
            if argument == "smoke":
                options = {} if member.stand_in else member.options
                config.model.options = {**options, **recipes, **member.smoke}
            else:
                config.model.options = {**recipes, **member.options}
        validate(config)
        made.append(config)
    return made


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
    """`jaxcnn.training.train.train_ensemble`; signals to stop are noted in `stop`."""
    configs = ensemble_configs(spec, overrides)
    mode = members.default_mode()
    groups = _groups(configs)
    shared = [
        members_shared.share([configs[i] for i in group], one_device=mode == "vmap")
        for group in groups
    ]
    about = {"ensemble": Path(spec).name, "overrides": list(overrides)}
    facts = {"members": len(configs), "ensemble_mode": mode}
    use = {"resume": resume, "overwrite": overwrite, "extend": extend}
    directory = check_workdir(workdir, about, **use)
    directories = [member_directory(directory, i) for i in range(len(configs))]
    failed: list[dict[int, FloatingPointError]] = [{} for _ in groups]
    trainings = [
        members.train_group(
            [configs[i] for i in group],
            [directories[i] for i in group],
            common,
            mode,
            stop,
            own,
            **use,
        )
        for group, common, own in zip(groups, shared, failed)
    ]
    with members.open_all(directory, about, facts, **use):
        for group, reports in zip(groups, trainings):
            for report in reports:
                yield dataclasses.replace(report, member=group[report.member or 0])
            if stop.received:
                return
    pairs = [(group[i], error) for group, own in zip(groups, failed) for i, error in own.items()]
    members.raise_failed(dict(pairs))


def _groups(configs: Sequence[Any]) -> list[list[int]]:
    """Which members differ in nothing but what members of one program may differ in."""
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        alike = json.loads(config.to_json())
        for field in members.FIELDS:
            section, name = field.split(".")
            alike[section].pop(name, None)
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(i)
    return list(groups.values())
