"""Which files in a run's directory the run wrote: they may be deleted, others may not.

A file there keeps a list, to which a path is added before it is written, so that a kill leaves
nothing out; one that was cut short ends where the next begins. An entry stands for a file or a
folder, "FOLDER/*.SUFFIX" for files of this suffix.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from jaxcnn._files import write_text

LIST = ".written"

_DRAFT = re.compile(r"\.orbax-checkpoint-tmp[^/]*")  # of what Orbax has not finished
_ORBAX = (
    r"(.+/)?(_?[a-z_]*metadata|_sharding|commit_success\.txt|manifest\.ocdbt|process_\d+"
    r"|descriptor\.pbtxt|[0-9a-f]{32})(\.__lock)?"
)
# What files of a run are called, without `_DRAFT`. Runs of before 0.3 have no list.
_NAMES = re.compile(
    rf"((checkpoints|best)/\d+|unreadable/step_\d+(_\d+)?)/{_ORBAX}"
    r"|tensorboard/events\.out\.tfevents\.[^/]+"
    r"|profile/plugins/profile/[^/]+/[^/]+\.(pb|json\.gz)"
    r"|bad_records_\d+\.jsonl|member_\d+/config\.json",
    re.IGNORECASE,
)


def note(workdir: Path, *entries: str) -> None:
    """Adds paths below the directory to the list of what the run writes; others are not added."""
    with open(workdir / LIST, "a", encoding="utf-8") as file:
        file.write("".join(f"\n{entry}" for entry in entries))


def begin(workdir: Path) -> None:
    """Begins an empty list."""
    write_text(workdir / LIST, "")


def adopt(workdir: Path, paths: Iterable[Path]) -> None:
    """Begins the list of a run that has none with those of the paths that runs write."""
    if not (workdir / LIST).exists():
        own, _ = sort(workdir, paths)
        write_text(workdir / LIST, "".join(f"\n{_inside(workdir, path)}" for path in own))


def sort(workdir: Path, paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """(those that the run wrote, the others) of some files below the directory."""
    listed = None
    if (workdir / LIST).is_file():
        listed = set((workdir / LIST).read_text("utf-8", "replace").splitlines())
    own: list[Path] = []
    foreign: list[Path] = []
    for path in paths:
        name = _inside(workdir, path)
        known = _NAMES.fullmatch(name) and not path.is_symlink()
        (own if known and (listed is None or _covered(name, listed)) else foreign).append(path)
    return own, foreign


def _covered(name: str, listed: set[str]) -> bool:
    path = PurePosixPath(name)
    like = str(path.parent / f"*{path.suffix}")
    return not listed.isdisjoint({name, like, *map(str, path.parents)})


def _inside(workdir: Path, path: Path) -> str:
    return _DRAFT.sub("", path.relative_to(workdir).as_posix())


def delete(paths: Iterable[Path], folders: Iterable[Path]) -> None:
    """Deletes the files, and what is empty then of the folders."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in folders:
        for below, _, _ in os.walk(folder, topdown=False):
            if not os.listdir(below):
                os.rmdir(below)
