"""Test protocols: which views of an image a network sees; its answers to all of them are averaged.

Sources: Krizhevsky et al. 2012, section 4.1 (ten crops); Szegedy et al. 2014, section 7 (144
crops); Simonyan, Zisserman 2014, section 3.2 (dense at one scale and at three, 150 crops); He et
al. 2015, section 3.4 (ten crops; dense at five scales). Scales are the papers' for images of 224
pixels, and in proportion for others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxcnn._checks import one_of

Views = Callable[[np.ndarray, int], np.ndarray]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def center(image: np.ndarray, size: int) -> np.ndarray:
    """The central square, rounding half to even: u8[H,W,C] to u8[1,size,size,C]."""
    down, across = _room(image, size)
    return _crops(image, [(round(down / 2), round(across / 2))], size)


def corners(image: np.ndarray, size: int) -> np.ndarray:
    """Four corners and the centre: u8[H,W,C] to u8[5,size,size,C]."""
    down, across = _room(image, size)
    places = [(0, 0), (0, across), (down, 0), (down, across), (round(down / 2), round(across / 2))]
    return _crops(image, places, size)


def grid(image: np.ndarray, size: int) -> np.ndarray:
    """A regular grid of five by five: u8[H,W,C] to u8[25,size,size,C]."""
    down, across = _room(image, size)
    places = [(round(i * down / 4), round(j * across / 4)) for i in range(5) for j in range(5)]
    return _crops(image, places, size)


def squares(image: np.ndarray, size: int) -> np.ndarray:
    """GoogLeNet's views of one scale, unmirrored: u8[H,W,C] to u8[18,size,size,C].

    The left, central and right square (top, central, bottom of an upright image); of each its
    corners and centre, and the whole of it resized.
    """
    height, width = image.shape[:2]
    side, spare = min(height, width), abs(height - width)
    views = []
    for at in (0, round(spare / 2), spare):
        top, left = (at, 0) if height > width else (0, at)
        square = image[top : top + side, left : left + side]
        views += [corners(square, size), resize(square, (size, size))[None]]
    return np.concatenate(views)


def whole(image: np.ndarray, size: int) -> np.ndarray:
    """The image as it is, for networks that take any size: u8[H,W,C] to u8[1,H,W,C]."""
    del size
    return image[None]


def mirrored(views: np.ndarray) -> np.ndarray:
    """The views and their mirror images: u8[V,h,w,C] to u8[2V,h,w,C]."""
    return np.concatenate([views, views[:, :, ::-1]])


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to test.

    Fields:
      views: of an image of one scale.
      mirror: add the mirror image of each view.
      scales: shorter sides that the image is resized to, for networks of 224 pixels; () for the
        one side that the weights' crop share gives.
      dense: the views are as large as the image; the network must take any size.
      source: whose it is.
      sides: shorter sides in pixels, whatever the network's size, in place of `scales`.
    """

    views: Views
    mirror: bool = False
    scales: tuple[int, ...] = ()
    dense: bool = False
    source: str = ""
    sides: tuple[int, ...] = ()


PROTOCOLS = {
    "center": Protocol(center, source="one central crop"),
    "flip": Protocol(center, mirror=True, source="central crop and its mirror image"),
    "10crop": Protocol(corners, mirror=True, source="Krizhevsky 2012, He 2015"),
    "144crop": Protocol(squares, True, (256, 288, 320, 352), source="Szegedy 2014"),
    "150crop": Protocol(grid, True, (256, 384, 512), source="Simonyan 2014, multi-crop"),
    "dense": Protocol(whole, True, (256,), True, source="Simonyan 2014, one scale"),
    "dense3": Protocol(whole, True, (256, 384, 512), True, source="Simonyan 2014, three scales"),
    "dense5": Protocol(whole, True, (224, 256, 384, 480, 640), True, source="He 2015"),
}


def find(name: str) -> Protocol:
    """A protocol by name. Raises ValueError with near matches if there is none."""
    return PROTOCOLS[one_of("protocol", name, PROTOCOLS)]


@dataclasses.dataclass(frozen=True)
class View:
    """A protocol at a size, as written after "@": see `parse_view`."""

    name: str
    protocol: Protocol
    size: int | None = None

    def __str__(self) -> str:
        sides = ",".join(str(side) for side in self.protocol.sides)
        parts = [self.name, str(self.size or ""), sides]
        return ":".join(parts).rstrip(":")


def parse_view(text: str) -> View:
    """Reads "PROTOCOL", "PROTOCOL:SIZE" or "PROTOCOL:SIZE:SIDE,SIDE,...".

    SIZE is that of the network's input, by default the weights' own; SIDEs are the shorter sides
    that the image is resized to, in pixels, in place of the protocol's. SIZE may be empty.

      >>> str(parse_view("10crop:320:352,384"))
      '10crop:320:352,384'

    Raises:
      ValueError: there is no such protocol, or a number is not one of pixels.
    """
    name, *rest = text.split(":")
    protocol, size = find(name), None
    if len(rest) > 2:
        raise ValueError(f"{text!r} is no view; write PROTOCOL:SIZE:SIDE,SIDE")
    if rest and rest[0]:
        size = _pixels(rest[0], text)
    if len(rest) == 2:
        sides = tuple(_pixels(side, text) for side in rest[1].split(","))
        protocol = dataclasses.replace(protocol, sides=sides)
        if size is not None and not protocol.dense and min(sides) < size:
            raise ValueError(f"{text!r} crops {size} pixels from a side of {min(sides)}")
    return View(name, protocol, size)


def _pixels(text: str, whole: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} in {whole!r} is no number of pixels")
    return int(text)


def all_views(
    image: np.ndarray, protocol: Protocol, size: int, crop: float, interpolation: str = "bilinear"
) -> list[np.ndarray]:
    """What the network sees of an image: for each scale u8[V,h,w,C].

    Args:
      image: u8[H,W,C].
      protocol: one of `PROTOCOLS`.
      size: of the network's input.
      crop: share of the shorter side that the central crop shows.
      interpolation: "bilinear" or "bicubic".
    """
    scaled = [round(s * size / 224) for s in protocol.scales] or [math.floor(size / crop)]
    sides = protocol.sides or scaled
    found = []
    for side in sides:
        views = protocol.views(shorter_side(image, side, interpolation), size)
        found.append(mirrored(views) if protocol.mirror else views)
    return found


def shorter_side(image: np.ndarray, side: int, interpolation: str = "bilinear") -> np.ndarray:
    """The image resized, antialiased, to this shorter side; the longer is rounded down."""
    height, width = image.shape[:2]
    short = min(height, width)
    return resize(image, (side * height // short, side * width // short), interpolation)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear") -> np.ndarray:
    """An image u8[H,W,C] of another height and width, antialiased as by Pillow and torchvision."""
    if image.shape[:2] == size:
        return image
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else np.ascontiguousarray(image))
    resized = np.asarray(picture.resize(size[::-1], _RESAMPLING[interpolation]))
    return resized.reshape(*size, image.shape[2])


def _room(image: np.ndarray, size: int) -> tuple[int, int]:
    down, across = image.shape[0] - size, image.shape[1] - size
    if down < 0 or across < 0:
        raise ValueError(f"the image is {image.shape[0]}x{image.shape[1]}; a crop needs {size}")
    return down, across


def _crops(image: np.ndarray, places: list[tuple[int, int]], size: int) -> np.ndarray:
    return np.stack([image[top : top + size, left : left + size] for top, left in places])
