"""The directory of a run: whose it is, and what may be written and deleted there."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import jaxcnn
from jaxcnn._files import local_path, write_text
from jaxcnn.data import preprocessing
from jaxcnn.reporting import curves, samples
from jaxcnn.runtime import distributed
from jaxcnn.training.config import TrackedConfig, differences
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints, metrics_files, profiling, trackers
from jaxcnn.training.output.records import MANIFEST, check_examples, read_manifest

CHECKPOINTS = "checkpoints"
BEST = "best"

BAD_RECORDS = "bad_records.jsonl"

_FILES = (
    metrics_files.JSONL,
    metrics_files.CSV,
    curves.CURVES,
    samples.PREDICTIONS,
    BAD_RECORDS,
    trackers.ID,
)
_OTHERS_FILES = "bad_records_*.jsonl"
_FOLDERS = (CHECKPOINTS, BEST, metrics_files.TENSORBOARD, checkpoints.UNREADABLE, profiling.FOLDER)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def bad_records_path(workdir: Path, process: int) -> Path:
    """Where a process writes the bad records that it meets."""
    path = workdir / BAD_RECORDS
    return path.with_name(f"{path.stem}_{process}{path.suffix}") if process else path


def check_workdir(
    workdir: str | Path, config: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Whether a run may use the directory; returns its absolute path, and changes nothing.

    A directory without a run of this program is taken as it is. One that holds a run is refused
    unless it is to be resumed or overwritten.

    Raises:
      ValueError: the directory holds a run and neither was asked for, or both; it is resumed with
        a configuration that would give other results; or it has files of the names used here that
        are not known to be a run's.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    workdir = local_path(workdir).absolute()
    distributed.on_first_process(lambda: _check(workdir, config, resume, overwrite))
    return workdir


def open_workdir(
    workdir: str | Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Makes the directory a run's: first of all its manifest is written, atomically.

    With `overwrite` what this program wrote there is deleted before, and nothing else.

    Raises:
      ValueError: as `check_workdir`.
      PermissionError, OSError: it cannot be made or written to.
    """
    workdir = check_workdir(workdir, config, resume=resume, overwrite=overwrite)

    def take() -> None:
        if resume:
            check_examples(workdir, facts)
        _check_writable(workdir)
        if overwrite and (workdir / MANIFEST).exists():
            delete_run(workdir)
        write_manifest(workdir, config, facts)

    distributed.on_first_process(take)
    return workdir


def has_checkpoints(workdir: Path) -> bool:
    """Whether there is something to resume from."""
    folder = workdir / CHECKPOINTS
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def _check(workdir: Path, config: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir {workdir} is not a directory")
    if not (workdir / MANIFEST).exists():
        foreign = [name for name in (*_FILES, *_FOLDERS) if _holds_files(workdir / name)]
        if foreign:
            raise ValueError(
                f"{workdir} holds {foreign[0]!r} but no {MANIFEST} of a run; nothing was changed: "
                "choose another workdir"
            )
    elif resume:
        different = differences(read_manifest(workdir)["config"], config)
        if different:
            raise ValueError(
                f"{workdir} holds a run with another configuration: {'; '.join(different)}"
            )
        _check_classes(workdir, read_manifest(workdir), config)
    elif overwrite:
        read_manifest(workdir)
        _check_links(workdir)
    else:
        raise ValueError(
            f"{workdir} already holds a run; resume it (--resume), overwrite it (--overwrite) or "
            "choose another workdir"
        )


def _holds_files(path: Path) -> bool:
    """Whether it is a file, or a folder with one: a start that was killed leaves empty folders."""
    if path.is_dir() and not path.is_symlink():
        return any(not below.is_dir() for below in path.rglob("*"))
    return path.exists()


def write_manifest(workdir: Path, config: Any, facts: Mapping[str, Any]) -> None:
    """Writes `config.json`: the configuration, versions, the commit, and the given facts."""
    content = {
        "config": json.loads(config.to_json()) if hasattr(config, "to_json") else config,
        "jaxcnn": jaxcnn.__version__,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "command": sys.argv,
        "git": git_state(Path(jaxcnn.__file__).parent),
        **describe_data(config),
        **facts,
    }
    write_text(workdir / MANIFEST, json.dumps(content, indent=1) + "\n")


def describe_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed of the data to use the network later, when they may be elsewhere or changed.

    Returns:
      `class_names`; `preprocessing` of an image that is evaluated; `train_size`, height and width
      of training images. Nothing of a configuration that is not of a single run.
    """
    if "data" not in config:
        return {}
    how, class_names = sets.preprocessing(TrackedConfig(config))
    return {
        "class_names": list(class_names),
        "preprocessing": preprocessing.to_dict(how),
        "train_size": config["data"]["image_size"] or how.size,
    }


def _check_classes(workdir: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError if the data's classes are no longer those that the run began with."""
    before = manifest.get("class_names")
    now = describe_data(config).get("class_names")
    if before and now and before != now:
        pairs = zip(before, now)
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(now)))
        raise ValueError(
            f"{workdir} was trained on other classes: {len(before)} then, {len(now)} now; class "
            f"{place} was {before[place : place + 1]} and is {now[place : place + 1]}"
        )


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder's checkout, and whether a tracked file differs from it.

    None where there is no git, or the folder's files are not tracked, as of an installed package.
    """
    changes = ["status", "--porcelain", "--untracked-files=no"]
    asked = [["ls-files", "--error-unmatch", "."], ["rev-parse", "HEAD"], changes]
    try:
        _, revision, changed = (
            subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": revision, "dirty": bool(changed)}


def _check_writable(workdir: Path) -> None:
    probe = workdir / f".writable-{uuid.uuid4().hex}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        text = f"cannot write to workdir ({error.strerror})"
        raise type(error)(error.errno, text, str(workdir)) from error


def delete_run(workdir: Path) -> None:
    """Deletes what a run writes, the manifest last: a half-deleted run is still known as one."""
    read_manifest(workdir)
    _check_links(workdir)
    for path in (*(workdir / name for name in _FILES), *workdir.glob(_OTHERS_FILES)):
        path.unlink(missing_ok=True)
    for name in _FOLDERS:
        if (workdir / name).exists():
            shutil.rmtree(workdir / name)
    (workdir / MANIFEST).unlink()


def _check_links(workdir: Path) -> None:
    for name in _FOLDERS:
        if (workdir / name).is_symlink():
            raise ValueError(f"{workdir / name} is a link; nothing was deleted")
