"""Test protocols: the views of an image over which a network's predictions are averaged.

Sources: Krizhevsky et al. 2012, section 4.1 (ten crops); Szegedy et al. 2014, section 7 (144
crops); Simonyan, Zisserman 2014, section 3.2 (dense at one and at three scales, 150 crops); He et
al. 2015, section 3.4 (ten crops; dense at five scales). Scales are the papers' for inputs of 224
pixels, and in proportion for other inputs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from jaxcnn._checks import one_of
from jaxcnn.data.decode import check_resized

Views = Callable[[np.ndarray, int], np.ndarray]
LARGEST = 10_000  # pixels, of an input or a shorter side
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def center(image: np.ndarray, size: int) -> np.ndarray:
    """Crops the central square, [...,H,W,C] to [...,1,size,size,C]; corners round half to even."""
    down, across = _room(image, size)
    return _crops(image, [(round(down / 2), round(across / 2))], size)


def corners(image: np.ndarray, size: int) -> np.ndarray:
    """Crops the four corners and the center, u8[...,H,W,C] to u8[...,5,size,size,C]."""
    down, across = _room(image, size)
    places = [(0, 0), (0, across), (down, 0), (down, across), (round(down / 2), round(across / 2))]
    return _crops(image, places, size)


def grid(image: np.ndarray, size: int) -> np.ndarray:
    """Crops a regular grid of five by five squares, u8[...,H,W,C] to u8[...,25,size,size,C]."""
    down, across = _room(image, size)
    places = [(round(i * down / 4), round(j * across / 4)) for i in range(5) for j in range(5)]
    return _crops(image, places, size)


def squares(image: np.ndarray, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Crops GoogLeNet's views of one scale, without mirror images.

    The views are the corners and the center of the left, central and right square (top, central and
    bottom square of a portrait image), and each square resized.

    Args:
      image: u8[...,H,W,C].
      size: of the network's input.
      interpolation: "bilinear" or "bicubic", of the resized squares.

    Returns:
      u8[...,18,size,size,C].
    """
    height, width = image.shape[-3:-1]
    side, spare = min(height, width), abs(height - width)
    views = []
    for at in (0, round(spare / 2), spare):
        top, left = (at, 0) if height > width else (0, at)
        square = image[..., top : top + side, left : left + side, :]
        views += [corners(square, size), whole(resize(square, (size, size), interpolation), size)]
    return np.concatenate(views, -4)


def whole(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the whole image as a view, u8[...,H,W,C] to u8[...,1,H,W,C]; `size` is ignored."""
    del size
    return image[..., None, :, :, :]


def mirrored(views: np.ndarray) -> np.ndarray:
    """Appends the mirror images of the views, u8[...,V,h,w,C] to u8[...,2V,h,w,C]."""
    return np.concatenate([views, views[..., ::-1, :]], -4)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A test protocol.

    Attributes:
      views: function of (image, input size) that extracts the views of one scale.
      mirror: add the mirror image of each view.
      scales: shorter sides in pixels to resize the image to, for inputs of 224 pixels; () for the
        single side that follows from the preprocessing's crop.
      dense: the views are as large as the image, and the network must accept any size.
      source: paper that used the protocol.
      sides: shorter sides in pixels, independent of the input size, in place of `scales`.
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
    """Looks up a protocol by name.

    Args:
      name: a key of `PROTOCOLS`.

    Raises:
      ValueError: there is no such protocol; the message suggests similar names.
    """
    return PROTOCOLS[one_of("protocol", name, PROTOCOLS)]


@dataclasses.dataclass(frozen=True)
class View:
    """A protocol at an input size, written "PROTOCOL:SIZE:SIDES"; see `parse_view`.

    Attributes:
      name: of the protocol.
      protocol: with its sides, if they were given.
      size: of the network's input in pixels; None for the weights' own.
    """

    name: str
    protocol: Protocol
    size: int | None = None

    def __str__(self) -> str:
        sides = ",".join(str(side) for side in self.protocol.sides)
        parts = [self.name, str(self.size or ""), sides]
        return ":".join(parts).rstrip(":")


def parse_view(text: str) -> View:
    """Parses a protocol with an optional input size and optional scales.

    Args:
      text: "PROTOCOL", "PROTOCOL:SIZE" or "PROTOCOL:SIZE:SIDE,SIDE,...". SIZE is that of the
        network's input, by default the weights' own, and may be empty. The SIDEs are the shorter
        sides to resize the image to, in place of the protocol's. All are in pixels.

    Raises:
      ValueError: there is no such protocol, or a size is not a positive number.

      >>> str(parse_view("10crop:320:352,384"))
      '10crop:320:352,384'
    """
    name, *rest = text.split(":")
    protocol, size = find(name), None
    if len(rest) > 2:
        raise ValueError(f"{text!r} is not a valid view; write PROTOCOL:SIZE:SIDE,SIDE")
    if rest and rest[0]:
        size = _pixels(rest[0], text)
    if len(rest) == 2:
        sides = tuple(_pixels(side, text) for side in rest[1].split(","))
        protocol = dataclasses.replace(protocol, sides=sides)
        if size is not None and not protocol.dense and min(sides) < size:
            raise ValueError(f"{text!r} cannot crop {size} pixels from a side of {min(sides)}")
    return View(name, protocol, size)


def _pixels(text: str, whole: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= LARGEST:
        raise ValueError(
            f"{text!r} in {whole!r} is not a number of pixels; it must be 1 to {LARGEST:,}"
        )
    return number


def view_count(protocol: Protocol) -> int:
    """Returns the number of views of an image, at all scales."""
    one = protocol.views(np.zeros((1, 1, 1), np.uint8), 1)
    return len(one) * (1 + protocol.mirror) * max(1, len(protocol.sides or protocol.scales))


def all_views(
    image: np.ndarray, protocol: Protocol, size: int, crop: float, interpolation: str = "bilinear"
) -> list[np.ndarray]:
    """Extracts the views of an image, or of images of one size, at all scales of a protocol.

    Args:
      image: u8[...,H,W,C].
      protocol: one of `PROTOCOLS`.
      size: of the network's input in pixels.
      crop: fraction of the shorter side that the central crop covers.
      interpolation: "bilinear" or "bicubic".

    Returns:
      For each scale u8[...,V,h,w,C].
    """
    scaled = [round(s * size / 224) for s in protocol.scales] or [math.floor(size / crop)]
    sides = protocol.sides or scaled
    views_of, scales = protocol.views, []
    if views_of is squares:
        views_of = functools.partial(squares, interpolation=interpolation)
    for side in sides:
        views = views_of(shorter_side(image, side, interpolation), size)
        scales.append(mirrored(views) if protocol.mirror else views)
    return scales


def shorter_side(image: np.ndarray, side: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resizes the shorter side of an image, and the longer side in proportion, rounded down.

    Args:
      image: u8[...,H,W,C].
      side: shorter side of the result in pixels.
      interpolation: "bilinear" or "bicubic".

    Returns:
      u8[...,h,w,C].

    Raises:
      BadImage: the image is too narrow.
    """
    height, width = image.shape[-3:-1]
    short = min(height, width)
    new = side * height // short, side * width // short
    check_resized(*new)
    return resize(image, new, interpolation)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str = "bilinear") -> np.ndarray:
    """Resizes an image with antialiasing, as Pillow and torchvision do.

    Args:
      image: u8[...,H,W,C].
      size: (height, width) of the result.
      interpolation: "bilinear" or "bicubic".

    Returns:
      u8[...,height,width,C].
    """
    if image.shape[-3:-1] == size:
        return image
    if image.ndim > 3:
        return np.stack([resize(one, size, interpolation) for one in image])
    gray = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if gray else np.ascontiguousarray(image))
    resized = np.asarray(picture.resize(size[::-1], _RESAMPLING[interpolation]))
    return resized.reshape(*size, image.shape[2])


def _room(image: np.ndarray, size: int) -> tuple[int, int]:
    height, width = image.shape[-3:-1]
    if min(height, width) < size:
        raise ValueError(f"the image is {height}x{width}; a crop needs {size}")
    return height - size, width - size


def _crops(image: np.ndarray, places: list[tuple[int, int]], size: int) -> np.ndarray:
    views = [image[..., top : top + size, left : left + size, :] for top, left in places]
    return np.stack(views, -4)
