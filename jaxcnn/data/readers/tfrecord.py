"""TFRecord files without TensorFlow, made random access by an index of offsets.

A record is u64 length, u32 check of the length, the data, u32 check of the data, little-endian. A
check is the CRC-32C of the bytes, rotated right by 15 bits plus a constant (tensorflow/core/lib/
hash/crc32c.h).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import google_crc32c
import numpy as np

_HEADER, _FOOTER = 12, 4


@dataclasses.dataclass(frozen=True)
class Records:
    """An indexed file: `starts` and `lengths` i64[N] of the data in its `content`."""

    path: str
    content: memoryview
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The records of these numbers. Raises ValueError if one does not pass its check."""
        found = []
        for row in rows:
            start, length = int(self.starts[row]), int(self.lengths[row])
            if _is_damaged(self.content, start, length):
                raise ValueError(f"{self.path}: record {row} is damaged (wrong checksum)")
            found.append(bytes(self.content[start : start + length]))
        return found


def index_records(path: str | os.PathLike) -> Records:
    """Finds the records of a file by their lengths, without reading their data.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file ends within a record, or is no TFRecord file.
    """
    path = os.fspath(path)
    size = os.path.getsize(path)
    content = memoryview(np.memmap(path, np.uint8, "r") if size else b"")  # type: ignore[arg-type]
    starts: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < size:
        length = int.from_bytes(content[at : at + 8], "little")
        # A wrong length is most often a wrong file.
        if at + _HEADER <= size and _is_damaged(content, at, 8):
            raise ValueError(f"{path}: no TFRecord at byte {at} (wrong checksum of a length)")
        if at + _HEADER + length + _FOOTER > size:
            raise ValueError(f"{path}: truncated: {size} bytes, record {len(starts)} needs more")
        starts.append(at + _HEADER)
        lengths.append(length)
        at += _HEADER + length + _FOOTER
    return Records(path, content, np.array(starts, np.int64), np.array(lengths, np.int64))


def _is_damaged(content: memoryview, start: int, length: int) -> bool:
    """Whether the u32 after a stretch of bytes is not its check."""
    end = start + length
    told = int.from_bytes(content[end : end + 4], "little")
    return told != masked_crc32c(bytes(content[start:end]))


def masked_crc32c(data: bytes) -> int:
    """The check of some bytes, as a TFRecord file has it: u32."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
