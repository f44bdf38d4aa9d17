"""Random access to TFRecord files without TensorFlow.

A record consists of the length (u64), a checksum of the length (u32), the data, and a checksum of
the data (u32), all little-endian. A checksum is the CRC-32C rotated right by 15 bits, plus a
constant (tensorflow/core/lib/hash/crc32c.h).
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
    """An indexed file.

    Attributes:
      path: the file.
      content: its memory-mapped content.
      starts, lengths: offset and length i64[N] of the data of each record.
    """

    path: str
    content: memoryview
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Reads the given records. Raises ValueError if a checksum is wrong."""
        records = []
        for row in rows:
            start, length = int(self.starts[row]), int(self.lengths[row])
            if _is_damaged(self.content, start, length):
                raise ValueError(f"{self.path}: record {row} is damaged (wrong checksum)")
            records.append(bytes(self.content[start : start + length]))
        return records


def index_records(path: str | os.PathLike) -> Records:
    """Finds the records of a file, without reading their data.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is truncated or is not a TFRecord file.
    """
    file = os.fspath(path)
    size = os.path.getsize(file)
    content = memoryview(np.memmap(file, np.uint8, "r") if size else b"")  # type: ignore[arg-type]
    starts: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < size:
        length = int.from_bytes(content[at : at + 8], "little")
        # Usually, a wrong length means that the file is not a TFRecord file.
        if at + _HEADER <= size and _is_damaged(content, at, 8):
            raise ValueError(f"{path}: no TFRecord at byte {at} (wrong checksum of a length)")
        if at + _HEADER + length + _FOOTER > size:
            raise ValueError(f"{path}: truncated: {size} bytes, record {len(starts)} needs more")
        starts.append(at + _HEADER)
        lengths.append(length)
        at += _HEADER + length + _FOOTER
    return Records(str(path), content, np.array(starts, np.int64), np.array(lengths, np.int64))


def _is_damaged(content: memoryview, start: int, length: int) -> bool:
    """Whether the checksum after a range of bytes is wrong."""
    end = start + length
    stored = int.from_bytes(content[end : end + 4], "little")
    return stored != masked_crc32c(bytes(content[start:end]))


def masked_crc32c(data: bytes) -> int:
    """Computes the checksum u32 of a TFRecord file."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
