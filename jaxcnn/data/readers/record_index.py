"""Random access to the records of large files, such as TFRecord files, with a persistent index.

The index is stored next to the files or, if that directory is not writable, in the user's cache
directory (`cache_folder`); for files in a bucket, with their copies. It is rebuilt if the size or
modification time of a file changes, or its checksum in a bucket.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import index_folder, stamp
from jaxcnn._files import atomic_write, cache_folder, read_at
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import tfrecord

# Start and length of the data of each record, i64[N], and further arrays [N] of bytes.
Places = tuple[np.ndarray, ...]
_THREADS = 8


def tfrecord_places(path: Path) -> Places:
    """Returns (starts, lengths) of the records of a TFRecord file."""
    records = tfrecord.index_records(path)
    return records.starts, records.lengths


def open_index(
    paths: Sequence[Path],
    name: str,
    places_of: Callable[[Path], Places] = tfrecord_places,
    fields: Sequence[str] = ("starts", "lengths"),
) -> list[Places]:
    """Loads or builds the index of the files of a dataset.

    Args:
      paths: the files, usually in one directory.
      name: name of the index.
      places_of: function of the path of a file that returns the arrays of its records.
      fields: names of these arrays.

    Returns:
      The arrays of each file.

    Raises:
      ValueError: a file is truncated or has another format.
    """
    stamps = np.array([stamp(path) for path in paths], np.int64)
    candidates = _candidates(paths[0].parent, name)
    for file in candidates:
        index = _load(file, stamps, fields)  # None if it is outdated, damaged or not an index
        if index is not None:
            return index
    with ThreadPoolExecutor(_THREADS, "jaxcnn-index") as pool:
        places = list(pool.map(places_of, paths))
    for file in candidates:
        if _save(file, stamps, places, fields):
            break
    return places


def read_record(path: Path, start: int, length: int) -> bytes:
    """Reads the data of a record. Raises `BadImage` if its checksum is wrong."""
    data = read_at(path, start, length + 4)
    content, check = data[:length], data[length:]
    if len(check) != 4 or tfrecord.masked_crc32c(content) != int.from_bytes(check, "little"):
        raise BadImage("is damaged (wrong checksum)")
    return content


def _candidates(folder: Path, name: str) -> list[Path]:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    if (copies := index_folder(folder)) is not None:
        return [copies / f"{name}-{digest}.index.npz"]
    local, cache = folder / f"{name}.index.npz", cache_folder()
    return [local] if cache is None else [local, cache / f"{name}-{digest}.index.npz"]


def _load(file: Path, stamps: np.ndarray, fields: Sequence[str]) -> list[Places] | None:
    try:
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["stamps"], stamps):
                return None
            counts, starts, lengths, *more = (arrays[name] for name in ("counts", *fields))
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile):
        return None
    if any(values.dtype != np.int64 for values in (starts, lengths, counts)):
        return None
    if any(values.dtype.kind != "S" for values in more):
        return None
    if any(values.ndim != 1 for values in (starts, lengths, counts, *more)):
        return None
    if len(counts) != len(stamps) or counts.min() < 0:
        return None
    if any(len(values) != counts.sum() for values in (starts, lengths, *more)):
        return None
    sizes = np.repeat(stamps[:, 0], counts)  # size of the file of each record
    if not _are_within(starts, lengths, sizes):
        return None
    ends = np.cumsum(counts)[:-1]
    return list(zip(*(np.split(values, ends) for values in (starts, lengths, *more))))


def _are_within(starts: np.ndarray, lengths: np.ndarray, sizes: np.ndarray) -> bool:
    least = min(starts.min(initial=0), lengths.min(initial=0))
    return bool(least >= 0 and (lengths <= sizes).all() and (starts <= sizes - lengths).all())


def _save(file: Path, stamps: np.ndarray, places: Sequence[Places], fields: Sequence[str]) -> bool:
    """Writes the index atomically. Returns False if that is not possible."""
    arrays: dict[str, Any] = {name: np.concatenate(a) for name, a in zip(fields, zip(*places))}
    arrays |= {"stamps": stamps, "counts": np.array([len(starts) for starts, *_ in places])}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as draft, open(draft, "wb") as out:
            np.savez(out, **arrays)
    except OSError:
        return False
    return True
