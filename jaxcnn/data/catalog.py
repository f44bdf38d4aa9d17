"""Data sets by name: small ones that are read into memory, and image files that are streamed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxcnn._checks import near
from jaxcnn._files import local_path
from jaxcnn.data.preprocessing import STATISTICS, Normalisation
from jaxcnn.data.readers import (
    cifar,
    digits,
    mnist,
    synthetic,
    synthetic_boxes,
    tfds,
)
from jaxcnn.data.sets import Dataset, EncodedSet, Part, Source, channel_statistics, check_labels
from jaxcnn.data.splits import parse_split

__all__ = ["SOURCES", "Dataset", "load", "open_source"]

# Sets of image files.
KINDS = ("folder", "archive", "tfds")
_OTHER_NAMES = {"test": ("val", "validation")}
# Splits that are known to be a different set if they have another size.
KNOWN_SIZES = {"tfds:imagenet2012": {"train": 1_281_167, "validation": 50_000}}

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


def load(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Reads a split of a set into memory.

    Args:
      name: "digits" (inside scikit-learn), "synthetic" or, of larger images, "synthetic:224",
        "synthetic_boxes" (see `jaxcnn.data.readers.synthetic_boxes`),
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
    known = STATISTICS.get(name.partition(":")[2])
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
    """Whether a set is streamed from image files (see `open_encoded`), and not read into memory.

    Folders and archives are, and of TFDS's sets those whose images have various sizes. Raises as
    `load` does where a set of TFDS is not there.
    """
    kind, _, rest = name.partition(":")
    if kind in KINDS and kind != "tfds":
        return True
    if kind != "tfds" or not rest or rest in tfds.NAMES:
        return False
    info, _ = tfds.open_info(rest, os.path.expanduser(data_dir) if data_dir else data_dir)
    return "image" in info.features and None in info.features["image"].shape


def open_source(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Finds a set by name, without reading its images. Raises as `load` does."""
    kind, _, rest = name.partition(":")
    data_dir = os.path.expanduser(data_dir) if data_dir else data_dir
    if name == "digits":
        return digits.open_digits()
    if kind in _DRAWN:
        if not rest:
            return _DRAWN[kind]()
        if not rest.isdecimal() or len(rest) > 9 or int(rest) < 1:
            raise ValueError(f"{name!r} is unknown; it must be such as '{kind}:224'")
        return _DRAWN[kind](int(rest))
    if kind == "tfds" and rest:
        return tfds.open_tfds(rest, data_dir)
    if name not in SOURCES:
        hint = near(name, SOURCES) or (near(kind, (*KINDS, "files")) if rest else "")
        raise ValueError(f"unknown data source {name!r}{hint}")
    if data_dir is None:
        raise ValueError(f"{name!r} needs data_dir, the folder that has the files")
    if rest in cifar.LAYOUTS:
        return cifar.open_cifar(cifar.LAYOUTS[rest], data_dir)
    return mnist.open_idx(rest, data_dir)


@functools.lru_cache(maxsize=8)
def _train_statistics(name: str, data_dir: str | None) -> Normalisation:
    source = open_source(name, data_dir)
    images, _ = source.read("train", 0, source.sizes["train"])
    return channel_statistics(images)


def open_encoded(source: str, split: str, data_dir: str | os.PathLike | None = None) -> EncodedSet:
    """Opens a split of a set of image files, reading no image.

    Args:
      source: "folder:PATH" (see `folders`), "archive:PATH" (see `archive`), "tfds:NAME".
      split: "train", "test" (or the part's own name), or a slice such as "train[:90%]".
      data_dir: PATH is taken from here; for "tfds:..." the folder of the built sets.

    Raises:
      ValueError: unknown source or split, or the wrong number of examples or classes.
      FileNotFoundError: the set is not there.
    """
    class_names, parts = open_parts(source, data_dir)
    parts = _with_usual_names(parts)
    try:
        name, start, stop = parse_split(split, {p: part.size for p, part in parts.items()})
    except ValueError as error:
        raise ValueError(f"{error} ({source!r})") from None
    return EncodedSet(parts[name], start, stop, class_names)


def open_parts(
    source: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[str, ...], dict[str, Part]]:
    """(class names, {part: examples}) of a set, by the parts' own names. Raises as above."""
    kind, _, rest = source.partition(":")
    if kind not in KINDS or not rest:
        hint = near(kind, KINDS)
        raise ValueError(
            f"{source!r} is no set of image files{hint}; write folder:PATH, archive:PATH, tfds:NAME"
        )
    if kind == "tfds":
        from jaxcnn.data.readers import tfds_images

        class_names, parts = tfds_images.open_tfds_images(
            rest, os.path.expanduser(data_dir) if data_dir else data_dir
        )
    else:
        path = Path(local_path(data_dir or ""), local_path(rest))
        if kind == "folder":
            from jaxcnn.data.readers import folders

            class_names, parts = folders.open_folder(path)
        else:
            from jaxcnn.data.readers import archive

            class_names, parts = archive.open_archive(path)
    for part, size in KNOWN_SIZES.get(source, {}).items():
        if part in parts and parts[part].size != size:
            found = parts[part].size
            raise ValueError(f"{source}: {part!r} has {found:,} examples; it must have {size:,}")
    return class_names, parts


def _with_usual_names(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Where there is no "test", a validation part stands for it."""
    named = dict(parts)
    for usual, others in _OTHER_NAMES.items():
        for other in others:
            if other in named:
                named.setdefault(usual, named[other])
    return named
