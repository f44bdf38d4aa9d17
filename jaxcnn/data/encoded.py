"""Sets of image files that are too large for memory: read by number, decoded when needed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxcnn.data.splits import parse_split
from jaxcnn.models.registry import near

# Of ImageNet's training images, pixels in [0,1]; what published networks take.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("folder", "archive", "tfds")
_OTHER_NAMES = {"test": ("val", "validation")}
# Splits that are known to be a different set if they have another size.
KNOWN_SIZES = {"tfds:imagenet2012": {"train": 1_281_167, "validation": 50_000}}


@dataclasses.dataclass(frozen=True)
class Part:
    """The examples of one part: `read(i)` gives the file and its label, `name(i)` says which.

    `boxes(i)` gives where its objects are, f32[M,4], see `jaxcnn.data.boxes`; None if unknown.
    """

    size: int
    read: Callable[[int], tuple[bytes, int]]
    name: Callable[[int], str]
    boxes: Callable[[int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class EncodedSet:
    """A slice of a part, with the classes."""

    part: Part
    start: int
    stop: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def read(self, index: int) -> tuple[bytes, int]:
        """The file and the label of an example."""
        return self.part.read(self.start + index)

    def name(self, index: int) -> str:
        return self.part.name(self.start + index)

    @property
    def has_boxes(self) -> bool:
        return self.part.boxes is not None

    def without_boxes(self) -> EncodedSet:
        if not self.has_boxes:
            return self
        return dataclasses.replace(self, part=dataclasses.replace(self.part, boxes=None))

    def boxes(self, index: int) -> np.ndarray:
        """Where the objects of an example are, f32[M,4]; only of a set that has boxes."""
        assert self.part.boxes is not None
        return self.part.boxes(self.start + index)


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
        from jaxcnn.data import tfds_images

        class_names, parts = tfds_images.open_tfds_images(rest, data_dir)
    else:
        path = Path(data_dir or "", Path(rest).expanduser())
        if kind == "folder":
            from jaxcnn.data import folders

            class_names, parts = folders.open_folder(path)
        else:
            from jaxcnn.data import archive

            class_names, parts = archive.open_archive(path)
    for part, size in KNOWN_SIZES.get(source, {}).items():
        if part in parts and parts[part].size != size:
            found = parts[part].size
            raise ValueError(f"{source}: {part!r} has {found:,} examples; it must have {size:,}")
    return class_names, parts


def read_at(path: str | os.PathLike, start: int, length: int) -> bytes:
    """So many bytes of a file, fewer at its end; any number of threads may call it."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


def _with_usual_names(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Where there is no "test", a validation part stands for it."""
    named = dict(parts)
    for usual, others in _OTHER_NAMES.items():
        for other in others:
            if other in named:
                named.setdefault(usual, named[other])
    return named
