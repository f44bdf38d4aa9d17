"""Archives: image files in ArrayRecord files, for fast copying and random access.

    info.json                           classes, examples in each file, options of the conversion
    train.array_record-00000-of-00313   records in MessagePack: {"image": content of the image file,
    ...                                 "label": index of the class, "name": original file}
    train.array_record-00000-of-00313.crc32   file, number of examples, checksum of the examples

An archive is first written to a directory `OUT.draft`. After an interruption, the complete files in
it are reused.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from jaxcnn._cache import fetch
from jaxcnn._files import read_json, try_lock, written_by
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, old_archive
from jaxcnn.data.sets import FileShard

INFO = "info.json"
SHARD_SIZE = 4096  # examples per file; an interruption loses at most this many
_UNFINISHED = "unfinished"
_ANY_NAME = "surrogateescape"  # a name of a file may not be UTF-8
_CHECKSUM = ".crc32"  # ending of the file beside each shard with the checksum of its examples


class Shard(NamedTuple):
    """A file of an archive.

    Attributes:
      file: name of the file.
      part: the split.
      first, length: index of its first example in the split, and number of examples.
    """

    file: str
    part: str
    first: int
    length: int


def open_archive(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens an archive.

    Args:
      path: its directory.

    Returns:
      (class names, {split: examples}), with the examples in the order in which they were written.

    Raises:
      FileNotFoundError: the directory or one of its files does not exist.
      ValueError: the directory is not an archive, or has the format of an earlier version.
    """
    if old_archive.is_old_archive(path):
        raise ValueError(
            f"{path} is an archive of an earlier version; convert it by `jaxcnn prepare "
            f"archive:{path} NEW` and use archive:NEW"
        )
    if not path.exists():
        hint = "; it was begun: run the same `jaxcnn prepare` again" * _draft(path).exists()
        raise FileNotFoundError(f"there is no archive {path}{hint}")
    info = _read_info(path)
    names: Any = info.get("class_names")
    lengths: Any = info.get("shards")
    if not _are(names, str) or not isinstance(lengths, dict) or not lengths:
        raise ValueError(f"{path} is not an archive of `jaxcnn prepare`")
    if wrong := [part for part, counts in lengths.items() if not _are(counts, int)]:
        raise ValueError(f"{path / INFO} has no list of numbers of examples for {wrong[0]!r}")
    return tuple(names), {part: _part(path, part, lengths[part], len(names)) for part in lengths}


def _are(values: Any, kind: type) -> bool:
    """Whether `values` is a list of values of this type."""
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _part(path: Path, part: str, lengths: list[int], classes: int) -> FileShard:
    shards = [(path / file, n) for file, n in zip(_files(part, len(lengths)), lengths)]
    for file, _ in shards:
        for needed in (file, file.with_name(file.name + _CHECKSUM)):
            if not needed.is_file():
                raise FileNotFoundError(f"{needed} is missing, a file of the archive {path}")
    place, record = array_record.place_of(shards), array_record.read_shards(shards)

    def read(i: int) -> tuple[bytes, int]:
        image, label = _example(record(*place(i)))
        if not 0 <= label < classes:
            raise BadImage(f"has the label {label}; there are {classes} classes")
        return image, label

    def name(i: int) -> str:
        shard, row = place(i)
        with contextlib.suppress(ValueError):  # the record is damaged
            example = msgpack.unpackb(record(shard, row), unicode_errors=_ANY_NAME)
            return f"{path}: {example['name']}"
        return f"{shards[shard][0]}, record {row}"

    def listing(start: int, stop: int) -> list[str]:
        checksums = [file.with_name(file.name + _CHECKSUM) for file, _ in shards]
        fetch(checksums)
        return [f"{start} to {stop}", *(path.read_text("utf-8") for path in checksums)]

    return FileShard(sum(lengths), read, name, listing=listing)


def _example(record: bytes) -> tuple[bytes, int]:
    """Unpacks a record to (image file, label)."""
    try:
        example = msgpack.unpackb(record, unicode_errors=_ANY_NAME)
        image, label = example["image"], example["label"]
    except (ValueError, LookupError, TypeError) as error:
        raise BadImage(f"is not an example of an archive: {error}") from None
    if not isinstance(image, bytes) or type(label) is not int:
        raise BadImage("is not an example of an archive: it lacks an image file and a label")
    return image, label


class Draft:
    """An archive that is being written, possibly continued from an earlier process.

    Args:
      path: directory of the finished archive.
      about: "class_names" and the options of the conversion. A draft can only be continued with the
        same values.
      sizes: {split: number of examples}.

    Attributes:
      shards: all files, in order.

    Raises:
      ValueError: the archive exists, its name is not UTF-8, there is a draft with other values, or
        another process is writing it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], sizes: Mapping[str, int]):
        if path.exists():
            raise ValueError(f"{path} already exists; delete it, or choose another directory")
        if str(path) != str(path).encode("utf-8", "replace").decode():
            raise ValueError(f"{str(path)!r} is not UTF-8, as the name of an archive must be")
        self._path, self._folder = path, _draft(path)
        self.shards = [shard for part, size in sizes.items() for shard in _shards(part, size)]
        lengths = {p: [s.length for s in self.shards if s.part == p] for p in sizes}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._info = open(self._folder / INFO, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            if not try_lock(self._info):
                raise ValueError(f"{path} is being written by another process")
            self._begin(json.loads(json.dumps({**about, "shards": lengths})))
        except BaseException:
            self._info.close()
            raise

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._info.close()

    def _begin(self, info: dict[str, Any]) -> None:
        self._info.seek(0)
        if not self._info.read():
            self._info.write(json.dumps(info))
            self._info.flush()
            return
        earlier = _read_info(self._folder)
        if changed := [key for key in info if earlier.get(key) != info[key]]:
            raise ValueError(
                f"{self._folder} was started with another {', '.join(changed)}; delete it, or "
                "repeat the original command"
            )

    def has(self, shard: Shard) -> bool:
        """Returns whether an earlier process completed a file."""
        path = self._folder / shard.file
        if not path.exists():
            return False
        try:
            array_record.open_checked(path, shard.length).close()
        except ValueError:
            return False
        return True

    @contextlib.contextmanager
    def write(self, shard: Shard) -> Iterator[Callable[[bytes, int, str], None]]:
        """Opens a file of the archive; yields a function that adds (image file, label, name)."""
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self._folder / _UNFINISHED
        # Image files are already compressed, and are read one at a time.
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")

        checksum = 0

        def add(image: bytes, label: int, name: str) -> None:
            nonlocal checksum
            checksum = zlib.crc32(image, zlib.crc32(b"%d " % label, checksum))
            example = {"label": label, "name": name, "image": image}
            with written_by(RuntimeError, self._folder):
                writer.write(msgpack.packb(example, unicode_errors=_ANY_NAME))

        try:
            yield add
        finally:
            with written_by(RuntimeError, self._folder):
                writer.close()
        with open(path, "rb+") as written:
            os.fsync(written.fileno())
        text = f"{shard.file} {shard.length} {checksum:08x}\n"
        (self._folder / f"{shard.file}{_CHECKSUM}").write_text(text, "utf-8")
        os.replace(path, self._folder / shard.file)

    def finish(self) -> None:
        """Renames the draft to the finished archive."""
        self._info.close()
        os.replace(self._folder, self._path)


def _read_info(folder: Path) -> dict[str, Any]:
    """Reads the description of an archive; {} if it is not a JSON object."""
    try:
        info = read_json(folder / INFO)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def _files(part: str, count: int) -> list[str]:
    return [f"{part}.array_record-{i:05d}-of-{count:05d}" for i in range(count)]


def _shards(part: str, size: int) -> list[Shard]:
    firsts = range(0, size, SHARD_SIZE)
    return [
        Shard(file, part, first, min(SHARD_SIZE, size - first))
        for file, first in zip(_files(part, len(firsts)), firsts)
    ]


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.draft")
