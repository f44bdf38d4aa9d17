"""Datasets prepared with TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS provides the metadata (splits, shards, features) and parses the examples. This module reads the
records from array_record, TFRecord and Parquet files and decodes the images.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import CachedPath, data_path, fetch, stamp
from jaxcnn._checks import near, one_line, optional_package
from jaxcnn._files import scratch
from jaxcnn.data.readers import tfrecord
from jaxcnn.data.sets import Arrays, Source

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped")
# In order of preference. TFDS can also write riegeli files.
FORMATS = ("array_record", "tfrecord", "parquet")
PARQUET_COLUMN = "data"  # of the serialized examples
FILES = ("mnist", "fashion_mnist", "cifar10", "cifar100")  # "files:NAME" reads their official files

_OWN_CLASS = re.compile(r"tensorflow_datasets(\.[A-Za-z_]\w*)+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")

# Function of (path, rows, expected number of records) that returns the serialized examples.
_Read = Callable[[Path, Sequence[int], int], list[bytes]]


def open_tfds(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Opens a prepared dataset.

    Args:
      name: name in TFDS, such as "cifar10" or "emnist/letters". The dataset must have a `label` and
        an `image` u8 of a fixed shape.
      data_dir: directory of the prepared datasets, or directory of a version of this dataset; by
        default $TFDS_DATA_DIR or ~/tensorflow_datasets, as in TFDS.

    Raises:
      FileNotFoundError: the dataset does not exist.
      ValueError: the formats or features of the dataset are not supported.
    """
    info, form, folder = open_info(name, data_dir)
    _check_features(name, info.features)
    label = info.features["label"]
    shape = tuple(info.features["image"].shape)

    def read(part: str, start: int, stop: int) -> Arrays:
        images, labels = np.empty((0, *shape), np.uint8), np.empty(0, np.int32)
        records = _records(info.splits[part], form, folder, start, stop)
        for i, (where, record) in enumerate(records):
            image, label = _example(info.features, record, shape, where)
            if not i:  # allocate once the first example has matched the metadata
                images = np.empty((stop - start, *shape), np.uint8)
                labels = np.empty(stop - start, np.int32)
            images[i], labels[i] = image, label
        return images, labels

    return Source(
        class_names=tuple(map(str, label.names or range(label.num_classes))),
        sizes={part: split.num_examples for part, split in info.splits.items()},
        read=read,
    )


def open_info(name: str, data_dir: str | os.PathLike | None) -> tuple[Any, str, Path]:
    """Opens the metadata of a dataset.

    Args:
      name: see `open_tfds`.
      data_dir: see `open_tfds`.

    Returns:
      (TFDS's `DatasetInfo`, format to read, directory of the files).

    Raises:
      FileNotFoundError, ValueError: see `open_tfds`.
    """
    tfds = optional_package("tensorflow_datasets", "tfds")
    folder = find_folder(name, data_dir)
    for file in ("dataset_info.json", "features.json"):
        _check_classes(folder / file)
    try:
        with _local_metadata(folder) as metadata:
            info = tfds.builder_from_directory(metadata).info
        stored = [f.value for f in (info.file_format, *info.alternative_file_formats) if f]
        formats = [f for f in FORMATS if f in stored]
        for split in info.splits.values():
            _check_shards(split, formats, folder)
    except Exception as error:  # TFDS does not document its exceptions
        raise ValueError(
            f"dataset_info.json or features.json in {folder} cannot be used: {one_line(error)}"
        ) from error
    if not formats:
        raise ValueError(
            f"{folder} holds {', '.join(stored)} files; {', '.join(FORMATS)} can be read"
        )
    return info, formats[0], folder


@contextlib.contextmanager
def _local_metadata(folder: Path) -> Iterator[Path]:
    """Gives a local directory with the metadata of a dataset: its own, or a temporary one."""
    if not isinstance(folder, CachedPath):
        yield folder
        return
    with scratch() as local:
        for path in folder.iterdir():
            if path.suffix in (".json", ".txt") and path.is_file():
                shutil.copyfile(path, local / path.name)
        yield local


def _check_shards(split: Any, formats: Sequence[str], folder: Path) -> None:
    lengths = split.shard_lengths
    if sum(lengths) != split.num_examples or min(lengths, default=0) < 0:
        raise ValueError(f"the shards of {split.name!r} have {lengths} examples")
    for form in formats:
        shards(split, form, folder)


def _check_classes(path: Path) -> None:
    """Raises ValueError if a file is not JSON, or names a class outside of TFDS.

    TFDS would import the module of such a class.
    """

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:
            key = key.replace("_", "").lower()
            if key == "json" and isinstance(value, str):  # a nested feature
                json.loads(value, object_pairs_hook=check)
            elif key not in ("pythonclassname", "type") or not isinstance(value, str):
                continue
            elif "." in value and not _OWN_CLASS.fullmatch(value):
                raise ValueError(f"{path} names {value!r}, which is not one of TFDS's own features")
        return dict(pairs)

    if path.is_file():
        try:
            json.loads(path.read_text("utf-8"), object_pairs_hook=check)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {one_line(error)}") from error


def data_root(data_dir: str | os.PathLike | None) -> Path:
    """Returns the directory of the prepared datasets, as TFDS does."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return data_path(root)


def find_folder(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Finds the directory of the newest version of a dataset.

    Args:
      name: see `open_tfds`.
      data_dir: see `open_tfds`.

    Raises:
      FileNotFoundError: the dataset does not exist.
      ValueError: the dataset exists in several configurations, and `name` selects none.
    """
    root = data_root(data_dir)
    if (root / "dataset_info.json").is_file():
        return root
    if versions := _versions(root / name):
        return max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
    forms = sorted(p.name for p in (root / name).glob("*") if _versions(p))
    if len(forms) == 1:
        return find_folder(f"{name}/{forms[0]}", root)
    if forms:
        raise ValueError(f"tfds:{name} is there as {', '.join(f'tfds:{name}/{f}' for f in forms)}")
    files = f", or that of the official files with files:{name}" if name in FILES else ""
    raise FileNotFoundError(
        f"tfds:{name} is not in {root / name}{near(name, NAMES) if name not in NAMES else ''}; "
        f"either build it: pip install 'jaxcnn[build]' && jaxcnn prepare tfds:{name}"
        f"{f' --data-dir {root}' if data_dir else ''}; or name the folder that has it in "
        f"data_dir{files}"
    )


def _versions(folder: Path) -> list[Path]:
    folders = (p.parent for p in folder.glob("*/dataset_info.json"))
    return [p for p in folders if _VERSION.fullmatch(p.name)]


def _check_features(name: str, features: Any) -> None:
    for wanted in ("image", "label"):
        if wanted not in features:
            has = ", ".join(map(repr, features))
            raise ValueError(f"tfds:{name} has no feature {wanted!r}; it has {has}")
    image = features["image"]
    if None in image.shape or np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(
            f"tfds:{name} has images {np.dtype(image.np_dtype)}{list(image.shape)}; only u8 images "
            "of one fixed shape can be read into memory"
        )


def _records(
    split: Any, form: str, folder: Path, start: int, stop: int
) -> Iterator[tuple[str, bytes]]:
    """Yields ("<file>, record <number>", serialized example) of examples start to stop."""
    first, wanted = 0, []
    for path, length in shards(split, form, folder):
        rows = range(max(start - first, 0), min(stop - first, length))
        if rows:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: {length} examples of {split.name!r}")
            wanted.append((path, rows, length))
        first += length
    fetch(path for path, _, _ in wanted)
    for path, rows, length in wanted:
        for row, record in zip(rows, _READERS[form](path, rows, length)):
            yield f"{path}, record {row}", record


def shards(split: Any, form: str, folder: Path) -> list[tuple[Path, int]]:
    """Returns (path, number of examples) of the files of a split in the directory of a dataset."""
    # TFDS only opens the main format of a dataset. The other formats have the same shards.
    template = split.filename_template.replace(filetype_suffix=form)
    paths = [folder / Path(path).name for path in template.sharded_filepaths(split.num_shards)]
    return list(zip(paths, split.shard_lengths))


def _example(
    features: Any, record: bytes, shape: tuple[int, ...], where: str
) -> tuple[np.ndarray, int]:
    """Parses a serialized example to (image u8[H,W,C], label)."""
    tfds = optional_package("tensorflow_datasets", "tfds")
    try:
        skip = {"image": tfds.decode.SkipDecoding()}
        example = features.deserialize_example_np(record, decoders=skip)
        encoded, label = example["image"], int(example["label"])
    except Exception as error:  # TFDS does not document its exceptions
        raise ValueError(f"{where} is not an example of the dataset: {one_line(error)}") from error
    return _decode(encoded, shape, where), label


def _decode(encoded: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Decodes a PNG or JPEG file to u8[H,W,C]."""
    from jaxcnn.data.decode import BROKEN, open_image

    try:
        with open_image(encoded) as image:
            pixels = np.asarray(image)
    except BROKEN as error:
        raise ValueError(f"{where}: the image cannot be decoded: {error}") from None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(
            f"{where}: the image is {pixels.dtype}{list(pixels.shape)}; uint8{list(shape)} expected"
        )
    return pixels


def _read_array_record(path: Path, rows: Sequence[int], expected: int) -> list[bytes]:
    from jaxcnn.data.readers import array_record

    reader = array_record.open_checked(path, expected)
    try:
        return reader.read(list(rows))
    except RuntimeError as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is damaged: {error}") from None
    finally:
        reader.close()


def _read_tfrecord(path: Path, rows: Sequence[int], expected: int) -> list[bytes]:
    records = _index(path, *stamp(path))
    _check_count(path, len(records), expected)
    return records.read(rows)


def _read_parquet(path: Path, rows: Sequence[int], expected: int) -> list[bytes]:
    from jaxcnn.data.readers import parquet

    file = parquet.open_file(path)
    _check_count(path, file.rows, expected)
    read = parquet.value_reader([file], PARQUET_COLUMN)
    return [read(0, row) for row in rows]


@functools.lru_cache(maxsize=64)
def _index(path: Path, size: int, changed: int) -> tfrecord.Records:
    """The index of a file. It is rebuilt if the size or modification time changes."""
    del size, changed
    return tfrecord.index_records(path)


def _check_count(path: Path, actual: int, expected: int) -> None:
    if actual != expected:
        raise ValueError(f"{path} holds {actual} examples; {expected} expected")


_READERS: dict[str, _Read] = {
    "array_record": _read_array_record,
    "tfrecord": _read_tfrecord,
    "parquet": _read_parquet,
}
