"""MNIST and Fashion-MNIST, from their four IDX files, optionally gzipped.

An IDX file consists of two zero bytes, the type (8 is u8), the number of axes, the length of each
axis as big-endian u32, and the values (LeCun, Cortes, Burges, "The MNIST database").
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from jaxcnn._cache import data_path
from jaxcnn.data.sets import Arrays, Source, check_labels

_STEMS = {"train": "train", "test": "t10k"}
_CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
_MOST_UNPACKED = 1032  # maximum compression ratio of gzip
# Usual subdirectories of data_dir.
_FOLDERS = {
    "mnist": ("", "mnist", "MNIST/raw"),
    "fashion_mnist": ("", "fashion_mnist", "FashionMNIST/raw"),
}


def open_idx(name: str, data_dir: str | os.PathLike) -> Source:
    """Opens a dataset.

    Args:
      name: "mnist" or "fashion_mnist".
      data_dir: directory of the files, or its parent.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a file is not a valid IDX file.
    """
    root = data_path(data_dir)
    candidates = [root / folder for folder in _FOLDERS[name]]
    folder = next((p for p in candidates if _file(p, "train", "images-idx3").is_file()), None)
    if folder is None:
        file = _file(root, "train", "images-idx3").name
        raise FileNotFoundError(f"{file}.gz is in none of {', '.join(map(str, candidates))}")
    paths = {
        part: (_file(folder, stem, "images-idx3"), _file(folder, stem, "labels-idx1"))
        for part, stem in _STEMS.items()
    }
    for pair in paths.values():
        for path in pair:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing, also as {path.name}.gz")

    def read(part: str, start: int, stop: int) -> Arrays:
        images, labels = (read_idx(p, rank) for p, rank in zip(paths[part], (3, 1)))
        if len(images) != len(labels):
            raise ValueError(
                f"{paths[part][0]} has {len(images)} images, {paths[part][1]} {len(labels)} labels"
            )
        check_labels(labels, len(_CLASS_NAMES[name]), str(paths[part][1]))
        return images[start:stop, ..., None], labels[start:stop].astype(np.int32)

    return Source(
        class_names=_CLASS_NAMES[name],
        sizes={part: _shape(pair[1], _start(pair[1], 8), 1)[0] for part, pair in paths.items()},
        read=read,
    )


def _file(folder: Path, stem: str, kind: str) -> Path:
    """Finds a file, which can be gzipped and can have a dot instead of the dash in its name."""
    names = (f"{stem}-{kind}-ubyte", f"{stem}-{kind.replace('-', '.')}-ubyte")
    paths = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
    return next((p for p in paths if p.is_file()), paths[0])


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads an IDX file.

    Args:
      path: the file.
      rank: number of axes.

    Returns:
      The values, u8.

    Raises:
      ValueError: the file is not an IDX file of u8 with this rank, or its length does not match its
        header.
    """
    header, size, packed = 4 + 4 * rank, path.stat().st_size, path.suffix == ".gz"
    shape = _shape(path, _start(path, header), rank)
    expected = header + math.prod(shape)
    if not packed and size != expected:
        raise ValueError(f"{path} has {size} bytes; {expected} expected")
    if packed and expected > _MOST_UNPACKED * size:
        raise ValueError(
            f"{path} has {size} bytes, and states that it has {expected} bytes unpacked"
        )
    content = _start(path, expected + 1)
    if len(content) != expected:
        longer = " or more" * (len(content) > expected)
        raise ValueError(f"{path} has {len(content)}{longer} bytes unpacked; {expected} expected")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _start(path: Path, size: int) -> bytes:
    """Reads the first `size` bytes of a file, after decompression, or fewer if it is shorter."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        size = path.stat().st_size
        raise ValueError(f"{path} ({size} bytes) is truncated or damaged: {error}") from None


def _shape(path: Path, content: bytes, rank: int) -> tuple[int, ...]:
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < 4 + 4 * rank:
        raise ValueError(
            f"{path} begins with bytes {content[:4].hex(' ')}, not those of an idx file of "
            f"rank {rank}: 00 00 08 0{rank}"
        )
    return tuple(np.frombuffer(content, ">u4", count=rank, offset=4).tolist())
