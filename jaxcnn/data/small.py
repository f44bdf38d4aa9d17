"""Image files that are small and of one size, such as those of CIFAR-10, as a source in memory.

A dataset qualifies if the first, middle and last image of each split are RGB or grayscale images of
the same size, of at most 96 pixels a side, and if its pixels fit into 1 GiB. Other images among RGB
images, such as grayscale ones, are converted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxcnn.data.bad_records import retried
from jaxcnn.data.decode import BROKEN, BadImage, decode, open_image
from jaxcnn.data.sets import Arrays, FileShard, Source

MAX_SIDE = 96  # pixels
MAX_BYTES = 2**30
_CHANNELS = {"L": (), "RGB": (3,)}


def is_small(parts: Mapping[str, FileShard]) -> bool:
    """Determines whether a dataset qualifies, see above.

    Args:
      parts: its splits.
    """
    shapes = set()
    for part in parts.values():
        for i in {0, part.size // 2, part.size - 1} if part.size else ():
            try:
                shapes.add(_shape(part.read(i)[0]))
            except BadImage:
                return False
    if len(shapes) != 1 or not (shape := shapes.pop()):
        return False
    total = sum(part.size for part in parts.values())
    return max(shape[:2]) <= MAX_SIDE and total * int(np.prod(shape)) <= MAX_BYTES


def small_source(class_names: tuple[str, ...], parts: Mapping[str, FileShard]) -> Source:
    """Converts a dataset that qualifies to a source in memory.

    Args:
      class_names: names of the classes, by label.
      parts: the splits. Reading them raises ValueError if an image is of another size.
    """
    first = next(iter(parts.values()))
    shape = _shape(first.read(0)[0])

    def read(name: str, start: int, stop: int) -> Arrays:
        images = np.empty((stop - start, *shape), np.uint8)
        labels = np.empty(stop - start, np.int32)
        for i in range(start, stop):
            try:
                images[i - start], labels[i - start] = _example(parts[name], i, shape)
            except BadImage as error:
                raise ValueError(f"{parts[name].name(i)} {error}") from None
        return images.reshape(len(images), *shape[:2], -1), labels

    return Source(class_names, {name: part.size for name, part in parts.items()}, read)


def _example(part: FileShard, i: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    data, label = retried(lambda: part.read(i))
    with open_image(data) as image:
        size, mode = (image.height, image.width), image.mode
        if size != shape[:2] or (len(shape) == 2 and mode != "L"):
            raise BadImage(
                f"is {size[0]} x {size[1]}, {mode}; the first image is "
                f"{shape[0]} x {shape[1]}, {'L' if len(shape) == 2 else 'RGB'}"
            )
        if _CHANNELS.get(mode) != shape[2:]:
            return decode(data), label  # to RGB
        try:
            return np.asarray(image), label
        except BROKEN as error:
            raise BadImage(f"cannot be decoded: {error}") from None


def _shape(data: bytes) -> tuple[int, ...]:
    """(H, W) of a grayscale and (H, W, 3) of an RGB image; () for others."""
    with open_image(data) as image:
        channels = _CHANNELS.get(image.mode)
        return () if channels is None else (image.height, image.width, *channels)
