"""Tracks the files that a run wrote to its directory: only these may be deleted.

They are listed in a file of the directory. A path is added before it is written, so that the list
is complete even after a kill. Every entry begins with a line break, so that a truncated entry does
not damage the next. An entry is a file, a folder, or "FOLDER/*.SUFFIX" for files with this suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from jaxcnn._files import append, delete_if_empty, write_text

LIST = ".written"

_DRAFT = re.compile(r"\.orbax-checkpoint-tmp[^/]*")  # suffix of incomplete checkpoints
_ORBAX = (
    r"(.+/)?(_?[a-z_]*metadata|_sharding|commit_success\.txt|manifest\.ocdbt|process_\d+"
    r"|descriptor\.pbtxt|[0-9a-f]{32})(\.__lock)?"
)
# Names of the files of a run, without `_DRAFT`. Runs of early versions have no list.
_NAMES = re.compile(
    rf"((checkpoints|best)/\d+|unreadable/step_\d+(_\d+)?)/{_ORBAX}"
    r"|tensorboard/events\.out\.tfevents\.[^/]+"
    r"|profile/plugins/profile/[^/]+/[^/]+\.(pb|json\.gz)"
    r"|bad_records_\d+\.jsonl|member_\d+/config\.json",
    re.IGNORECASE,
)


def note(workdir: Path, *entries: str) -> None:
    """Adds entries, relative to the directory, to the list of the files that the run writes."""
    append(workdir / LIST, "".join(f"\n{entry}" for entry in entries))


def begin(workdir: Path) -> None:
    """Starts an empty list."""
    write_text(workdir / LIST, "")


def adopt(workdir: Path, paths: Iterable[Path]) -> None:
    """Starts the list of a run without one, with those of `paths` that have names of run files."""
    if not (workdir / LIST).exists():
        run_files, _ = sort(workdir, paths)
        write_text(workdir / LIST, "".join(f"\n{_inside(workdir, path)}" for path in run_files))


def sort(workdir: Path, paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Splits files of the directory into (files that the run wrote, other files)."""
    listed = None
    if (workdir / LIST).is_file():
        listed = set((workdir / LIST).read_text("utf-8", "replace").splitlines())
    run_files: list[Path] = []
    foreign: list[Path] = []
    for path in paths:
        name = _inside(workdir, path)
        has_run_name = _NAMES.fullmatch(name) and not path.is_symlink()
        is_run_file = has_run_name and (listed is None or _covered(name, listed))
        (run_files if is_run_file else foreign).append(path)
    return run_files, foreign


def _covered(name: str, listed: set[str]) -> bool:
    path = PurePosixPath(name)
    like = str(path.parent / f"*{path.suffix}")
    return not listed.isdisjoint({name, like, *map(str, path.parents)})


def _inside(workdir: Path, path: Path) -> str:
    return _DRAFT.sub("", path.relative_to(workdir).as_posix())


def delete(paths: Iterable[Path], folders: Iterable[Path]) -> None:
    """Deletes the files, then those folders that are empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in folders:
        delete_if_empty(folder)
