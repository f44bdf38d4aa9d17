"""Gratings to learn without any data: a class is a direction and a color of stripes."""

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
    """The source: images u8[N,side,side,3], 10 classes, 2,048 to train on and 512 to test on.

    Of images of another side than 32 there are 64 and 32, to try out what takes no small ones.
    Always the same images: stripes of wave length 8 whose direction and color are the class's,
    at a random phase, under noise.
    """
    if side > LARGEST:
        raise ValueError(f"images of synthetic are {side} pixels wide; {LARGEST} is the most")
    sizes = SIZES if side == SIZE else LARGE_SIZES
    names = tuple(f"stripes{k}" for k in range(CLASSES))
    read = functools.partial(_read, sizes, side)
    return Source(class_names=names, sizes=sizes, read=read)


def _read(sizes: Mapping[str, int], side: int, part: str, start: int, stop: int) -> Arrays:
    size = sizes[part]
    random = np.random.RandomState(list(sizes).index(part))
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
    return images[start:stop], labels[start:stop].astype(np.int32)
