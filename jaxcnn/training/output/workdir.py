"""The directory of a run: which run it belongs to, and which files may be written and deleted.

A run in progress holds a lock on a file of the directory. The operating system releases the lock
when the process ends, even by a kill. In a bucket the lock is a lease, which the run renews.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import math
import os
import platform
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcnn
from jaxcnn import _files
from jaxcnn._checks import note_once
from jaxcnn._files import any_path, files_below, write_text
from jaxcnn.data import preprocessing
from jaxcnn.reporting import curves, samples
from jaxcnn.runtime import distributed
from jaxcnn.training.config import TrackedConfig, differences, differences_text
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints, metrics_files, profiling, trackers, written
from jaxcnn.training.output.records import (
    MANIFEST,
    SUMMARY,
    check_facts,
    check_normalization,
    complete_steps,
    read_manifest,
)

CHECKPOINTS = "checkpoints"
BEST = "best"
LOCK = ".lock"

BAD_RECORDS = "bad_records.jsonl"

_FILES = (
    metrics_files.JSONL,
    metrics_files.CSV,
    curves.CURVES,
    samples.PREDICTIONS,
    SUMMARY,
    BAD_RECORDS,
    trackers.ID,
)
_OTHER_PROCESSES_FILES = "bad_records_*.jsonl"
_DRAFTS = ".*.draft.*"  # left by `_files.atomic_write` after a kill
_FOLDERS = (CHECKPOINTS, BEST, metrics_files.TENSORBOARD, checkpoints.UNREADABLE, profiling.FOLDER)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def bad_records_path(workdir: Path, process: int) -> Path:
    """Returns the file in which a process lists bad records."""
    path = any_path(workdir) / BAD_RECORDS
    return path.with_name(f"{path.stem}_{process}{path.suffix}") if process else path


def check_workdir(
    workdir: str | Path,
    config: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Path:
    """Checks whether a run may use a directory, without changing anything.

    Args:
      workdir: the directory; it need not exist.
      config: the configuration of the run.
      resume: whether to continue a run in the directory.
      overwrite: whether to delete a run in the directory.
      extend: whether a resumed run may have a different length.

    Returns:
      The absolute path of the directory.

    Raises:
      ValueError: the directory contains a run, and not exactly one of `resume` and `overwrite` is
        set; the configuration would change the results of the resumed run; the run to overwrite
        shares its folders with files that it did not write; the directory has files with names of
        run files, but no manifest; or a run is in progress there.
    """
    workdir = any_path(workdir).absolute()

    def check() -> None:
        _check_unlocked(workdir)
        _check(workdir, config, resume, overwrite, extend)

    distributed.on_first_process(check)
    return workdir


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[Callable[[], None]]:
    """Locks the directory against other runs; creates it if it does not exist.

    In multi-process training the first process holds the lock.

    Yields:
      A function that raises OSError if another run has taken over the directory, which can happen
      in a bucket that this process has not reached for a minute.

    Raises:
      ValueError: another run holds the lock; the message names its process.
      PermissionError: the directory cannot be created or written to.
      OSError: likewise.
    """
    with contextlib.ExitStack() as stack:
        checks: list[Callable[[], None]] = []

        def acquire() -> None:
            held = stack.enter_context(contextlib.closing(_acquire_lock(workdir)))
            checks.append(held.check)

        distributed.on_first_process(acquire)
        yield checks[0] if checks else lambda: None


def _acquire_lock(workdir: Path) -> Any:
    _check_writable(workdir)
    try:
        return _files.lock(workdir / LOCK, f"{socket.gethostname()} {os.getpid()}")
    except _files.InUse as error:
        raise ValueError(_in_use(workdir, str(error))) from None


def _check_unlocked(workdir: Path) -> None:
    holder = _files.lock_holder(workdir / LOCK)
    if holder is not None:
        raise ValueError(_in_use(workdir, holder))


def _in_use(workdir: Path, holder: str) -> str:
    host, _, process = holder.rpartition(" ")
    if (host, process) == (socket.gethostname(), str(os.getpid())):
        return f"{workdir} is in use by this process, {process} on {host}: close that training"
    return (
        f"{workdir} is in use by process {process or '?'} on {host or 'an unknown host'}; wait for "
        "it to end, or choose another workdir"
    )


def open_workdir(
    workdir: str | Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Path:
    """Prepares the directory for a run and writes its manifest, atomically.

    The manifest of a run with checkpoints to resume from stays as it is until `update_manifest`.
    With `overwrite` it first deletes the files that the old run wrote, and no others. The caller
    must hold the `lock`.

    Args:
      workdir: the directory.
      config: the configuration of the run.
      facts: further entries of the manifest.
      resume: as in `check_workdir`.
      overwrite: likewise.
      extend: likewise.

    Returns:
      The absolute path of the directory.

    Raises:
      ValueError: as `check_workdir`.
      PermissionError: the directory cannot be created or written to.
      OSError: likewise.
    """
    path = any_path(workdir).absolute()

    def prepare() -> None:
        _check(path, config, resume, overwrite, extend)
        if resume:
            check_facts(path, facts)
        _check_writable(path)
        if overwrite and (path / MANIFEST).exists():
            delete_run(path)
        if (path / MANIFEST).exists():
            written.adopt(path, (*_files_in_folders(path), *path.glob(_OTHER_PROCESSES_FILES)))
        else:
            written.begin(path)
        others = range(1, distributed.count())
        written.note(path, *(bad_records_path(path, other).name for other in others))
        if not (resume and has_checkpoints(path)):
            write_manifest(path, config, facts)

    distributed.on_first_process(prepare)
    return path


def update_manifest(workdir: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes the manifest of a resumed run, whose length may have changed.

    Args:
      workdir: the directory.
      config: the configuration of the run.
      facts: further entries of the manifest.
    """
    distributed.on_first_process(lambda: write_manifest(workdir, config, facts))


def has_checkpoints(workdir: Path) -> bool:
    """Whether the directory has a checkpoint to resume from."""
    return newest_step(workdir) is not None


def newest_step(workdir: Path) -> int | None:
    """Returns the step of the newest checkpoint to resume from; None if there is none."""
    return max(complete_steps(workdir / CHECKPOINTS), default=None)


def open_checkpoints(
    directory: str | Path, keep: int | None = None, check: Callable[[], None] | None = None
) -> checkpoints.Checkpoints:
    """Opens the checkpoints in a directory, here or in a bucket.

    Args:
      directory: as for `checkpoints.Checkpoints`.
      keep: likewise.
      check: raises OSError if this process may no longer write; called before a checkpoint in a
        bucket is completed.
    """
    if _files.is_local(directory):
        return checkpoints.Checkpoints(directory, keep)
    from jaxcnn.training.output.bucket_checkpoints import BucketCheckpoints

    return BucketCheckpoints(directory, keep, check)


def check_holds_run(workdir: str | Path) -> None:
    """Raises ValueError if the directory has no run or ensemble."""
    path = any_path(workdir).absolute()
    distributed.on_first_process(lambda: read_manifest(path))


def previous_length(workdir: Path, total_steps: int) -> int:
    """Returns the length of the run in the directory, before it is extended.

    Args:
      workdir: the directory.
      total_steps: the new length, returned if the directory has no run.

    Raises:
      ValueError: the run has completed more steps than `total_steps`.
    """
    done = newest_step(workdir) or 0
    if total_steps < done:
        raise ValueError(
            f"{workdir} holds a run that has completed {done:,} steps; it cannot be shortened to "
            f"{total_steps:,} steps"
        )
    if not (workdir / MANIFEST).is_file():
        return total_steps
    return read_manifest(workdir).get("total_steps") or total_steps


def _check(
    workdir: Path, config: Mapping[str, Any], resume: bool, overwrite: bool, extend: bool
) -> None:
    if resume and overwrite:
        raise ValueError("resume and overwrite cannot be combined")
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
        manifest = read_manifest(workdir)
        compared = bool(manifest.get("examples") or manifest.get("members"))  # by each member
        compare = functools.partial(differences, manifest["config"], config, moved=compared)
        if different := compare(extend=extend):
            extensible = not compare(extend=True)
            hint = "; --extend allows that" if extensible else ""
            raise ValueError(
                f"{workdir} holds a run with another configuration: "
                f"{differences_text(different)}{hint}"
            )
        _note_moved(manifest["config"], config)
        _check_data(workdir, manifest, config)
    elif overwrite:
        check_deletable(workdir)
    else:
        raise ValueError(
            f"{workdir} already holds a run; resume it (--resume), overwrite it (--overwrite) or "
            "choose another workdir"
        )


def _holds_files(path: Path) -> bool:
    """Whether a path is a file or a folder with files: a killed start leaves empty folders."""
    if path.is_dir() and not path.is_symlink():
        return bool(files_below(path))
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


def write_summary(
    workdir: Path,
    step: int,
    labels: np.ndarray,
    predicted: np.ndarray,
    compiled: Mapping[str, Any],
) -> None:
    """Writes the summary of a finished run.

    Args:
      workdir: directory of the run.
      step: number of its steps.
      labels: i32[N], of the first test examples.
      predicted: i32[N], the predicted classes after the last step.
      compiled: values of the report "compiled"; empty if this process compiled nothing.
    """
    numbers = {k: v for k, v in compiled.items() if v is not None and math.isfinite(v)}
    content = {
        **{"step": step, "labels": labels.tolist(), "predicted": predicted.tolist()},
        "compiled": numbers,
    }
    write_text(workdir / SUMMARY, json.dumps(content) + "\n")


def describe_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Describes the data as far as the network needs it later, when the data may be unavailable.

    Returns:
      `class_names`; `preprocessing` of an image in evaluation; `train_size`, the height and width
      of training images. Empty for the configuration of an ensemble of different networks.
    """
    if "data" not in config:
        return {}
    tracked = TrackedConfig(config)
    transform, class_names = sets.preprocessing(tracked)
    return {
        "class_names": list(class_names),
        "preprocessing": preprocessing.to_dict(transform),
        "train_size": sets.training_size(tracked) or transform.size,
    }


def _note_moved(before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Says what is compared if the path of the data is another one."""
    was, now = ((c.get("data") or {}).get("source") for c in (before, config))
    if was != now:
        note_once(
            f"the data are now {now!r} instead of {was!r}; the lists of examples are compared, "
            "not the images"
        )


def _check_data(workdir: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError if classes or normalization differ from those of the run's start."""
    data = describe_data(config)
    if now := data.get("preprocessing"):
        check_normalization(workdir, manifest, now["mean"], now["std"])
    before, now = manifest.get("class_names"), data.get("class_names")
    if before and now and before != now:
        pairs = zip(before, now)
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(now)))
        raise ValueError(
            f"{workdir} was trained on other classes: {len(before)} then, {len(now)} now; class "
            f"{place} was {' '.join(map(repr, before[place : place + 1])) or 'missing'} and is "
            f"{' '.join(map(repr, now[place : place + 1])) or 'missing'}"
        )


def git_state(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of a folder's checkout, and whether a tracked file differs from it.

    None without git, or if the files are not tracked, as in an installed package.
    """
    changes = ["status", "--porcelain", "--untracked-files=no"]
    commands = [["ls-files", "--error-unmatch", "."], ["rev-parse", "HEAD"], changes]
    try:
        _, revision, changed = (
            subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in commands
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
        if error.errno is None:  # of a bucket, with everything in its message
            raise
        text = f"cannot write to workdir ({error.strerror})"
        raise type(error)(error.errno, text, str(workdir)) from error


def check_deletable(workdir: Path) -> None:
    """Raises ValueError if the directory has no run, or its folders have files of other origin."""
    read_manifest(workdir)
    for name in _FOLDERS:
        if (workdir / name).is_symlink():
            raise ValueError(f"{workdir / name} is a link; nothing was deleted")
    _, foreign = written.sort(workdir, _files_in_folders(workdir))
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise ValueError(
            f"{workdir} holds {foreign[0].relative_to(workdir)}{more}, which the run did not write;"
            " nothing was deleted: move it away, or choose another workdir"
        )


def delete_run(workdir: Path) -> None:
    """Deletes the files that the run wrote; the manifest last, so that a second try can continue.

    Raises the same errors as `check_deletable`.
    """
    check_deletable(workdir)
    files, _ = written.sort(workdir, workdir.glob(_OTHER_PROCESSES_FILES))
    files += _files_in_folders(workdir)
    files += [*(workdir / name for name in _FILES), *workdir.glob(_DRAFTS)]
    written.delete(files, (workdir / name for name in _FOLDERS))
    written.delete((workdir / written.LIST, workdir / MANIFEST), ())


def _files_in_folders(workdir: Path) -> list[Path]:
    """Returns the files in the folders of a run."""
    return [path for name in _FOLDERS for path in files_below(workdir / name)]
