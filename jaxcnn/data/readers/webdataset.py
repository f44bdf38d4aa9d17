"""Datasets in the format of WebDataset: tar files in which an example is several files.

The files of an example have the same name but for the part from the first dot on, which is the key:
`n01440764_36.jpg` and `n01440764_36.cls`. The image has the key jpg, jpeg, png or webp. The label
is in the file cls or txt, a number or the name of a class, or in the field `label` of the file
json. An index of the tar files, which is built once, gives random access to the examples.

The tar files are a directory, a pattern of the shell or a name with braces, as in
"/data/imagenet-{train-{0000..1023},validation-{00..63}}.tar". The splits are those of `info.json`
or `_info.json` beside the files, if there is one; otherwise a file belongs to the split in its
name, and to "train" if its name has none.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import CachedPath, data_path
from jaxcnn._checks import note_once, one_line, require
from jaxcnn._files import read_at, read_json
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, hub_layout, record_index
from jaxcnn.data.readers.folders import list_tar
from jaxcnn.data.sets import FileShard, names_of_labels

IMAGES = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "txt")
_INFO = ("info.json", "_info.json")
_LARGEST_LABEL = 2**20  # bytes of a file that has the label
_MANY = 32  # number of files from which on a note announces the indexing
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MOST_BRACES = 50
_MOST_SHARDS = 1_000_000


def open_shards(
    pattern: str | os.PathLike, columns: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens a dataset in the format of WebDataset.

    Args:
      pattern: directory, pattern or name with braces, see above.
      columns: {"image": key of the image, "label": key of the label or field of the json file};
        by default, those above.

    Returns:
      (class names, {split: examples}), with the examples in the order of the files.

    Raises:
      FileNotFoundError: there are no such files, or some are missing.
      ValueError: a file is truncated or not a tar file, has no examples, or not as many as
        `info.json` says.
    """
    place = data_path(pattern)
    paths = find_shards(place)
    by_split, sizes = _splits(paths, is_whole=place.is_dir())
    indexed = {split: _index(files, columns) for split, files in by_split.items()}
    for split, files in by_split.items():
        for path, (starts, *_) in zip(files, indexed[split]):
            if not len(starts):
                raise ValueError(f"{path} has no examples: files such as 1.jpg and 1.cls")
            if len(starts) != sizes.get(path.name, len(starts)):
                expected = sizes[path.name]
                raise ValueError(f"{path} holds {len(starts)} examples; {expected} expected")
    texts = {split: _labels(places) for split, places in indexed.items()}
    first = "train" if "train" in texts else next(iter(texts))
    names = names_of_labels(_value(label) for label in np.unique(texts[first]).tolist() if label)
    if not names:
        wanted = columns.get("label") or ", ".join((*LABELS, "json"))
        raise ValueError(f"{by_split[first][0]} has no labels ({wanted})")
    return names, {s: _part(by_split[s], indexed[s], texts[s], names) for s in by_split}


def find_shards(pattern: Path) -> list[Path]:
    """Lists the tar files of a dataset.

    Args:
      pattern: see `open_shards`.

    Raises:
      FileNotFoundError: there are none, or a file that is named does not exist.
    """
    paths: list[Path] = []
    if pattern.is_dir():
        pattern /= "*.tar"
        paths = sorted(pattern.parent.glob("*.tar"))
    else:
        for name in expand_braces(str(pattern)):
            path = CachedPath.from_url(name) if isinstance(pattern, CachedPath) else Path(name)
            is_pattern = glob.has_magic(name) and not path.is_file()
            paths += _matches(path) if is_pattern else [path]
    if not paths:
        raise FileNotFoundError(f"there are no files {pattern}")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {len(paths):,} files {pattern} are missing, the first is "
            f"{missing[0]}"
        )
    return list(dict.fromkeys(paths))


def _matches(pattern: Path) -> list[Path]:
    """The sorted files that match a pattern of the shell."""
    if not isinstance(pattern, CachedPath):
        return sorted(map(Path, glob.glob(str(pattern))))
    fixed = next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))
    return sorted(fixed.glob(str(pattern.relative_to(fixed))))


def expand_braces(text: str) -> list[str]:
    """Expands braces as the shell does.

    Args:
      text: with "{first..last}" and "{one,other}", which can be nested.

    Raises:
      ValueError: these are too many braces, or names.

      >>> expand_braces("{a,b}-{08..10}.tar")[:4]
      ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar']
    """
    require(text.count("{") <= _MOST_BRACES, "pattern", text, f"of up to {_MOST_BRACES} braces")
    start, depth, commas = text.find("{"), 0, []
    if start < 0:
        return [text]
    for end in range(start, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if text[end] == "," and depth == 1:
            commas.append(end)
        if not depth:
            break
    else:  # never closed
        return [text]
    inner, rest = text[start + 1 : end], expand_braces(text[end + 1 :])
    if found := _RANGE.fullmatch(inner):
        width = len(found[1]) if found[1].startswith("0") else 0
        numbers = range(int(found[1]), int(found[2]) + 1)
        _check_count(text, len(numbers))
        middle = [f"{i:0{width}}" for i in numbers]
    elif commas:
        ends = [start, *commas, end]
        middle = [m for a, b in itertools.pairwise(ends) for m in expand_braces(text[a + 1 : b])]
    else:
        middle = [f"{{{m}}}" for m in expand_braces(inner)]
    _check_count(text, len(middle) * len(rest))
    return [f"{text[:start]}{m}{r}" for m in middle for r in rest]


def _check_count(pattern: str, count: int) -> None:
    if count > _MOST_SHARDS:
        raise ValueError(f"{pattern} names {count:,} files; at most {_MOST_SHARDS:,} can be read")


def _splits(paths: Sequence[Path], is_whole: bool) -> tuple[dict[str, list[Path]], dict[str, int]]:
    """({split: files}, {name of a file: number of its examples, if known})."""
    described = _read_info(paths[0].parent)
    split_of = {name: split for split, shards in described.items() for name in shards}
    sizes = {name: size for shards in described.values() for name, size in shards.items()}
    missing = sorted(split_of.keys() - {path.name for path in paths}) if is_whole else []
    if missing:
        raise FileNotFoundError(
            f"{paths[0].parent / missing[0]} is missing, which {_INFO[0]} lists"
        )
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        split = split_of.get(path.name) or hub_layout.split_in(path.stem)
        if not split and path.parent.name in hub_layout.STANDARD:
            split = hub_layout.STANDARD[path.parent.name]
        by_split.setdefault(split or "train", []).append(path)
    return by_split, sizes


def _read_info(folder: Path) -> dict[str, dict[str, int]]:
    """{split: {name of a file: number of its examples}} of `info.json`; {} if there is none."""
    for name in _INFO:
        if (folder / name).is_file():
            info = read_json(folder / name)
            break
    else:
        return {}
    try:
        return {
            split: dict(zip(about["filenames"], map(int, about["shard_lengths"]), strict=True))
            for split, about in info["splits"].items()
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / name} has no filenames and shard_lengths of each split: {one_line(error)}"
        ) from error


def _index(paths: Sequence[Path], columns: Mapping[str, str]) -> list[record_index.Places]:
    """Returns (starts, lengths, labels) of the examples of each file."""
    text = "\n".join([*(str(p) for p in paths), *(f"{k} {columns[k]}" for k in sorted(columns))])
    name = f"{paths[0].stem}-{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"

    def build(path: Path) -> record_index.Places:
        if len(paths) >= _MANY:
            note_once(f"indexing {len(paths):,} tar files in {path.parent}, which is done once")
        return _places(path, columns)

    return record_index.open_index(paths, name, build, ("starts", "lengths", "labels"))


def _places(path: Path, columns: Mapping[str, str]) -> record_index.Places:
    """Indexes a tar file: (starts, lengths, labels) of its examples.

    The start of a missing image is 0, and a missing label is empty.
    """
    images = (columns["image"].lower(),) if "image" in columns else IMAGES
    starts, lengths, labels = [], [], []
    with open(path, "rb") as file:
        for key, files in _examples(path).items():
            image = next((files[ext] for ext in images if ext in files), None)
            if image is None and LABELS[0] not in files:
                continue  # not an example
            start, length = image or (0, 0)
            starts.append(start)
            lengths.append(length)
            try:
                labels.append(_read_label(file, files, columns.get("label")))
            except ValueError as error:
                raise ValueError(f"{path}: the label of {key!r} {one_line(error)}") from error
    return np.array(starts, np.int64), np.array(lengths, np.int64), np.array(labels, np.bytes_)


def _examples(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """{name without keys: {key: (start, length) of the file}} of a tar file."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, where in list_tar(path):
        folder, _, base = name.rpartition("/")
        stem, _, key = base.partition(".")
        if where is None or not stem or not key:  # a directory, hidden, or without a key
            continue
        files = found.setdefault(f"{folder}/{stem}", {})
        if key.lower() in files:
            raise ValueError(f"{path} has two files {name!r}")
        files[key.lower()] = where
    return found


def _read_label(file: Any, files: Mapping[str, tuple[int, int]], wanted: str | None) -> bytes:
    """The label of an example as text; empty if there is none."""
    keys = [wanted.lower()] if wanted else LABELS
    key = next((key for key in keys if key in files), "json")
    if key not in files:
        return b""
    start, length = files[key]
    if length > _LARGEST_LABEL:
        raise ValueError(f"has {length:,} bytes")
    file.seek(start)
    content = file.read(length)
    if key != "json":
        return content.strip()
    fields = json.loads(content)
    value = fields.get(wanted or "label") if isinstance(fields, dict) else None
    if not (isinstance(value, str) or type(value) is int):
        return b""
    return str(value).encode()


def _labels(places: Sequence[record_index.Places]) -> np.ndarray:
    return np.concatenate([labels for _, _, labels in places])


def _value(label: bytes) -> int | str:
    """A label as a number if it is one, else as text."""
    text = label.decode("utf-8", "replace")
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _part(
    paths: Sequence[Path],
    places: Sequence[record_index.Places],
    labels: np.ndarray,
    names: tuple[str, ...],
) -> FileShard:
    place = array_record.place_of([(path, len(p[0])) for path, p in zip(paths, places)])
    by_number = names == tuple(map(str, range(len(names))))
    numbers = {name: i for i, name in enumerate(names)}

    def read(i: int) -> tuple[bytes, int]:
        shard, row = place(i)
        starts, lengths, _ = places[shard]
        if not labels[i]:
            raise BadImage("has no label")
        value = _value(labels[i])
        number = value if by_number and isinstance(value, int) else numbers.get(str(value), -1)
        if not 0 <= number < len(names):
            raise BadImage(f"has the label {value!r}; there are {len(names)} classes")
        if not starts[row]:
            raise BadImage("has no image")
        return read_at(paths[shard], int(starts[row]), int(lengths[row])), number

    def name(i: int) -> str:
        shard, row = place(i)
        before = int(places[shard][0][row]) - tarfile.BLOCKSIZE
        if before < 0:  # without an image
            return f"{paths[shard]}, example {row}"
        header = read_at(paths[shard], before, tarfile.BLOCKSIZE)
        return f"{paths[shard]}: {tarfile.TarInfo.frombuf(header, 'utf-8', 'surrogateescape').name}"

    def listing(start: int, stop: int) -> Iterator[str]:
        yield f"{start} to {stop}, labels {zlib.crc32(b' '.join(labels[start:stop])):08x}"
        yield from (f"{path.name} {len(p[0])}" for path, p in zip(paths, places))

    return FileShard(len(labels), read, name, listing=listing)
