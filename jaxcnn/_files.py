"""Files: written as a whole or not at all, and read in part."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import platformdirs

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


def cache_folder() -> Path | None:
    """The folder of this package in the user's folder of caches; None where there is no home."""
    try:
        return platformdirs.user_cache_path("jaxcnn", appauthor=False)
    except RuntimeError:  # an account without one
        return None
