"""Bad records, which cannot be read or decoded: logs them and limits their number."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from jaxcnn._cache import CopyError
from jaxcnn._files import any_path, append, read_json_lines, write_text

LIMIT = 0.01  # largest fraction of bad records in a dataset
_WAITS = (0.05, 0.5, 2.0)  # seconds before each retry

T = TypeVar("T")


class BadRecords:
    """The bad records of a dataset. Each record is counted once.

    Args:
      size: number of examples in the dataset.
      path: JSON Lines file to which each bad record is appended as `name` and `reason`, or None.
        Records that the file already contains are counted.
    """

    def __init__(self, size: int, path: str | os.PathLike | None = None):
        self._size, self._path, self._lock = size, path, threading.Lock()
        self._names: set[str] = set()
        if path is not None and any_path(path).exists():
            known = {
                line["name"]: line
                for line in read_json_lines(path)
                if isinstance(line.get("name"), str)
            }
            self._names = set(known)
            # Drops an incomplete last line, to which the next record would be appended.
            write_text(path, "".join(json.dumps(line) + "\n" for line in known.values()))

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str, reason: str) -> None:
        """Adds a bad record.

        Args:
          name: identifies the record.
          reason: why it cannot be used.

        Raises:
          ValueError: more than one record, and more than the fraction `LIMIT`, is bad.
        """
        with self._lock:
            new = name not in self._names
            self._names.add(name)
            if new and self._path is not None:
                append(self._path, json.dumps({"name": name, "reason": reason}) + "\n")
            if len(self) > max(1, LIMIT * self._size):
                raise ValueError(
                    f"{len(self)} of {self._size} records cannot be read, more than "
                    f"{LIMIT:.0%}; the last is {name}: {reason}"
                )


def retried(read: Callable[[], T], waits: tuple[float, ...] = _WAITS) -> T:
    """Calls `read` and returns its result. Retries after an OSError that may be temporary.

    A `CopyError` is raised at once: buckets have been tried again for long.
    """
    for wait in waits:
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError, CopyError):
            raise
        except OSError:
            time.sleep(wait)
    return read()
