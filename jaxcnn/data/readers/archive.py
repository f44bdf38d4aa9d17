"""A set of image files as a folder of ArrayRecord files: quick to copy, and to read at any place.

    info.json                           classes, examples in each file, how it was made
    train.array_record-00000-of-00313   records in MessagePack: {"image": an image file,
    ...                                 "label": its class's number, "name": where it came from}

It is written in a folder `OUT.draft`, whose finished files stay there after a kill.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgpack

from jaxcnn.data.readers import array_record, old_archive
from jaxcnn.data.sets import Part

INFO = "info.json"
SHARD_SIZE = 4096  # examples in a file: a killed preparation has to make at most as many anew
_UNFINISHED = "unfinished"


class Shard(NamedTuple):
    """A file of an archive: it has `length` examples of a part, from number `first` on."""

    file: str
    part: str
    first: int
    length: int


def open_archive(path: Path) -> tuple[tuple[str, ...], dict[str, Part]]:
    """(class names, {part: examples}), the examples in the order in which they were written.

    Raises:
      FileNotFoundError: there is no such folder, or a file of it is missing.
      ValueError: it is no archive, or one of an earlier version.
    """
    if old_archive.is_old_archive(path):
        raise ValueError(
            f"{path} is an archive of an earlier version; convert it by `jaxcnn prepare "
            f"archive:{path} NEW` and use archive:NEW"
        )
    if not path.exists():
        hint = "; it was begun: run the same `jaxcnn prepare` again" * _draft(path).exists()
        raise FileNotFoundError(f"there is no archive {path}{hint}")
    try:
        info = json.loads((path / INFO).read_text("utf-8"))
        names, lengths = tuple(info["class_names"]), dict(info["shards"])
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(f"{path} is no archive of `jaxcnn prepare`") from None
    return names, {part: _part(path, part, lengths[part]) for part in lengths}


def _part(path: Path, part: str, lengths: list[int]) -> Part:
    shards = [(path / file, n) for file, n in zip(_files(part, len(lengths)), lengths)]
    for file, _ in shards:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, a file of the archive {path}")
    place, record = array_record.place_of(shards), array_record.read_shards(shards)

    def read(i: int) -> tuple[bytes, int]:
        example = msgpack.unpackb(record(*place(i)))
        return example["image"], example["label"]

    def name(i: int) -> str:
        shard, row = place(i)
        with contextlib.suppress(ValueError):  # of a damaged record
            return f"{path}: {msgpack.unpackb(record(shard, row))['name']}"
        return f"{shards[shard][0]}, record {row}"

    return Part(sum(lengths), read, name)


class Draft:
    """An archive being written, which goes on where an earlier process ended.

    Args:
      path: where the archive will be.
      about: what it is to hold: "class_names", and how the files are made. A draft of something
        else is refused.
      sizes: {part: number of examples}.

    Attributes:
      shards: all files, in order.

    Raises:
      ValueError: there is a draft of something else, or the archive already, or another process is
        writing it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], sizes: Mapping[str, int]):
        if path.exists():
            raise ValueError(f"{path} is there already; delete it or write another")
        self._path, self._folder = path, _draft(path)
        self.shards = [shard for part, size in sizes.items() for shard in _shards(part, size)]
        lengths = {p: [s.length for s in self.shards if s.part == p] for p in sizes}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._info = open(self._folder / INFO, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            _lock(self._info, path)
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
        text = self._info.read()
        if not text:
            self._info.write(json.dumps(info))
            self._info.flush()
            return
        was = _parsed(text)
        if changed := [key for key in info if was.get(key) != info[key]]:
            raise ValueError(
                f"{self._folder} was begun with another {', '.join(changed)}; delete it, or "
                "prepare the same as then"
            )

    def has(self, shard: Shard) -> bool:
        """Whether an earlier process finished a file."""
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
        """Gives a function that adds an image file, its label and its name to a file."""
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self._folder / _UNFINISHED
        # Image files are compressed, and each is to be read alone.
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")

        def add(image: bytes, label: int, name: str) -> None:
            writer.write(msgpack.packb({"label": label, "name": name, "image": image}))

        try:
            yield add
        finally:
            writer.close()
        with open(path, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(path, self._folder / shard.file)

    def finish(self) -> None:
        """Makes it the archive."""
        self._info.close()
        os.replace(self._folder, self._path)


def _parsed(text: str) -> dict[str, Any]:
    """The object in a JSON text, {} of any other text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


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


def _lock(file: IO[str], path: Path) -> None:
    """Keeps other processes from writing the same archive, where the system can, until closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path} is being written by another process") from None
