"""Access to single values in the pages of a Parquet file.

A library reads a whole row group, which usually has a hundred photos. Here the places of the values
of a row group are determined once; then only the bytes of a value are read, if its page is not
compressed, and 64 KiB more on either side if it is compressed with Snappy. Of other pages all is
read.

The format is described at https://parquet.apache.org/docs/file-format: a column of a row group is a
sequence of pages, optionally after a page with a dictionary. Each has a header in Thrift's compact
protocol.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._checks import one_line
from jaxcnn._files import read_at
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import snappy

CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI")
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_PLAIN, _INDICES = 0, (2, 8)  # encodings


class Unsupported(Exception):
    """The pages have an encoding that this module does not read."""


class Body(NamedTuple):
    """The values of a page in a file.

    Attributes:
      start, stored: offset and number of the bytes in the file.
      size: number of bytes after decompression.
      codec: one of `CODECS`.
      blocks: see `snappy.find_blocks`.
    """

    start: int
    stored: int
    size: int
    codec: str
    blocks: Any = None


class Values(NamedTuple):
    """The places of the values of a row group.

    Attributes:
      bodies: of its pages.
      body: index of the body of each value, i32[N]; -1 for null.
      starts, lengths: place of each value in the decompressed body, i64[N].
    """

    bodies: list[Body]
    body: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def find_values(path: Path, column: Any, max_level: int) -> Values:
    """Determines the places of the values of a row group.

    Args:
      path: of the file.
      column: `pyarrow.parquet.ColumnChunkMetaData` of a column of binary values.
      max_level: definition level of a value that is not null.

    Raises:
      BadImage: the row group is damaged.
      Unsupported: see above.
    """
    if column.compression not in CODECS or column.physical_type != "BYTE_ARRAY":
        raise Unsupported
    offsets = (column.dictionary_page_offset, column.data_page_offset)
    first = min(offset for offset in offsets if offset)
    data = read_at(path, first, column.total_compressed_size)
    try:
        return _find_values(data, first, column, max_level)
    except (IndexError, KeyError, struct.error, ValueError, OSError, OverflowError) as error:
        raise BadImage(f"is damaged: {one_line(error)}") from None


def _find_values(data: bytes, first: int, column: Any, max_level: int) -> Values:
    bodies: list[Body] = []
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    dictionary: tuple[np.ndarray, np.ndarray] | None = None
    count = 0
    for header, start in _pages(data):
        stored = data[start : start + header[3]]
        if len(stored) != header[3]:
            raise ValueError("a page is truncated")
        if 4 in header and zlib.crc32(stored) != header[4] & 0xFFFFFFFF:
            raise ValueError("the checksum of a page is wrong")
        if header[1] == _DICTIONARY:
            body, values = _decompress(stored, first + start, header[2], column.compression)
            dictionary = _plain(values, 0, header[7][1])
            bodies.append(body)
            continue
        if header[1] not in (_DATA, _DATA_V2):
            continue
        if not 0 <= header[5 if header[1] == _DATA else 8][1] <= column.num_values:
            raise ValueError("a page has more values than its row group")
        body, values, at, present, encoding = _levels(
            header, stored, first + start, column.compression, max_level
        )
        number = len(bodies)
        bodies.append(body)
        if encoding == _PLAIN:
            starts, lengths = _plain(values, at, int(present.sum()))
        elif encoding in _INDICES and dictionary is not None:
            indices = _hybrid(values[at + 1 :], values[at], int(present.sum()))
            starts, lengths = (places[indices] for places in dictionary)
            number = 0
        else:
            raise Unsupported
        found.append(_spread(present, number, starts, lengths))
        count += len(present)
    if count != column.num_values:
        raise ValueError(f"it has {count} of {column.num_values} values")
    return Values(bodies, *(np.concatenate(arrays) for arrays in zip(*found)))


def _spread(
    present: np.ndarray, number: int, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of all values, of which only some are not null."""
    body = np.where(present, np.int32(number), np.int32(-1))
    all_starts, all_lengths = np.zeros((2, len(present)), np.int64)
    all_starts[present], all_lengths[present] = starts, lengths
    return body, all_starts, all_lengths


def read_value(path: Path, values: Values, row: int) -> bytes | None:
    """Reads a value.

    Args:
      path: of the file.
      values: of the row group.
      row: number of the value in the row group.

    Returns:
      The value; None for null.

    Raises:
      BadImage: the value is damaged.
    """
    number = int(values.body[row])
    if number < 0:
        return None
    body, start = values.bodies[number], int(values.starts[row])
    stop = start + int(values.lengths[row])
    if start == stop:
        return b""
    if body.codec == "UNCOMPRESSED":
        return read_at(path, body.start + start, stop - start)
    if body.blocks is None:
        stored = read_at(path, body.start, body.stored)
        return _checked(stored, body.size, body.codec)[start:stop]
    low, high = start // snappy.BLOCK, max(-(-stop // snappy.BLOCK), start // snappy.BLOCK + 1)
    size = min(high * snappy.BLOCK, body.size) - low * snappy.BLOCK
    stored = read_at(path, body.start + body.blocks[low], body.blocks[high] - body.blocks[low])
    start, stop = start - low * snappy.BLOCK, stop - low * snappy.BLOCK
    return _checked(snappy.with_length(stored, size), size, body.codec)[start:stop]


def _checked(stored: bytes, size: int, codec: str) -> bytes:
    try:
        return _decompressed(stored, size, codec)
    except (ValueError, OSError) as error:
        raise BadImage(f"is damaged: {one_line(error)}") from None


def _decompressed(stored: bytes, size: int, codec: str) -> bytes:
    import pyarrow

    return pyarrow.decompress(stored, size, codec.lower(), asbytes=True)


def _decompress(stored: bytes, start: int, size: int, codec: str) -> tuple[Body, bytes]:
    if codec == "UNCOMPRESSED":
        return Body(start, len(stored), size, codec), stored
    blocks = snappy.find_blocks(stored) if codec == "SNAPPY" else None
    body = Body(start, len(stored), size, codec, blocks)
    return body, _decompressed(stored, size, codec)


def _levels(
    header: dict[int, Any], stored: bytes, start: int, codec: str, max_level: int
) -> tuple[Body, bytes, int, np.ndarray, int]:
    """(body, its decompressed bytes, offset of the values in it, which are not null, encoding)."""
    width = max_level.bit_length()
    if header[1] == _DATA:
        about = header[5]
        body, values = _decompress(stored, start, header[2], codec)
        if not max_level:
            return body, values, 0, np.ones(about[1], bool), about[2]
        length = struct.unpack_from("<I", values)[0]
        levels = _hybrid(values[4 : 4 + length], width, about[1])
        return body, values, 4 + length, levels == max_level, about[2]
    about = header[8]
    length = about[5] + about[6]
    present = np.ones(about[1], bool)
    if max_level:
        present = _hybrid(stored[about[6] : length], width, about[1]) == max_level
    size, codec = header[2] - length, codec if about.get(7, True) else "UNCOMPRESSED"
    body, values = _decompress(stored[length:], start + length, size, codec)
    return body, values, 0, present, about[4]


def _plain(values: bytes, at: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(starts, lengths) of values that each follow their length in four bytes."""
    if not 0 <= count <= len(values) // 4:
        raise ValueError(f"a page has no room for {count} values")
    starts, lengths = np.empty((2, count), np.int64)
    for i in range(count):
        (length,) = struct.unpack_from("<I", values, at)
        starts[i], lengths[i] = at + 4, length
        at += 4 + length
    if at > len(values):
        raise ValueError("a value is truncated")
    return starts, lengths


def _hybrid(data: bytes, width: int, count: int) -> np.ndarray:
    """Decodes `count` numbers of `width` bits, in runs of equal ones or packed by eights."""
    found: list[np.ndarray] = [np.zeros(0, np.int64)]
    at = done = 0
    while done < count:
        header, at = _varint(data, at)
        if header & 1:
            size = (header >> 1) * width
            packed = np.frombuffer(data[at : at + size].ljust(size, b"\0"), np.uint8)
            bits = np.unpackbits(packed, bitorder="little").reshape(-1, width)
            found.append(bits @ (1 << np.arange(width)))
        else:
            size = -(-width // 8)
            value = int.from_bytes(data[at : at + size], "little")
            found.append(np.full(min(header >> 1, count), value))
        if not len(found[-1]):
            raise ValueError("a run is empty")
        at += size
        done += len(found[-1])
    return np.concatenate(found)[:count]


def _pages(data: bytes) -> Iterator[tuple[dict[int, Any], int]]:
    """Yields (header, offset of what follows it) of each page."""
    at = 0
    while at < len(data):
        header, at = _struct(data, at)
        yield header, at
        at += header[3]


# Thrift's compact protocol


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """({number of a field: value}, offset of what follows) of a struct."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        kind, delta = data[at] & 15, data[at] >> 4
        at += 1
        if not delta:
            delta, at = _integer(data, at)
            number = 0
        number += delta
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return data[at : at + length], at + length
    if kind == 12:
        return _struct(data, at)
    raise ValueError(f"a header has a field of type {kind}")
