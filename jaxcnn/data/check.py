"""Checks a data source of any kind: opens it and decodes some of its examples."""

from __future__ import annotations

import dataclasses
import os
import time

import numpy as np

from jaxcnn._cache import CopyError
from jaxcnn.data import catalog
from jaxcnn.data.bad_records import retried
from jaxcnn.data.decode import BadImage, decode
from jaxcnn.data.kinds import KINDS
from jaxcnn.data.sets import FileShard, Source

COUNT = 100


@dataclasses.dataclass(frozen=True)
class SplitCheck:
    """The result of checking a split.

    Attributes:
      name: of the split.
      size: number of examples.
      tried: number of examples that were read and decoded: evenly spread over the split for image
        files, the first ones for a dataset in memory.
      shapes: (height, width) of those that could be decoded.
      unreadable: {name of an example: why it could not be read or decoded}.
      seconds: time for reading and decoding, in one thread.
      has_boxes: whether the examples have bounding boxes.
    """

    name: str
    size: int
    tried: int
    shapes: tuple[tuple[int, int], ...]
    unreadable: dict[str, str]
    seconds: float
    has_boxes: bool


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of checking a data source.

    Attributes:
      class_names: names of the classes, by label.
      in_memory: whether training keeps the dataset in memory; otherwise images are streamed.
      splits: the result for each split.
    """

    class_names: tuple[str, ...]
    in_memory: bool
    splits: tuple[SplitCheck, ...]


def check_source(
    source: str, data_dir: str | os.PathLike | None = None, count: int = COUNT
) -> Check:
    """Opens a data source, and reads and decodes some examples of each split.

    Args:
      source: see `jaxcnn.data.catalog`.
      data_dir: directory of the data.
      count: number of examples to try in each split.

    Raises:
      ValueError, FileNotFoundError: the source cannot be opened.
    """
    in_memory = not catalog.is_streamed(source, data_dir)
    kind = KINDS.get(source.partition(":")[0])
    if in_memory and not (kind and kind.has_columns):
        opened = catalog.open_source(source, data_dir)
        found = [_check_range(opened, name, count) for name in opened.sizes]
        return Check(opened.class_names, True, tuple(found))
    class_names, parts = catalog.open_parts(source, data_dir)
    found = [_check_part(name, part, len(class_names), count) for name, part in parts.items()]
    return Check(class_names, in_memory, tuple(found))


def _check_range(source: Source, name: str, count: int) -> SplitCheck:
    size = source.sizes[name]
    start = time.perf_counter()
    images, labels = source.read(name, 0, min(count, size))
    seconds = time.perf_counter() - start
    classes = len(source.class_names)
    unreadable = {
        f"example {i}": f"has the label {label}; there are {classes} classes"
        for i, label in enumerate(labels.tolist())
        if not 0 <= label < classes
    }
    shapes = tuple((image.shape[0], image.shape[1]) for image in images)
    return SplitCheck(
        name, size, len(images), shapes, unreadable, seconds, source.boxes is not None
    )


def _check_part(name: str, part: FileShard, classes: int, count: int) -> SplitCheck:
    indices = np.unique(np.linspace(0, part.size - 1, min(count, part.size)).astype(int)).tolist()
    shapes, unreadable = [], {}
    start = time.perf_counter()
    for i in indices:
        try:
            data, label = retried(lambda i=i: part.read(i))  # type: ignore[misc]
            height, width, _ = decode(data).shape
            shapes.append((height, width))
            if not 0 <= label < classes:
                raise BadImage(f"has the label {label}; there are {classes} classes")
        except CopyError:
            raise
        except (BadImage, OSError) as error:
            unreadable[part.name(i)] = str(error)
    seconds = time.perf_counter() - start
    return SplitCheck(
        name, part.size, len(indices), tuple(shapes), unreadable, seconds, part.boxes is not None
    )
