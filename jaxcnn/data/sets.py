"""Datasets: in memory, as a source that is read in parts, and as image files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxcnn.data.preprocessing import IMAGENET, Normalization

Arrays = tuple[np.ndarray, np.ndarray]
MAX_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labeled images in memory.

    Attributes:
      images: u8[N,H,W,C].
      labels: i32[N], each in [0, num_classes).
      num_classes, class_names: number of classes, and their names by label.
      mean, std: mean and standard deviation of each channel over the whole training split, for
        pixels in [0,1].
      boxes: boxes f32[N,M,4] of the objects of the labeled class, see `jaxcnn.data.boxes`; None if
        unknown.
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
        """A hash of the labels, in order, and of the shape of the images."""
        return _digest([str(self.images.shape), ",".join(map(str, self.labels.tolist()))])

    @property
    def has_boxes(self) -> bool:
        """Whether the boxes of the objects are known."""
        return self.boxes is not None

    def without_boxes(self) -> Dataset:
        """Returns the same dataset without boxes."""
        return dataclasses.replace(self, boxes=None) if self.has_boxes else self


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset of which ranges of examples can be read.

    Attributes:
      class_names: names of the classes, by label.
      sizes: {split: number of examples}, for "train", "test" and any further splits.
      read: function of (split, start, stop) that returns images u8[N,H,W,C] and labels i32[N].
      boxes: function of (split, start, stop) that returns boxes f32[N,M,4]; None if unknown.
    """

    class_names: tuple[str, ...]
    sizes: Mapping[str, int]
    read: Callable[[str, int, int], Arrays]
    boxes: Callable[[str, int, int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class FileShard:
    """The image files of one split.

    Attributes:
      size: number of examples.
      read: function of the index that returns (content of the image file, label).
      name: function of the index that returns a name for messages, such as the path of the file.
      boxes: function of the index that returns the boxes f32[M,4] of the objects of the labeled
        class, see `jaxcnn.data.boxes`; None if unknown.
      listing: function of (start, stop) that returns texts which identify the examples and do not
        depend on the location of the dataset.
      labels: function of (start, stop) that returns the labels without reading the files; None if
        they are not known before.
    """

    size: int
    read: Callable[[int], tuple[bytes, int]]
    name: Callable[[int], str]
    boxes: Callable[[int], np.ndarray] | None = None
    listing: Callable[[int, int], Iterable[str]] = lambda start, stop: (f"{start} to {stop}",)
    labels: Callable[[int, int], Sequence[int]] | None = None


@dataclasses.dataclass(frozen=True)
class ImageFileDataset:
    """A slice of a split of image files.

    Attributes:
      part: the split.
      start, stop: range of the examples.
      class_names: names of the classes, by label.
      mean, std: mean and standard deviation of each channel, for pixels in [0,1].
    """

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
        """Number of classes."""
        return len(self.class_names)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the list of examples, computed without reading the files."""
        return _digest(self.part.listing(self.start, self.stop))

    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the content of the image file and the label of an example."""
        return self.part.read(self.start + index)

    def name(self, index: int) -> str:
        """Returns a name of an example for messages, such as the path of the file."""
        return self.part.name(self.start + index)

    @property
    def has_boxes(self) -> bool:
        """Whether the boxes of the objects are known."""
        return self.part.boxes is not None

    def without_boxes(self) -> ImageFileDataset:
        """Returns the same dataset without boxes."""
        if not self.has_boxes:
            return self
        return dataclasses.replace(self, part=dataclasses.replace(self.part, boxes=None))

    def boxes(self, index: int) -> np.ndarray:
        """Returns the boxes f32[M,4] of an example. The dataset must have boxes."""
        assert self.part.boxes is not None
        return self.part.boxes(self.start + index)


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Checks that all labels are in [0, num_classes).

    Args:
      labels: i32[N].
      num_classes: number of classes.
      where: origin of the labels, for the message.

    Raises:
      ValueError: a label is out of range; the message names the first one.
    """
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise ValueError(
            f"label {labels[outside[0]]} of example {outside[0]} in {where} is out of range; "
            f"the classes are 0 to {num_classes - 1}"
        )


def names_of_labels(labels: Iterable[int | str]) -> tuple[str, ...]:
    """Returns names for classes that have none.

    Args:
      labels: all labels that occur.

    Returns:
      Texts in sorted order; for numbers, those from 0 to the largest.

    Raises:
      ValueError: a number is negative or too large.

      >>> names_of_labels([0, 2]), names_of_labels(["dog", "cat", "dog"])
      (('0', '1', '2'), ('cat', 'dog'))
    """
    found = set(labels)
    numbers = [label for label in found if isinstance(label, int)]
    if len(numbers) < len(found) or not found:
        return tuple(sorted(map(str, found)))
    if wrong := [label for label in numbers if not 0 <= label < MAX_CLASSES]:
        raise ValueError(f"a label is {wrong[0]}; it must be 0 to {MAX_CLASSES - 1:,}")
    return tuple(map(str, range(max(numbers) + 1)))


def channel_statistics(images: np.ndarray) -> Normalization:
    """Computes the mean and standard deviation of each channel, for pixels in [0,1].

    The standard deviation of a constant channel is given as 1, so that it can be divided by.

    Args:
      images: u8[N,H,W,C].
    """
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for i in range(0, len(images), 1000):  # np.bincount copies its argument to eight bytes a pixel
        for channel, pixels in enumerate(np.moveaxis(images[i : i + 1000], -1, 0)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    frequencies = counts / counts.sum(1, keepdims=True)
    levels = np.arange(256) / 255
    mean = frequencies @ levels
    std = np.sqrt(np.maximum(frequencies @ levels**2 - mean**2, 0))
    std[std == 0] = 1
    return tuple(mean.tolist()), tuple(std.tolist())
