"""A set of image files in one file: quick to copy and to read at any place, with checksums.

    magic            8 bytes
    image files      one after another, as they are
    index            an .npz: "about" (JSON: classes, parts, how it was made), "records" (length,
                     CRC-32 and label of each file) and "names" (zlib, a line each)
    footer           u64 start and u64 length of the index, u32 CRC-32 of it, magic; little-endian

A `Draft` is written beside its place, as `OUT.draft` with `OUT.draft.records`, which tell after a
kill how far it came.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxcnn._files import read_at
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers.archive_index import read_index
from jaxcnn.data.sets import Part

_MAGIC = b"jaxcnn1\n"
_FOOTER = struct.Struct("<QQI8s")
_RECORD = np.dtype([("length", "<u4"), ("crc", "<u4"), ("label", "<i4")])
_CHECKED = 64  # records at the end of a draft whose checksums are looked at


def open_archive(path: Path) -> tuple[tuple[str, ...], dict[str, Part]]:
    """(class names, {part: examples}), the examples in the order in which they were written.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no archive, truncated or damaged.
    """
    if not path.is_file():
        begun = _draft_files(path)[0].exists()
        hint = "; it was begun: run the same `jaxcnn prepare` again" if begun else ""
        raise FileNotFoundError(f"there is no archive {path}{hint}")
    size = path.stat().st_size
    if read_at(path, 0, len(_MAGIC)) != _MAGIC:
        raise ValueError(f"{path} is no archive of `jaxcnn prepare`")
    footer = read_at(path, max(0, size - _FOOTER.size), _FOOTER.size)
    if len(footer) != _FOOTER.size or not footer.endswith(_MAGIC):
        raise ValueError(f"{path} is truncated: {size:,} bytes, and no index at the end")
    start, length, crc, _ = _FOOTER.unpack(footer)
    index = read_at(path, start, length) if start + length + _FOOTER.size == size else b""
    if zlib.crc32(index) != crc or not index:
        raise ValueError(f"{path} is damaged: the index does not pass its check")
    about, records, names = read_index(path, index, _RECORD, start - len(_MAGIC))
    starts = len(_MAGIC) + np.cumsum(records["length"], dtype=np.int64) - records["length"]
    parts, first = {}, 0
    for part, count in about["parts"].items():
        parts[part] = _part(path, first, count, records, starts, names)
        first += count
    return tuple(about["class_names"]), parts


def _part(path: Path, first: int, count: int, records, starts, names: bytes) -> Part:
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

    def listing(start: int, stop: int) -> list[str]:
        return [str(record) for record in records[first + start : first + stop].tolist()]

    return Part(count, read, name, listing=listing)


class Draft:
    """An archive being written, which goes on where an earlier process ended.

    Args:
      path: where the archive will be.
      about: what it is to hold: "class_names", "parts" {part: number of examples}, and how the
        files are made. A draft of something else is refused.

    Raises:
      ValueError: there is a draft of something else, or the archive already, or another process is
        writing it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        if path.exists():
            raise ValueError(f"{path} is there already; delete it or write another")
        self._path, self._about = path, json.loads(json.dumps(about))
        draft, records = _draft_files(path)
        going_on = draft.exists() and _is_begun(records)
        self._records = open(records, "r+b" if going_on else "a+b")  # noqa: SIM115
        try:
            _lock(self._records, path)
            if going_on:
                done = self._earlier(draft, records)
            else:
                draft.write_bytes(_MAGIC)
                records.write_text(json.dumps(self._about) + "\n", encoding="utf-8")
                done = np.empty(0, _RECORD)
        except BaseException:
            self._records.close()
            raise
        self._data = open(draft, "r+b")  # noqa: SIM115
        self._records.seek(0)
        header = len(self._records.readline())
        for file, end in (
            (self._data, len(_MAGIC) + int(done["length"].sum(dtype=np.int64))),
            (self._records, header + done.nbytes),
        ):
            file.truncate(end)
            file.seek(end)
        self._done = list(done)

    def __len__(self) -> int:
        return len(self._done)

    def add(self, data: bytes, label: int) -> None:
        """Appends an image file."""
        record = np.array((len(data), zlib.crc32(data), label), _RECORD)
        self._data.write(data)
        self._data.flush()
        self._records.write(record.tobytes())
        self._records.flush()
        self._done.append(record)

    def finish(self, names: Iterable[str]) -> None:
        """Makes it the archive; `names` of all examples, in order."""
        packed = zlib.compress("\n".join(names).encode())
        index = io.BytesIO()
        np.savez(
            index,
            about=np.frombuffer(json.dumps(self._about).encode(), np.uint8),
            records=np.array(self._done, _RECORD),
            names=np.frombuffer(packed, np.uint8),
        )
        content = index.getvalue()
        footer = _FOOTER.pack(self._data.tell(), len(content), zlib.crc32(content), _MAGIC)
        self._data.write(content + footer)
        self._data.flush()
        os.fsync(self._data.fileno())
        self.close()
        draft, records = _draft_files(self._path)
        os.replace(draft, self._path)
        records.unlink()

    def close(self) -> None:
        self._data.close()
        self._records.close()

    def _earlier(self, draft: Path, records: Path) -> np.ndarray:
        """The records of the draft whose files are there as a whole."""
        header, _, rest = records.read_bytes().partition(b"\n")
        was = json.loads(header)
        changed = [key for key in self._about if was.get(key) != self._about[key]]
        if changed:
            raise ValueError(
                f"{draft} was begun with another {', '.join(changed)}; delete it, or prepare the "
                "same as then"
            )
        done = np.frombuffer(rest[: len(rest) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)
        empty = np.flatnonzero(done["length"] == 0)  # zeros, as a power cut leaves them
        done = done[: empty[0]] if len(empty) else done
        ends = len(_MAGIC) + np.cumsum(done["length"], dtype=np.int64)
        done = done[ends <= draft.stat().st_size]
        for i in range(max(0, len(done) - _CHECKED), len(done)):
            length = int(done["length"][i])
            if zlib.crc32(read_at(draft, int(ends[i]) - length, length)) != done["crc"][i]:
                return done[:i]
        return done


def _is_begun(records: Path) -> bool:
    """Whether a file tells what the archive is to hold; a kill or a power cut may have cut it."""
    if not records.exists():
        return False
    header, newline, _ = records.read_bytes().partition(b"\n")
    try:
        return bool(newline) and isinstance(json.loads(header), dict)
    except ValueError:
        return False


def _lock(file: IO[bytes], path: Path) -> None:
    """Keeps other processes from writing the same archive, where the system can, until closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path} is being written by another process") from None


def _draft_files(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.draft"), path.with_name(f"{path.name}.draft.records")
