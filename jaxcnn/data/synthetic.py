"""Gratings to learn without any data: a class is a direction and a colour of stripes."""

from __future__ import annotations

import numpy as np

from jaxcnn.data.dataset import Arrays, Source

CLASSES = 10
SIZE = 32
SIZES = {"train": 2048, "test": 512}


def open_synthetic() -> Source:
    """The source: images u8[N,32,32,3], 10 classes, 2,048 to train on and 512 to test on.

    Always the same images: stripes of wave length 8 whose direction and colour are the class's,
    at a random phase, under noise.
    """
    return Source(class_names=tuple(f"stripes{k}" for k in range(CLASSES)), sizes=SIZES, read=_read)


def _read(part: str, start: int, stop: int) -> Arrays:
    size = SIZES[part]
    random = np.random.RandomState(list(SIZES).index(part))
    labels = random.permutation(np.arange(size) % CLASSES)
    phase = random.uniform(0, 2 * np.pi, size)
    noise = random.randint(-48, 49, (size, SIZE, SIZE, 3))
    angle = np.pi * labels / CLASSES
    y, x = np.mgrid[:SIZE, :SIZE] * (2 * np.pi / 8)
    across = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    stripes = np.cos(across + phase[:, None, None])[..., None]
    colour = 40 + 40 * np.cos(2 * angle[:, None] + np.arange(3) * 2 * np.pi / 3)
    images = 128 + stripes * colour[:, None, None] + noise
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    return images[start:stop], labels[start:stop].astype(np.int32)
