"""ArrayRecord files: single records by their number, in a file or over the files of a set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.decode import BadImage

Shard = tuple[Path, int]  # a file, and how many records it has
_OPEN = 512  # files of a set that are kept open; ImageNet has 1,088, and systems allow 1,024


def open_file(path: Path) -> Any:
    """An `ArrayRecordReader` for single records. Raises RuntimeError for a damaged file."""
    from array_record.python.array_record_module import ArrayRecordReader

    # Reading ahead would read whole chunks for single records.
    options = "readahead_buffer_size:0"
    reader = ArrayRecordReader(str(path), options=options, file_reader_buffer_size=32768)
    if not reader.num_records():
        reader.read([0])  # says why the file could not be opened
    return reader


def open_checked(path: Path, expected: int) -> Any:
    """The same. Raises ValueError for a damaged file, or one that has not so many records."""
    try:
        reader = open_file(path)
    except RuntimeError as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is damaged: {error}") from None
    if (found := reader.num_records()) != expected:
        raise ValueError(f"{path} holds {found} examples; {expected} expected")
    return reader


def place_of(shards: Sequence[Shard]) -> Callable[[int], tuple[int, int]]:
    """A function from a record's number in a set to (shard, number in it)."""
    ends = np.cumsum([length for _, length in shards])

    def place(i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(ends, i, "right"))
        return shard, i - int(ends[shard]) + shards[shard][1]

    return place


def read_shards(shards: Sequence[Shard]) -> Callable[[int, int], bytes]:
    """A function from (shard, number in it) to a record; files are opened when first needed.

    It raises `BadImage` for a damaged record, ValueError as `open_checked`.
    """

    @functools.lru_cache(maxsize=_OPEN)
    def reader(shard: int) -> Any:
        return open_checked(*shards[shard])

    def read(shard: int, row: int) -> bytes:
        try:
            return reader(shard).read([row])[0]
        except RuntimeError as error:
            raise BadImage(f"is damaged: {error}") from None

    return read
