"""Random access to ArrayRecord files, single ones and those of a sharded dataset."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import evictions
from jaxcnn.data.decode import BadImage

Shard = tuple[Path, int]  # a file and its number of records
_OPEN = 512  # maximum number of open files; ImageNet has 1,088, and common limits are 1,024


def open_file(path: Path) -> Any:
    """Opens a file for random access. Raises RuntimeError if it is damaged."""
    from array_record.python.array_record_module import ArrayRecordReader

    # With read-ahead, each access would read a whole chunk.
    options = "readahead_buffer_size:0"
    reader = ArrayRecordReader(os.fspath(path), options=options, file_reader_buffer_size=32768)
    if not reader.num_records():
        reader.read([0])  # raises an error with the reason
    return reader


def open_checked(path: Path, expected: int) -> Any:
    """Like `open_file`. Raises ValueError if the file is damaged or its length is wrong."""
    try:
        reader = open_file(path)
    except RuntimeError as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is damaged: {error}") from None
    if (actual := reader.num_records()) != expected:
        raise ValueError(f"{path} holds {actual} examples; {expected} expected")
    return reader


def place_of(shards: Sequence[Shard]) -> Callable[[int], tuple[int, int]]:
    """Returns a function from the index of a record in a dataset to (shard, index in the shard)."""
    ends = np.cumsum([length for _, length in shards])

    def place(i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(ends, i, "right"))
        return shard, i - int(ends[shard]) + shards[shard][1]

    return place


def read_shards(shards: Sequence[Shard]) -> Callable[[int, int], bytes]:
    """Returns a function that reads the record at (shard, index in the shard).

    Files are opened on first use. The function raises `BadImage` if a record is damaged, and
    ValueError like `open_checked`.
    """

    @functools.lru_cache(maxsize=_OPEN)
    def reader(shard: int) -> Any:
        return open_checked(*shards[shard])

    deletions = evictions(shards[0][0]) if shards else 0

    def read(shard: int, row: int) -> bytes:
        nonlocal deletions
        os.fspath(shards[shard][0])  # a copy of a file in a bucket is in use, though it is open
        if (now := evictions(shards[shard][0])) != deletions:
            deletions = now
            reader.cache_clear()
        try:
            return reader(shard).read([row])[0]
        except RuntimeError as error:
            raise BadImage(f"is damaged: {error}") from None

    return read
