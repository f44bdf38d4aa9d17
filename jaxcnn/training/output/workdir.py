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
from jaxcnn.training.config import Recorded, differences
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints, metrics_files, profiling, wandb
from jaxcnn.training.output.records import MANIFEST, read_manifest

CHECKPOINTS = "checkpoints"
BEST = "best"

BAD_RECORDS = "bad_records.jsonl"

_FILES = (
    metrics_files.JSONL,
    metrics_files.CSV,
    curves.CURVES,
    samples.PREDICTIONS,
    BAD_RECORDS,
    wandb.ID,
)
_OTHERS_FILES = "bad_records_*.jsonl"
_FOLDERS = (CHECKPOINTS, BEST, metrics_files.TENSORBOARD, checkpoints.UNREADABLE, profiling.FOLDER)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def bad_records_path(workdir: Path, process: int) -> Path:
    """Where a process writes the bad records that it meets."""
    path = workdir / BAD_RECORDS
    return path.with_name(f"{path.stem}_{process}{path.suffix}") if process else path


def claim(
    workdir: str | Path, config: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Makes the directory ready for a run, and returns its absolute path.

    A directory without a run of this program is taken as it is. One that holds a run is refused
    unless told to resume it, or to overwrite it: then what this program wrote there is deleted, and
    nothing else.

    Raises:
      ValueError: the directory holds a run and neither was asked for, or both; it is resumed with
        a configuration that would give other results; or it has files of the names used here that
        are not known to be a run's.
      PermissionError, OSError: it cannot be made or written to.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    workdir = local_path(workdir).absolute()
    distributed.first_does(lambda: _claim(workdir, config, resume, overwrite))
    return workdir


def _claim(workdir: Path, config: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    _check_writable(workdir)
    manifest = workdir / MANIFEST
    if not manifest.exists():
        strange = [name for name in (*_FILES, *_FOLDERS) if (workdir / name).exists()]
        if strange:
            raise ValueError(
                f"{workdir} holds {strange[0]!r} but no {MANIFEST} of a run; nothing was changed: "
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
        _delete_run(workdir)
    else:
        raise ValueError(
            f"{workdir} already holds a run; resume it (--resume), overwrite it (--overwrite) or "
            "choose another workdir"
        )


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
    how, class_names = sets.preprocessing(Recorded(config))
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
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir {workdir} is not a directory")
    probe = workdir / f".writable-{uuid.uuid4().hex}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        text = f"cannot write to workdir ({error.strerror})"
        raise type(error)(error.errno, text, str(workdir)) from error


def _delete_run(workdir: Path) -> None:
    """Deletes what a run writes, the manifest last: a half-deleted run is still known as one."""
    read_manifest(workdir)
    folders = [workdir / name for name in _FOLDERS if (workdir / name).exists()]
    for folder in folders:
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link; nothing was deleted")
    for path in (*(workdir / name for name in _FILES), *workdir.glob(_OTHERS_FILES)):
        path.unlink(missing_ok=True)
    for folder in folders:
        shutil.rmtree(folder)
    (workdir / MANIFEST).unlink()
