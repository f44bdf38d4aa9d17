"""Synthetic images for localization: each has one bright shape on noise, with a known box."""

from __future__ import annotations

import functools

import numpy as np

from jaxcnn.data.sets import Arrays, Source

SIZE = 32
SIZES = {"train": 4096, "test": 512}
NAMES = ("disc", "ring", "square", "frame", "plus", "cross", "triangle", "funnel")


def open_synthetic_boxes(side: int = SIZE) -> Source:
    """Opens the dataset: images u8[N,side,side,3] of 8 classes.

    There are 4,096 images for training and 512 for testing, and they are the same every time. A
    class has a shape and a bright color, whose largest channel is 185 to 255, on noise of 0 to 99.
    The height and width of a shape are 3/8 to 6/8 of the side, and differ by at most a factor of
    two. The boxes f32[N,1,4] are tight: their first and last rows and columns contain pixels of the
    shape.

    Args:
      side: height and width of the images.

    Raises:
      ValueError: `side` is not in 16 to 512.
    """
    if not 16 <= side <= 512:
        raise ValueError(f"images of synthetic_boxes are {side} pixels wide; they have 16 to 512")
    return Source(
        class_names=NAMES,
        sizes=SIZES,
        read=functools.partial(_read, side),
        boxes=functools.partial(_boxes, side),
    )


def _read(side: int, part: str, start: int, stop: int) -> Arrays:
    labels, colors, seeds, edges = _drawings(side, part)
    images = np.empty((stop - start, side, side, 3), np.uint8)
    for row, i in enumerate(range(start, stop)):
        image = np.random.RandomState(seeds[i]).randint(0, 100, (side, side, 3))
        top, left, bottom, right = edges[i]
        drawn = shape(NAMES[labels[i]], bottom - top, right - left)
        image[top:bottom, left:right][drawn] = colors[i]
        images[row] = image
    return images, labels[start:stop]


def _boxes(side: int, part: str, start: int, stop: int) -> np.ndarray:
    *_, edges = _drawings(side, part)
    return edges[start:stop, None].astype(np.float32) / side


def _drawings(side: int, part: str) -> tuple[np.ndarray, ...]:
    """Labels, colors, seeds of the noise, and edges (top, left, bottom, right) of a split."""
    size = SIZES[part]
    random = np.random.RandomState(100 + list(SIZES).index(part))
    labels = random.permutation(np.arange(size) % len(NAMES)).astype(np.int32)
    low, high = side * 3 // 8, side * 3 // 4
    tall = random.randint(low, high + 1, size)
    wide = random.randint(np.maximum(low, -(-tall // 2)), np.minimum(high, 2 * tall) + 1)
    top, left = random.randint(0, side - tall + 1), random.randint(0, side - wide + 1)
    hue = 2 * np.pi * (labels[:, None] / len(NAMES) + np.arange(3) / 3)
    colors = np.rint(160 + 60 * np.cos(hue)).astype(int) + random.randint(-5, 36, (size, 1))
    seeds = random.randint(0, 2**31, size)
    return labels, colors, seeds, np.stack([top, left, top + tall, left + wide], -1)


def shape(name: str, height: int, width: int) -> np.ndarray:
    """Draws a shape as a mask bool[height,width], which it fills from border to border."""
    y = (np.arange(height)[:, None] + 0.5) * 2 / height - 1
    x = (np.arange(width)[None] + 0.5) * 2 / width - 1
    far = np.maximum(abs(y), abs(x))
    near_corner = abs(abs(y) - abs(x))
    down, least = (y + 1) / 2, 1.01 / width  # a tip has one or two pixels
    return {
        "disc": y**2 + x**2 <= 1,
        "ring": (y**2 + x**2 <= 1) & (y**2 + x**2 > 0.3),
        "square": far <= 1,
        "frame": (far <= 1) & (far > 0.55),
        "plus": np.minimum(abs(y), abs(x)) < 0.3,
        "cross": near_corner < 0.3,
        "triangle": abs(x) <= np.maximum(down, least),
        "funnel": abs(x) <= np.maximum(1 - down, least),
    }[name]
