"""Synthetic images of stripes. A class has a direction and a color."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from jaxcnn.data.sets import Arrays, Source

CLASSES = 10
SIZE = 32
SIZES = {"train": 2048, "test": 512}
LARGEST = 1024
LARGE_SIZES = {"train": 64, "test": 32}


def open_synthetic(side: int = SIZE) -> Source:
    """Opens the dataset: images u8[N,side,side,3] of 10 classes.

    The images are the same every time. They show stripes with a wavelength of 8 pixels, the
    direction and color of the class, a random phase, and noise.

    Args:
      side: height and width of the images. With the default of 32 there are 2,048 images for
        training and 512 for testing; with other values there are 64 and 32, to try out networks
        that need larger images.

    Raises:
      ValueError: `side` is too large.
    """
    if side > LARGEST:
        raise ValueError(f"images of synthetic are {side} pixels wide; {LARGEST} is the most")
    sizes = SIZES if side == SIZE else LARGE_SIZES
    names = tuple(f"stripes{k}" for k in range(CLASSES))
    read = functools.partial(_read, sizes, side)
    return Source(class_names=names, sizes=sizes, read=read)


def _read(sizes: Mapping[str, int], side: int, part: str, start: int, stop: int) -> Arrays:
    images, labels = _draw(sizes[part], side, list(sizes).index(part))
    return images[start:stop].copy(), labels[start:stop].copy()


@functools.lru_cache(maxsize=4)
def _draw(size: int, side: int, seed: int) -> Arrays:
    random = np.random.RandomState(seed)
    labels = random.permutation(np.arange(size) % CLASSES)
    phase = random.uniform(0, 2 * np.pi, size)
    noise = random.randint(-48, 49, (size, side, side, 3))
    angle = np.pi * labels / CLASSES
    y, x = np.mgrid[:side, :side] * (2 * np.pi / 8)
    across = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = np.cos(across + phase[:, None, None])[..., None]
    color = 40 + 40 * np.cos(2 * angle[:, None] + np.arange(3) * 2 * np.pi / 3)
    images = 128 + stripes * color[:, None, None] + noise
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    return images, labels.astype(np.int32)
