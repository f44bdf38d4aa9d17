"""Files: written as a whole or not at all, and read in part."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import platformdirs

from jaxcnn._checks import one_line

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/{1,2}[^/]")


def local_path(path: str | os.PathLike) -> Path:
    """A path that a user wrote, with `~` for the home folder.

    Raises ValueError for a URL such as gs://bucket/run, which would become a folder called "gs:".
    """
    if _URL.match(os.fspath(path)):
        raise ValueError(f"{os.fspath(path)} is a URL; only local paths can be read and written")
    return Path(path).expanduser()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the path of a draft beside `path`, which takes its place when the block ends.

    Whoever reads the file meanwhile sees the old one or the new one. After an error the draft is
    deleted and the old file stays.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, as a whole or not at all."""
    with atomic_write(path) as draft:
        draft.write_text(text, "utf-8")


def read_at(path: str | os.PathLike, start: int, length: int) -> bytes:
    """So many bytes of a file, fewer at its end; any number of threads may call it."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


def open_binary(path: str | os.PathLike) -> IO[bytes]:
    """Opens a file for reading at any position."""
    return open(path, "rb")


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Tries to lock an open file until it is closed or its process ends.

    Args:
      file: to be locked against other processes.
      shared: others may hold a shared lock at the same time.

    Returns:
      Whether it succeeded; True on systems without such locks.

    Raises:
      OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cache_folder() -> Path | None:
    """The folder of this package in the user's folder of caches; None where there is no home."""
    try:
        return platformdirs.user_cache_path("jaxcnn", appauthor=False)
    except RuntimeError:  # an account without one
        return None


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file. Raises ValueError that names the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {one_line(error)}") from error


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The objects of a file that has one on each line; [] if there is no file.

    Other lines are left out: after a kill or a power cut a file that lines are added to may hold a
    line that was cut short, an empty one, or zeros.
    """
    found = []
    for line in Path(path).read_bytes().split(b"\n") if os.path.isfile(path) else ():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line.strip(b"\0\r\t ")))
    return [value for value in found if isinstance(value, dict)]
