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

from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, old_archive
from jaxcnn.data.sets import FileShard

INFO = "info.json"
SHARD_SIZE = 4096  # examples in a file: a killed preparation has to make at most as many anew
_UNFINISHED = "unfinished"


class Shard(NamedTuple):
    """A file of an archive: it has `length` examples of a part, from number `first` on."""

    file: str
    part: str
    first: int
    length: int


def open_archive(path: Path) -> tuple[tuple[str, ...], dict[str, FileShard]]:
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
        info = _parsed((path / INFO).read_text("utf-8"))
    except (OSError, ValueError):
        info = {}
    names: Any = info.get("class_names")
    lengths: Any = info.get("shards")
    if not _are(names, str) or not isinstance(lengths, dict) or not lengths:
        raise ValueError(f"{path} is not an archive of `jaxcnn prepare`")
    if wrong := [part for part, counts in lengths.items() if not _are(counts, int)]:
        raise ValueError(f"{path / INFO} has no list of numbers of examples for {wrong[0]!r}")
    return tuple(names), {part: _part(path, part, lengths[part], len(names)) for part in lengths}


def _are(values: Any, kind: type) -> bool:
    """Whether it is a list of values of that type."""
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _part(path: Path, part: str, lengths: list[int], classes: int) -> FileShard:
    shards = [(path / file, n) for file, n in zip(_files(part, len(lengths)), lengths)]
    for file, _ in shards:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, a file of the archive {path}")
    place, record = array_record.place_of(shards), array_record.read_shards(shards)

    def read(i: int) -> tuple[bytes, int]:
        image, label = _example(record(*place(i)))
        if not 0 <= label < classes:
            raise BadImage(f"has the label {label}; there are {classes} classes")
        return image, label

    def name(i: int) -> str:
        shard, row = place(i)
        with contextlib.suppress(ValueError):  # of a damaged record
            return f"{path}: {msgpack.unpackb(record(shard, row))['name']}"
        return f"{shards[shard][0]}, record {row}"

    def listing(start: int, stop: int) -> list[str]:
        return [f"{start} to {stop}", *(f"{file.name} {length}" for file, length in shards)]

    return FileShard(sum(lengths), read, name, listing=listing)


def _example(record: bytes) -> tuple[bytes, int]:
    """The image file and the label of a record."""
    try:
        example = msgpack.unpackb(record)
        image, label = example["image"], example["label"]
    except (ValueError, LookupError, TypeError) as error:
        raise BadImage(f"is no example of an archive: {error}") from None
    if not isinstance(image, bytes) or type(label) is not int:
        raise BadImage("is no example of an archive: it lacks an image file and a label")
    return image, label


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
