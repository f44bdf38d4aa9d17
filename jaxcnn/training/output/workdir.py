"""The directory of a run: whose it is, and what may be written and deleted there.

While a run goes on it holds a lock on a file there. The system releases it when the process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax

import jaxcnn
from jaxcnn._files import local_path, write_text
from jaxcnn.data import preprocessing
from jaxcnn.reporting import curves, samples
from jaxcnn.runtime import distributed
from jaxcnn.training.config import TrackedConfig, differences, differences_text
from jaxcnn.training.input import sets
from jaxcnn.training.output import checkpoints, metrics_files, profiling, trackers, written
from jaxcnn.training.output.records import MANIFEST, check_examples, read_manifest

CHECKPOINTS = "checkpoints"
BEST = "best"
LOCK = ".lock"

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
_DRAFTS = ".*.draft.*"  # of `_files.atomic_write`, where a kill came before the end
_FOLDERS = (CHECKPOINTS, BEST, metrics_files.TENSORBOARD, checkpoints.UNREADABLE, profiling.FOLDER)
_LOCK_SECONDS = 2.0  # for a process that was killed to vanish
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def bad_records_path(workdir: Path, process: int) -> Path:
    """Where a process writes the bad records that it meets."""
    path = Path(workdir, BAD_RECORDS)
    return path.with_name(f"{path.stem}_{process}{path.suffix}") if process else path


def check_workdir(
    workdir: str | Path,
    config: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Path:
    """Whether a run may use the directory; returns its absolute path, and changes nothing.

    A directory without a run of this program is taken as it is. One that holds a run is refused
    unless it is to be resumed or overwritten; with `extend` it may be resumed with another length.

    Raises:
      ValueError: the directory holds a run and neither was asked for, or both; it is resumed with
        a configuration that would give other results; it is overwritten and holds files that the
        run did not write; it has files of the names used here that are not known to be a run's; or
        a run is going on there.
    """
    workdir = local_path(workdir).absolute()

    def check() -> None:
        _check_unlocked(workdir)
        _check(workdir, config, resume, overwrite, extend)

    distributed.on_first_process(check)
    return workdir


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of the directory, which is made if it is not there.

    Of several processes that train as one the first holds the lock.

    Raises:
      ValueError: another run holds it, which is named.
      PermissionError, OSError: the directory cannot be made or written to.
    """
    with contextlib.ExitStack() as held:
        distributed.on_first_process(lambda: held.enter_context(_take_lock(workdir)))
        yield


def _take_lock(workdir: Path) -> IO[str]:
    _check_writable(workdir)
    file = open(workdir / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _locked(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            text = _in_use(workdir, file)
            file.close()
            raise ValueError(text)
        time.sleep(0.05)
    file.truncate(0)
    file.write(f"{socket.gethostname()} {os.getpid()}\n")
    file.flush()
    return file


def _locked(file: IO[str], kind: int) -> bool:
    """Whether the lock was free and is taken now; True where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _check_unlocked(workdir: Path) -> None:
    if (workdir / LOCK).is_file():
        with open(workdir / LOCK, encoding="utf-8") as file:
            if not _locked(file, fcntl.LOCK_SH):
                raise ValueError(_in_use(workdir, file))


def _in_use(workdir: Path, file: IO[str]) -> str:
    file.seek(0)
    host, _, process = file.read().strip().rpartition(" ")
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
    """Makes the directory a run's: first of all its manifest is written, atomically.

    With `overwrite` what the run wrote there is deleted before, and nothing else. Hold the `lock`.

    Raises:
      ValueError: as `check_workdir`.
      PermissionError, OSError: it cannot be made or written to.
    """
    path = local_path(workdir).absolute()

    def take() -> None:
        _check(path, config, resume, overwrite, extend)
        if resume:
            check_examples(path, facts)
        _check_writable(path)
        if overwrite and (path / MANIFEST).exists():
            delete_run(path)
        if (path / MANIFEST).exists():
            written.adopt(path, (*_below_folders(path), *path.glob(_OTHERS_FILES)))
        else:
            written.begin(path)
        others = range(1, distributed.count())
        written.note(path, *(bad_records_path(path, other).name for other in others))
        write_manifest(path, config, facts)

    distributed.on_first_process(take)
    return path


def has_checkpoints(workdir: Path) -> bool:
    """Whether there is something to resume from."""
    return newest_step(workdir) is not None


def newest_step(workdir: Path) -> int | None:
    """The step of the newest checkpoint to resume from; None if there is none."""
    folder = workdir / CHECKPOINTS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=None)


def check_holds_run(workdir: str | Path) -> None:
    """Raises ValueError if the directory holds no run, or no ensemble, that could be extended."""
    path = local_path(workdir).absolute()
    distributed.on_first_process(lambda: read_manifest(path))


def previous_length(workdir: Path, total_steps: int) -> int:
    """The steps that the run in the directory was to have; the new length if it holds none.

    Raises:
      ValueError: the run has made more steps than `total_steps`.
    """
    done = newest_step(workdir) or 0
    if total_steps < done:
        raise ValueError(
            f"{workdir} holds a run that has made {done:,} steps; it cannot be cut to "
            f"{total_steps:,} steps"
        )
    if not (workdir / MANIFEST).is_file():
        return total_steps
    return read_manifest(workdir).get("total_steps") or total_steps


def _check(
    workdir: Path, config: Mapping[str, Any], resume: bool, overwrite: bool, extend: bool
) -> None:
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
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
        before = read_manifest(workdir)["config"]
        if different := differences(before, config, extend=extend):
            extensible = not differences(before, config, extend=True)
            hint = "; --extend allows that" if extensible else ""
            raise ValueError(
                f"{workdir} holds a run with another configuration: "
                f"{differences_text(different)}{hint}"
            )
        _check_classes(workdir, read_manifest(workdir), config)
    elif overwrite:
        check_deletable(workdir)
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
            f"{place} was {' '.join(map(repr, before[place : place + 1])) or 'missing'} and is "
            f"{' '.join(map(repr, now[place : place + 1])) or 'missing'}"
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


def check_deletable(workdir: Path) -> None:
    """Raises ValueError if the directory is no run's, or has files of others in its folders."""
    read_manifest(workdir)
    for name in _FOLDERS:
        if (workdir / name).is_symlink():
            raise ValueError(f"{workdir / name} is a link; nothing was deleted")
    _, foreign = written.sort(workdir, _below_folders(workdir))
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise ValueError(
            f"{workdir} holds {foreign[0].relative_to(workdir)}{more}, which the run did not write;"
            " nothing was deleted: move it away, or choose another workdir"
        )


def delete_run(workdir: Path) -> None:
    """Deletes what the run wrote, the manifest last: a half-deleted run is still known as one.

    Raises ValueError as `check_deletable`.
    """
    check_deletable(workdir)
    own, _ = written.sort(workdir, workdir.glob(_OTHERS_FILES))
    own += _below_folders(workdir)
    own += [*(workdir / name for name in _FILES), *workdir.glob(_DRAFTS)]
    written.delete(own, (workdir / name for name in _FOLDERS))
    written.delete((workdir / written.LIST, workdir / MANIFEST), ())


def _below_folders(workdir: Path) -> list[Path]:
    """The files in the folders that a run makes."""
    found = (path for name in _FOLDERS for path in sorted((workdir / name).rglob("*")))
    return [path for path in found if path.is_symlink() or not path.is_dir()]
