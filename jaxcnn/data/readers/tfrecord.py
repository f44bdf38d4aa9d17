"""TFRecord files without TensorFlow, made random access by an index of offsets.

A record is u64 length, u32 check of the length, the data, u32 check of the data, little-endian. A
check is the CRC-32C of the bytes, rotated right by 15 bits plus a constant (tensorflow/core/lib/
hash/crc32c.h).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np

_HEADER, _FOOTER = 12, 4
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_ROWS = 4096  # records checked at a time: their bytes of one position stay in the cache
_FEW = 48  # up to so many are checked one by one
_BLOCK = 256  # bytes of a long record that are taken together


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


def masked_check(data: bytes) -> int:
    """The check of one stretch of bytes, as `masked_crc32c`."""
    return int(_masked(np.array([_crc32c(data)], np.uint32))[0])


def _crc32c(data: bytes) -> int:
    if len(data) > 4 * _BLOCK:
        return _crc32c_by_blocks(data)
    crc, table = 0xFFFFFFFF, _INTEGERS
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc32c_by_blocks(data: bytes) -> int:
    """The same for long data: the CRC is linear, so that a byte's part depends on its place."""
    padded = np.zeros(-(-len(data) // _BLOCK) * _BLOCK, np.uint8)  # zeros in front change nothing
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[-len(data) : len(padded) - len(data) + 4] ^= 0xFF  # the CRC begins with all ones
    place = np.arange(_BLOCK)
    crc = np.bitwise_xor.reduce(_parts_by_place()[place, padded.reshape(-1, _BLOCK)], axis=1)
    doublings = _BLOCK.bit_length() - 1
    while len(crc) > 1:  # two neighbours become one
        if len(crc) % 2:
            crc = np.concatenate([crc[:1] * 0, crc])
        crc = _followed_by_zeros(crc[0::2], doublings) ^ crc[1::2]
        doublings += 1
    return int(crc[0]) ^ 0xFFFFFFFF


@functools.cache
def _parts_by_place() -> np.ndarray:
    """What a byte adds to the CRC of a block, by place and value: u32[_BLOCK,256]."""
    parts = [_TABLE]
    for _ in range(_BLOCK - 1):
        parts.append(_TABLE[parts[-1] & 0xFF] ^ (parts[-1] >> 8))
    return np.stack(parts[::-1])


def _followed_by_zeros(crc: np.ndarray, doublings: int) -> np.ndarray:
    """What the CRCs u32[N] become after 2**doublings bytes of zero."""
    tables = _zeros(doublings)
    return functools.reduce(
        np.bitwise_xor, (tables[k][(crc >> np.uint32(8 * k)) & 0xFF] for k in range(4))
    )


@functools.cache
def _zeros(doublings: int) -> np.ndarray:
    """The same for each byte of a CRC alone: u32[4,256]."""
    if doublings:
        half = _zeros(doublings - 1)
        return np.stack([_followed_by_zeros(row, doublings - 1) for row in half])
    byte = np.arange(256, dtype=np.uint32)
    values = [byte << np.uint32(8 * k) for k in range(4)]
    return np.stack([_TABLE[v & 0xFF] ^ (v >> 8) for v in values])


def _masked(crc: np.ndarray) -> np.ndarray:
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _table()
_INTEGERS = _TABLE.tolist()
