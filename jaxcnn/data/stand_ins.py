"""Stand-ins for well-known datasets: their sizes, shapes and statistics, without their images.

With them, a program can be compiled for a dataset that is not on this machine.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np

from jaxcnn.data.preprocessing import STATISTICS
from jaxcnn.data.sets import Dataset, FileShard, ImageFileDataset
from jaxcnn.data.splits import parse_split


class _Facts(NamedTuple):
    """Number of classes, number of examples by split, and the shape of images in memory."""

    classes: int
    sizes: dict[str, int]
    shape: tuple[int, int, int] | None = None


_CIFAR_SIZES = {"train": 50_000, "test": 10_000}
_MNIST_SIZES = {"train": 60_000, "test": 10_000}
_FACTS = {
    "imagenet2012": _Facts(1000, {"train": 1_281_167, "validation": 50_000, "test": 50_000}),
    "cifar10": _Facts(10, _CIFAR_SIZES, (32, 32, 3)),
    "cifar100": _Facts(100, _CIFAR_SIZES, (32, 32, 3)),
    "mnist": _Facts(10, _MNIST_SIZES, (28, 28, 1)),
    "fashion_mnist": _Facts(10, _MNIST_SIZES, (28, 28, 1)),
}


def is_known(source: str) -> bool:
    """Returns whether there is a stand-in for a source, such as "tfds:cifar10"."""
    kind, _, name = source.partition(":")
    return kind in ("tfds", "files") and name in _FACTS


def stand_in(source: str, split: str) -> Dataset | ImageFileDataset:
    """Makes a dataset with the sizes of a known one; its images cannot be read, or are black.

    Args:
      source: see `is_known`.
      split: see `jaxcnn.data.catalog.load`; "test" of ImageNet is its validation split.

    Raises:
      ValueError: the split is invalid.
    """
    name = source.partition(":")[2]
    facts = _FACTS[name]
    sizes = facts.sizes | {"all": sum(facts.sizes[part] for part in ("train", "test"))}
    try:
        part, start, stop = parse_split(split, sizes)
    except ValueError as error:
        raise ValueError(f"{error} ({source!r})") from None
    class_names = tuple(map(str, range(facts.classes)))
    if facts.shape is None:
        shard = FileShard(sizes[part], read=_read, name=str)
        return ImageFileDataset(shard, start, stop, class_names)
    mean, std = STATISTICS[name]
    return Dataset(
        images=np.broadcast_to(np.uint8(0), (stop - start, *facts.shape)),
        labels=np.broadcast_to(np.int32(0), stop - start),
        num_classes=facts.classes,
        class_names=class_names,
        mean=mean,
        std=std,
    )


def _read(index: int) -> NoReturn:
    raise ValueError(f"example {index} of a stand-in for a dataset cannot be read")
