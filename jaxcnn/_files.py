"""Files: written as a whole or not at all, and read in part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
