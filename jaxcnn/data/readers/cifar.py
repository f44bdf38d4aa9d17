"""CIFAR-10 and CIFAR-100, from the unpacked official archives in binary or Python format.

Krizhevsky 2009, "Learning multiple layers of features from tiny images". In the binary format an
example consists of its labels, one byte each, and the image, 3x32x32 bytes. The Python format
contains the same examples as pickles. It is supported because torchvision and Keras download it.
The pickles are read without executing code (`unpickling`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxcnn._cache import data_path, fetch
from jaxcnn.data.readers.unpickling import read_pickle
from jaxcnn.data.sets import Arrays, Source, check_labels

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Archive:
    """One of the two formats of a dataset.

    Attributes:
      folder: name of the unpacked directory.
      files: {split: names of the files}.
      names: name of the file with the class names.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    names: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of a dataset.

    Attributes:
      num_classes: number of classes of the finest label, which is the last one before the image.
      label_bytes: number of labels per example.
      examples: {split: number of examples per file}.
      binary, python: the archives in the two formats.
      keys: keys of the labels and of the class names in the pickles.
    """

    num_classes: int
    label_bytes: int
    examples: Mapping[str, int]
    binary: Archive
    python: Archive
    keys: tuple[bytes, bytes]


_BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_WHOLE = {"train": ("train",), "test": ("test",)}


def _bin(files: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {part: tuple(f"{name}.bin" for name in names) for part, names in files.items()}


LAYOUTS = {
    "cifar10": Layout(
        num_classes=10,
        label_bytes=1,
        examples={"train": 10000, "test": 10000},
        binary=Archive("cifar-10-batches-bin", _bin(_BATCHES), "batches.meta.txt"),
        python=Archive("cifar-10-batches-py", _BATCHES, "batches.meta"),
        keys=(b"labels", b"label_names"),
    ),
    "cifar100": Layout(
        num_classes=100,
        label_bytes=2,  # coarse, fine
        examples={"train": 50000, "test": 10000},
        binary=Archive("cifar-100-binary", _bin(_WHOLE), "fine_label_names.txt"),
        python=Archive("cifar-100-python", _WHOLE, "meta"),
        keys=(b"fine_labels", b"fine_label_names"),
    ),
}


def open_cifar(layout: Layout, data_dir: str | os.PathLike) -> Source:
    """Opens a dataset.

    Args:
      layout: one of `LAYOUTS`.
      data_dir: the unpacked directory or its parent.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file has the wrong size.
    """
    archive, folder = _find(layout, data_path(data_dir))
    for part, names in archive.files.items():
        for name in names:
            path = folder / name
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing, a file of {archive.folder}")
            if archive is layout.binary:
                _check_size(path, layout.examples[part] * (layout.label_bytes + _PIXELS))
    read_file = _read_binary if archive is layout.binary else _read_python

    def read(part: str, start: int, stop: int) -> Arrays:
        size, chunks = layout.examples[part], []
        fetch(folder / name for name in archive.files[part])
        for i, name in enumerate(archive.files[part]):
            first, last = max(start - i * size, 0), min(stop - i * size, size)
            if first < last:
                images, labels = read_file(layout, folder / name, size)
                check_labels(labels, layout.num_classes, str(folder / name))
                chunks.append((images[first:last], labels[first:last]))
        images, labels = map(np.concatenate, zip(*chunks))
        return images.transpose(0, 2, 3, 1), labels.astype(np.int32)

    return Source(
        class_names=_class_names(layout, archive, folder / archive.names),
        sizes={part: len(names) * layout.examples[part] for part, names in archive.files.items()},
        read=read,
    )


def _find(layout: Layout, data_dir: Path) -> tuple[Archive, Path]:
    """Finds the archive, in either format, and its directory."""
    archives = (layout.binary, layout.python)
    for folder in (*(data_dir / a.folder for a in archives), data_dir):
        for archive in archives:
            if any((folder / name).is_file() for names in archive.files.values() for name in names):
                return archive, folder
    raise FileNotFoundError(
        f"{data_dir} has neither {archives[0].folder} nor {archives[1].folder}, nor their files; "
        "unpack the official archive there"
    )


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"{path} has {size} bytes; {expected} expected")


def _read_binary(layout: Layout, path: Path, size: int) -> Arrays:
    """Reads images u8[size,3,32,32] and labels u8[size] from a file."""
    rows = np.fromfile(os.fspath(path), np.uint8).reshape(size, layout.label_bytes + _PIXELS)
    return rows[:, layout.label_bytes :].reshape(size, *_SHAPE), rows[:, layout.label_bytes - 1]


def _read_python(layout: Layout, path: Path, size: int) -> Arrays:
    batch = read_pickle(path)
    key = layout.keys[0]
    try:
        images, labels = np.asarray(batch[b"data"]), np.asarray(batch[key], np.int64)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} has no entries 'data' and {key.decode()!r}") from None
    if images.shape != (size, _PIXELS) or images.dtype != np.uint8 or labels.shape != (size,):
        raise ValueError(
            f"{path} has images {images.dtype}{list(images.shape)} and {labels.size} labels; "
            f"uint8[{size}, {_PIXELS}] and {size} expected"
        )
    return images.reshape(size, *_SHAPE), labels


def _class_names(layout: Layout, archive: Archive, path: Path) -> tuple[str, ...]:
    """Reads the class names; if their file is missing, the names are numbers."""
    if not path.is_file():
        return tuple(map(str, range(layout.num_classes)))
    if archive is layout.binary:
        names = path.read_text("utf-8").split()
    else:
        content = read_pickle(path)
        names = content.get(layout.keys[1], []) if isinstance(content, dict) else []
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
    if len(names) != layout.num_classes:
        raise ValueError(f"{path} has {len(names)} names; {layout.num_classes} expected")
    return tuple(names)
