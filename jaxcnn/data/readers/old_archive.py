"""Archives of earlier versions, which `jaxcnn prepare` converts.

magic            8 bytes
image files      concatenated
index            an .npz: "about" (JSON: classes, splits, options of the conversion), "records"
                 (length, CRC-32 and label of each file) and "names" (zlib, one per line)
footer           u64 start and u64 length of the index, u32 CRC-32 of it, magic; little-endian
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from jaxcnn._files import read_at
from jaxcnn.data.decode import BadImage
from jaxcnn.data.sets import FileShard

_MAGIC = b"jaxcnn1\n"
_FOOTER = struct.Struct("<QQI8s")
_RECORD = np.dtype([("length", "<u4"), ("crc", "<u4"), ("label", "<i4")])


def is_old_archive(path: Path) -> bool:
    """Returns whether a path is an archive of an earlier version."""
    return path.is_file() and read_at(path, 0, len(_MAGIC)) == _MAGIC


def open_old_archive(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Like `archive.open_archive`. Raises ValueError if the file is truncated or damaged."""
    size = path.stat().st_size
    footer = read_at(path, max(0, size - _FOOTER.size), _FOOTER.size)
    if len(footer) != _FOOTER.size or not footer.endswith(_MAGIC):
        raise ValueError(f"{path} is truncated: {size:,} bytes, and no index at the end")
    start, length, crc, _ = _FOOTER.unpack(footer)
    index = read_at(path, start, length) if start + length + _FOOTER.size == size else b""
    if zlib.crc32(index) != crc or not index:
        raise ValueError(f"{path} is damaged: the index does not pass its check")
    with np.load(io.BytesIO(index), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        records, names = arrays["records"], arrays["names"].tobytes()
    starts = len(_MAGIC) + np.cumsum(records["length"], dtype=np.int64) - records["length"]
    parts, first = {}, 0
    for part, count in about["parts"].items():
        parts[part] = _part(path, first, count, records, starts, names)
        first += count
    return tuple(about["class_names"]), parts


def _part(path: Path, first: int, count: int, records, starts, names: bytes) -> FileShard:
    unpacked: list[str] = []

    def read(i: int) -> tuple[bytes, int]:
        length, crc, label = records[first + i].item()
        data = read_at(path, int(starts[first + i]), length)
        if zlib.crc32(data) != crc:
            raise BadImage("is damaged (wrong checksum)")
        return data, label

    def name(i: int) -> str:
        if not unpacked:
            unpacked.extend(zlib.decompress(names).decode().split("\n"))
        return f"{path}: {unpacked[first + i]}"

    return FileShard(count, read, name)
