"""TFRecord files without TensorFlow, made random access by an index of offsets.

A record is u64 length, u32 check of the length, the data, u32 check of the data, little-endian. A
check is the CRC-32C of the bytes, rotated right by 15 bits plus a constant (tensorflow/core/lib/
hash/crc32c.h).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

_HEADER, _FOOTER = 12, 4
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_ROWS = 4096  # records checked at a time: their bytes of one position stay in the cache
_FEW = 48  # up to so many are checked one by one, in plain Python


@dataclasses.dataclass(frozen=True)
class Records:
    """An indexed file: `starts` and `lengths` i64[N] of the data in `content` u8[bytes]."""

    path: str
    content: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The records of these numbers. Raises ValueError if one does not pass its check."""
        starts, lengths = (v[np.asarray(rows, int)] for v in (self.starts, self.lengths))
        wrong = np.flatnonzero(_fails(self.content, starts, lengths))
        if len(wrong):
            raise ValueError(f"{self.path}: record {rows[wrong[0]]} is damaged (wrong checksum)")
        return [self.content[a : a + n].tobytes() for a, n in zip(starts, lengths)]


def index_records(path: str | os.PathLike) -> Records:
    """Finds the records of a file by their lengths, without reading their data.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file ends within a record, or is no TFRecord file.
    """
    path = os.fspath(path)
    size = os.path.getsize(path)
    content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    view = memoryview(content)  # type: ignore[arg-type]
    starts: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < size:
        length = int.from_bytes(view[at : at + 8], "little")
        if at + _HEADER + length + _FOOTER > size:
            # A wrong length is most often a wrong file.
            if at + _HEADER <= size and _fails(content, np.array([at]), np.array([8])).any():
                raise ValueError(f"{path}: no TFRecord at byte {at} (wrong checksum of a length)")
            raise ValueError(f"{path}: truncated: {size} bytes, record {len(starts)} needs more")
        starts.append(at + _HEADER)
        lengths.append(length)
        at += _HEADER + length + _FOOTER
    found = np.array(starts, np.int64)
    wrong = _fails(content, found - _HEADER, np.full(len(found), 8))
    if wrong.any():
        raise ValueError(
            f"{path}: no TFRecord at byte {found[wrong][0] - _HEADER} (wrong checksum of a length)"
        )
    return Records(path, content, found, np.array(lengths, np.int64))


def _fails(content: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Whether the u32 after each stretch of bytes is not its check, bool[N]."""
    after = (starts + lengths)[:, None] + np.arange(4)
    told = content[after].copy().view("<u4")[:, 0] if len(starts) else np.empty(0, np.uint32)
    return told != masked_crc32c(content, starts, lengths)


def masked_crc32c(content: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The check u32[N] of each stretch of content u8[bytes], many stretches at a time."""
    checks = np.empty(len(starts), np.uint32)
    if len(starts) <= _FEW:
        checks[:] = [_crc32c(content[a : a + n].tobytes()) for a, n in zip(starts, lengths)]
        return _masked(checks)
    for first in range(0, len(starts), _ROWS):
        part = slice(first, first + _ROWS)
        order = np.argsort(-lengths[part], kind="stable")
        begin, length = starts[part][order], lengths[part][order]
        crc = np.full(len(order), 0xFFFFFFFF, np.uint32)
        for position in range(length[0]):
            n = np.searchsorted(-length, -position)  # so many are longer than this
            byte = content[begin[:n] + position]
            crc[:n] = _TABLE[(crc[:n] ^ byte) & 0xFF] ^ (crc[:n] >> 8)
        checks[part][order] = ~crc
    return _masked(checks)


def _crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _INTEGERS
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _masked(crc: np.ndarray) -> np.ndarray:
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _table()
_INTEGERS = _TABLE.tolist()
