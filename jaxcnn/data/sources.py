"""Small sets by name, read into memory."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np

from jaxcnn.data import (
    cifar_files,
    digits,
    encoded,
    idx_files,
    synthetic,
    synthetic_boxes,
    tfds,
)
from jaxcnn.data.dataset import Dataset, Normalisation, Source, channel_statistics, check_labels
from jaxcnn.data.splits import parse_split
from jaxcnn.models.registry import near

__all__ = ["SOURCES", "Dataset", "load", "open_source"]

_DRAWN: dict[str, Callable[..., Source]] = {
    "synthetic": synthetic.open_synthetic,
    "synthetic_boxes": synthetic_boxes.open_synthetic_boxes,
}
_FILES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
SOURCES = (
    "digits",
    "synthetic",
    "synthetic_boxes",
    *(f"tfds:{name}" for name in tfds.NAMES),
    *(f"files:{name}" for name in _FILES),
)

# Mean and standard deviation of each channel over the training split, pixels in [0,1]; those of
# other sets are computed.
_NORMALISATION: dict[str, Normalisation] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Reads a split of a set into memory.

    Args:
      name: "digits" (inside scikit-learn), "synthetic" or, of larger images, "synthetic:224",
        "synthetic_boxes" (see `jaxcnn.data.synthetic_boxes`),
        "tfds:cifar10" (what TFDS has built) or "files:cifar10" (the official files); `SOURCES`
        lists them.
      split: "train", "test", "all" (train, then test), or a slice: "train[:45000]", "test[10%:]".
      data_dir: where the data lie. For "tfds:..." by default TFDS's own folder; "files:..." needs
        it: the folder with the files or the one above.

    Raises:
      ValueError: the name, the split, a label or the content of a file is wrong.
      FileNotFoundError: the set or one of its files is not there.
    """
    source = open_source(name, data_dir)
    sizes = {**source.sizes, "all": sum(source.sizes.get(p, 0) for p in ("train", "test"))}
    try:
        part, start, stop = parse_split(split, sizes)
    except ValueError as error:
        raise ValueError(f"{error} ({name!r})") from None
    boxes = None
    if part == "all":
        both = [source.read(p, 0, source.sizes[p]) for p in ("train", "test") if p in sizes]
        images, labels = (np.concatenate(arrays)[start:stop] for arrays in zip(*both))
        if source.boxes:
            each = [source.boxes(p, 0, source.sizes[p]) for p in ("train", "test") if p in sizes]
            boxes = np.concatenate(each)[start:stop]
    else:
        images, labels = source.read(part, start, stop)
        boxes = source.boxes(part, start, stop) if source.boxes else None
    check_labels(labels, len(source.class_names), f"{part!r} of {name!r}")
    known = _NORMALISATION.get(name.partition(":")[2])
    mean, std = known or _train_statistics(name, os.fspath(data_dir) if data_dir else None)
    return Dataset(
        images=np.ascontiguousarray(images),
        labels=labels,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        mean=mean,
        std=std,
        boxes=boxes,
    )


def is_streamed(name: str, data_dir: str | os.PathLike | None = None) -> bool:
    """Whether a set is streamed from image files (see `encoded`), and not read into memory.

    Folders and archives are, and of TFDS's sets those whose images have various sizes. Raises as
    `load` does where a set of TFDS is not there.
    """
    kind, _, rest = name.partition(":")
    if kind in encoded.KINDS and kind != "tfds":
        return True
    if kind != "tfds" or not rest or rest in tfds.NAMES:
        return False
    info, _ = tfds.open_info(rest, data_dir)
    return "image" in info.features and None in info.features["image"].shape


def open_source(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Finds a set by name, without reading its images. Raises as `load` does."""
    kind, _, rest = name.partition(":")
    if name == "digits":
        return digits.open_digits()
    if kind in _DRAWN:
        if not rest:
            return _DRAWN[kind]()
        if not rest.isdigit() or int(rest) < 1:
            raise ValueError(f"{name!r} is unknown; it must be such as '{kind}:224'")
        return _DRAWN[kind](int(rest))
    if kind == "tfds" and rest:
        return tfds.open_tfds(rest, data_dir)
    if name not in SOURCES:
        hint = near(name, SOURCES) or (near(kind, (*encoded.KINDS, "files")) if rest else "")
        raise ValueError(f"unknown data source {name!r}{hint}")
    if data_dir is None:
        raise ValueError(f"{name!r} needs data_dir, the folder that has the files")
    if rest in cifar_files.LAYOUTS:
        return cifar_files.open_cifar(cifar_files.LAYOUTS[rest], data_dir)
    return idx_files.open_idx(rest, data_dir)


@functools.lru_cache(maxsize=8)
def _train_statistics(name: str, data_dir: str | None) -> Normalisation:
    source = open_source(name, data_dir)
    images, _ = source.read("train", 0, source.sizes["train"])
    return channel_statistics(images)
