"""Records that cannot be read or decoded: named, counted, and too many of them refused."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jaxcnn._files import read_json_lines, write_text

LIMIT = 0.01  # of the set
_WAITS = (0.05, 0.5, 2.0)  # seconds before each new attempt

T = TypeVar("T")


class BadRecords:
    """The bad records of a set of so many examples, each counted once.

    Args:
      size: examples in the set.
      path: a file that a line of JSON is added to for each (`name`, `reason`); None for none.
    """

    def __init__(self, size: int, path: str | os.PathLike | None = None):
        self._size, self._path, self._lock = size, path, threading.Lock()
        self._names: set[str] = set()
        if path is not None and Path(path).exists():
            known = {
                line["name"]: line
                for line in read_json_lines(path)
                if isinstance(line.get("name"), str)
            }
            self._names = set(known)
            # Without a line that was cut short, which the next one would continue.
            write_text(path, "".join(json.dumps(line) + "\n" for line in known.values()))

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, reason: str) -> None:
        """Raises ValueError when more than `LIMIT` of the set, and more than one record, is bad."""
        with self._lock:
            new = name not in self._names
            self._names.add(name)
            if new and self._path is not None:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"name": name, "reason": reason}) + "\n")
            if len(self) > max(1, LIMIT * self._size):
                raise ValueError(
                    f"{len(self)} of {self._size} records cannot be read, more than "
                    f"{LIMIT:.0%}; the last is {name}: {reason}"
                )


def retried(read: Callable[[], T], waits: tuple[float, ...] = _WAITS) -> T:
    """What `read` returns, tried again after an OSError that may pass."""
    for wait in waits:
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:
            time.sleep(wait)
    return read()
