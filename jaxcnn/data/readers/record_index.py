"""Random access to the TFRecord files of a large set: where each record lies, found once.

The index is kept beside the files, or, where that cannot be written, in the user's folder of caches
(`cache_folder`). It is made anew when a file has another size or time of change.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcnn._files import atomic_write, cache_folder, read_at
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import tfrecord

Places = tuple[np.ndarray, np.ndarray]  # start and length of each record's data, i64[N]


def open_index(paths: Sequence[Path], name: str) -> list[Places]:
    """The places of the records of each file.

    Args:
      paths: TFRecord files of one folder.
      name: of the index.

    Raises:
      ValueError: one is truncated, or no TFRecord file.
    """
    stamps = np.array([(s.st_size, s.st_mtime_ns) for s in map(os.stat, paths)], np.int64)
    kept = _candidates(paths[0].parent, name)
    for file in kept:
        found = _load(file, stamps)  # None of one that is old, damaged, or not an index
        if found is not None:
            return found
    places = []
    for path in paths:
        records = tfrecord.index_records(path)
        places.append((records.starts, records.lengths))
    for file in kept:
        if _save(file, stamps, places):
            break
    return places


def read_record(path: Path, start: int, length: int) -> bytes:
    """A record's data. Raises `BadImage` if it does not pass its check."""
    data = read_at(path, start, length + 4)
    content, check = data[:length], data[length:]
    if len(check) != 4 or tfrecord.masked_crc32c(content) != int.from_bytes(check, "little"):
        raise BadImage("is damaged (wrong checksum)")
    return content


def _candidates(folder: Path, name: str) -> list[Path]:
    beside, cache = folder / f"{name}.index.npz", cache_folder()
    if cache is None:
        return [beside]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return [beside, cache / f"{name}-{place}.index.npz"]


def _load(file: Path, stamps: np.ndarray) -> list[Places] | None:
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as kept:
            if not np.array_equal(kept["stamps"], stamps):
                return None
            starts, lengths, counts = (kept[name] for name in ("starts", "lengths", "counts"))
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile):
        return None
    if any(values.dtype != np.int64 or values.ndim != 1 for values in (starts, lengths, counts)):
        return None
    if len(counts) != len(stamps) or counts.min() < 0:
        return None
    if not len(starts) == len(lengths) == counts.sum():
        return None
    sizes = np.repeat(stamps[:, 0], counts)  # of the file of each record
    if not _are_within(starts, lengths, sizes):
        return None
    ends = np.cumsum(counts)[:-1]
    return list(zip(np.split(starts, ends), np.split(lengths, ends)))


def _are_within(starts: np.ndarray, lengths: np.ndarray, sizes: np.ndarray) -> bool:
    least = min(starts.min(initial=0), lengths.min(initial=0))
    return bool(least >= 0 and (lengths <= sizes).all() and (starts <= sizes - lengths).all())


def _save(file: Path, stamps: np.ndarray, places: list[Places]) -> bool:
    """Whether it could be written; who reads it meanwhile sees the old one or the new one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as draft, open(draft, "wb") as out:
            np.savez(
                out,
                stamps=stamps,
                counts=np.array([len(starts) for starts, _ in places]),
                starts=np.concatenate([starts for starts, _ in places]),
                lengths=np.concatenate([lengths for _, lengths in places]),
            )
    except OSError:
        return False
    return True
