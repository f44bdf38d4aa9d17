"""Sets of images: in memory, as a source that can be read in part, and as image files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxcnn.data.preprocessing import IMAGENET, Normalization

Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images in memory.

    Attributes:
      images: u8[N,H,W,C].
      labels: i32[N], each in [0, num_classes).
      num_classes, class_names: the classes, by label.
      mean, std: of each channel over the whole training split, pixels in [0,1].
      boxes: f32[N,M,4], where the label's objects are, see `jaxcnn.data.boxes`; None if unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    boxes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def digest(self) -> str:
        """Another one where the labels, their order or the shape of the images is another."""
        return _digest([str(self.images.shape), ",".join(map(str, self.labels.tolist()))])

    @property
    def has_boxes(self) -> bool:
        return self.boxes is not None

    def without_boxes(self) -> Dataset:
        return dataclasses.replace(self, boxes=None) if self.has_boxes else self


@dataclasses.dataclass(frozen=True)
class Source:
    """A set that can be read in part.

    Attributes:
      class_names: the classes, by label.
      sizes: {part: number of examples}; "train" and "test", and whatever else there is.
      read: (part, start, stop) to images u8[N,H,W,C] and labels i32[N].
      boxes: (part, start, stop) to boxes f32[N,M,4]; None if unknown.
    """

    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    read: Callable[[str, int, int], Arrays]
    boxes: Callable[[str, int, int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class FileShard:
    """The examples of one part: `read(i)` gives the file and its label, `name(i)` says which.

    `boxes(i)` gives where its objects are, f32[M,4], see `jaxcnn.data.boxes`; None if unknown.
    `listing(start, stop)` gives texts by which these examples are known wherever the set lies.
    """

    size: int
    read: Callable[[int], tuple[bytes, int]]
    name: Callable[[int], str]
    boxes: Callable[[int], np.ndarray] | None = None
    listing: Callable[[int, int], Iterable[str]] = lambda start, stop: (f"{start} to {stop}",)


@dataclasses.dataclass(frozen=True)
class ImageFileDataset:
    """A slice of a part, with the classes."""

    part: FileShard
    start: int
    stop: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def digest(self) -> str:
        """Another one where the list of examples is another, as far as it is known unread."""
        return _digest(self.part.listing(self.start, self.stop))

    def read(self, index: int) -> tuple[bytes, int]:
        """The file and the label of an example."""
        return self.part.read(self.start + index)

    def name(self, index: int) -> str:
        return self.part.name(self.start + index)

    @property
    def has_boxes(self) -> bool:
        return self.part.boxes is not None

    def without_boxes(self) -> ImageFileDataset:
        if not self.has_boxes:
            return self
        return dataclasses.replace(self, part=dataclasses.replace(self.part, boxes=None))

    def boxes(self, index: int) -> np.ndarray:
        """Where the objects of an example are, f32[M,4]; only of a set that has boxes."""
        assert self.part.boxes is not None
        return self.part.boxes(self.start + index)


def _digest(texts: Iterable[str]) -> str:
    known = hashlib.sha256()
    for text in texts:
        known.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return known.hexdigest()


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Raises ValueError naming the first label that is not in [0, num_classes)."""
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise ValueError(
            f"label {labels[outside[0]]} of example {outside[0]} in {where} is out of range; "
            f"the classes are 0 to {num_classes - 1}"
        )


def channel_statistics(images: np.ndarray) -> Normalization:
    """Mean and standard deviation of each channel of images u8[N,H,W,C], pixels in [0,1]."""
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in np.moveaxis(images, -1, 0)])
    share = counts / counts.sum(1, keepdims=True)
    level = np.arange(256) / 255
    mean = share @ level
    std = np.sqrt(share @ level**2 - mean**2)
    return tuple(mean.tolist()), tuple(std.tolist())
