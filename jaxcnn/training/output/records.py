"""Reads the manifests and metrics of runs, without JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxcnn._files import any_path, files_below, is_local, read_json
from jaxcnn.data.preprocessing import from_dict
from jaxcnn.reporting.compare_runs import Run
from jaxcnn.training.config.schema import (
    MOST_MEMBERS,
    OPEN_SECTIONS,
    default_config,
    leaves,
    with_present_names,
)
from jaxcnn.training.output.metrics_files import read_rows, score

MANIFEST = "config.json"
SUMMARY = "run_summary.json"
COMMIT_MARK = "commit_success.txt"  # of a complete checkpoint in a bucket, as Orbax names it

_MOST_CLASSES = 100_000  # a damaged file names no class beyond them


def read_manifest(workdir: Path) -> dict[str, Any]:
    """Reads the manifest of a run, with the current names of renamed config fields.

    Args:
      workdir: directory of the run.

    Returns:
      The content that `workdir.write_manifest` wrote.

    Raises:
      ValueError: the file does not exist, is not a manifest, or is damaged.
    """
    path = workdir / MANIFEST
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run directory (no {MANIFEST})")
    content = read_json(path)
    if not isinstance(content, dict) or not {"config", "jaxcnn"} <= content.keys():
        raise ValueError(f"{path} is not the manifest of a run")
    _check_types(path, content)
    content["config"] = with_present_names(content["config"])
    return content


# Types of the optional entries of a manifest, and of the required entries of its configuration. The
# configuration of an ensemble of different networks has different entries.
_FACTS: dict[str, type] = {
    "members": int,
    "total_steps": int,
    "train_size": int,
    "class_names": list,
    "preprocessing": dict,
    "examples": dict,
}
_REQUIRED: dict[str, type] = {
    **dict.fromkeys(("model", "data", "train", "model.options"), dict),
    **dict.fromkeys(("model.name", "data.source", "data.train_split", "data.test_split"), str),
}


def _check_types(path: Path, content: Mapping[str, Any]) -> None:
    config = content["config"]
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: config is {config!r}; it must be an object")
    for name, expected in _FACTS.items():
        if content.get(name) is not None:
            _check_type(path, name, content[name], expected)
    if content.get("preprocessing") is not None:
        try:
            from_dict(content["preprocessing"])
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    if not all(isinstance(name, str) for name in content.get("class_names") or ()):
        raise ValueError(f"{path} is damaged: class_names has other values than names")
    if "ensemble" not in config:
        for field, expected in _REQUIRED.items():
            section, _, name = field.partition(".")
            value: Any = config.get(section)
            _check_type(path, f"config.{field}", value.get(name) if name else value, expected)
        for section in config:
            _check_type(path, f"config.{section}", config[section], dict)
        for name in ("dir", "image", "label"):
            if config["data"].get(name) is not None:
                _check_type(path, f"config.data.{name}", config["data"][name], str)
    if not 0 <= (content.get("members") or 0) <= MOST_MEMBERS:
        raise ValueError(f"{path} is damaged: members is {content['members']}")


def _check_type(path: Path, name: str, value: Any, expected: type) -> None:
    if type(value) is not expected:
        kind = {dict: "an object", list: "a list", int: "an integer", str: "a string"}[expected]
        raise ValueError(f"{path} is damaged: {name} is {value!r:.60}; it must be {kind}")


def complete_steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, ascending."""
    if is_local(folder):  # Orbax renames complete ones to their steps
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())
    return sorted(step for step, names in files_by_step(folder).items() if COMMIT_MARK in names)


def files_by_step(folder: Path) -> dict[int, set[str]]:
    """Returns {step: names of the files of its checkpoint}, also of incomplete ones in a bucket."""
    found: dict[int, set[str]] = {}
    for path in files_below(folder):
        step, _, name = path.relative_to(folder).as_posix().partition("/")
        if step.isdecimal():
            found.setdefault(int(step), set()).add(name)
    return found


def read_summary(workdir: Path) -> dict[str, Any]:
    """Reads the summary of a run.

    Args:
      workdir: directory of the run.

    Returns:
      {"step", "labels", "predicted", "compiled"}, see `workdir.write_summary`; {} if the run has
      none.

    Raises:
      ValueError: the file is damaged.
    """
    path = workdir / SUMMARY
    if not path.is_file():
        return {}
    content = read_json(path)
    if not _is_summary(content):
        raise ValueError(f"{path} is damaged; delete it to read the run without its predictions")
    return content


def _is_summary(content: Any) -> bool:
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        return False
    labels, predicted = content.get("labels"), content.get("predicted")
    if not (isinstance(labels, list) and isinstance(predicted, list)):
        return False
    classes = (*labels, *predicted)
    whole = all(type(value) is int and 0 <= value < _MOST_CLASSES for value in classes)
    return whole and len(labels) == len(predicted) and isinstance(content.get("compiled"), dict)


def read_run_config(workdir: Path) -> ConfigDict:
    """Reads the configuration of a run from its manifest, with tuples for JSON's lists.

    Args:
      workdir: directory of the run.

    Returns:
      A configuration that `train` accepts.

    Raises:
      ValueError: as `read_manifest`; the directory is that of an ensemble of different networks; or
        the configuration has unknown fields.
    """
    sections = read_manifest(workdir)["config"]
    if "ensemble" in sections:
        raise ValueError(f"{workdir} is an ensemble of {sections['ensemble']}")
    config = default_config()
    try:
        with config.unlocked():
            for section, fields in sections.items():
                if section in OPEN_SECTIONS:
                    config[section] = {}
                for name, value in fields.items():
                    config[section][name] = _with_tuples(value)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the configuration of {workdir} cannot be read ({error})") from error
    return config


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def check_normalization(
    workdir: Path, manifest: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
) -> None:
    """Checks that images are normalized as those that a run was started with.

    Args:
      workdir: directory of the run, for the message.
      manifest: of the run. An early version recorded no normalization.
      mean: of each channel, now.
      std: standard deviation of each channel, now.

    Raises:
      ValueError: they are others.
    """
    recorded = manifest.get("preprocessing") or {}
    for name, now in (("mean", mean), ("std", std)):
        was = recorded.get(name)
        # Those of a small set are computed, by operations that differ between machines.
        if was and (len(was) != len(now) or not np.allclose(was, now, rtol=1e-5)):
            raise ValueError(
                f"{workdir} was trained on images normalized with {name}={tuple(was)}, but the "
                f"data, the network or the version of jaxcnn have changed to {name}={tuple(now)}"
            )


def check_facts(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Checks that a run continues with what it was started with, besides the configuration.

    Args:
      workdir: of the run, which may not have begun.
      facts: of the run now, see `Run`.

    Raises:
      ValueError: the examples differ, or the number of examples in each set of BatchNorm
        statistics.
    """
    if not (workdir / MANIFEST).is_file():
        return
    before = read_manifest(workdir)
    counts = [record.get("batch_norm_examples") for record in (before, facts)]
    if None not in counts and counts[0] != counts[1]:
        raise ValueError(
            f"{workdir} has BatchNorm statistics of {counts[0]} examples; on this number of "
            f"devices they would be of {counts[1]}: resume it on as many devices as before"
        )
    digests, now = before.get("examples") or {}, facts.get("examples") or {}
    for split, name in (("train", "training"), ("test", "test")):
        if split in digests and split in now and digests[split] != now[split]:
            counts = [record.get(f"{split}_examples") for record in (before, facts)]
            change = f"{counts[0]} then, {counts[1]} now"
            if counts[0] == counts[1]:
                change = f"{counts[0]} as now, with other names or labels, or in another order"
            raise ValueError(f"{workdir} was started with other {name} examples: {change}")


def member_directory(workdir: str | Path, member: int) -> Path:
    """Returns the directory of a member's run."""
    return any_path(workdir) / f"member_{member}"


def open_runs(directories: Sequence[str]) -> list[Run]:
    """Reads the runs in some directories, finished or not.

    Args:
      directories: directories of runs; that of an ensemble for all of its members.

    Returns:
      The runs, in order.

    Raises:
      ValueError: a directory is not that of a run.
    """
    runs = []
    for text in directories:
        path = any_path(text)
        count = read_manifest(path).get("members", 0)
        for one in [member_directory(path, i) for i in range(count)] if count else [path]:
            if (one / MANIFEST).is_file():
                manifest, rows = read_manifest(one), read_rows(one)
                scores = [score(row) for row in rows if row["kind"] == "eval"]
                fields = leaves(manifest["config"])
                runs.append(Run(str(one), manifest, rows, fields, min(scores, default=None)))
    return runs
