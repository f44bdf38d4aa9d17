"""Cropping and resizing of images u8[H,W,3], on the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxcnn._checks import one_of
from jaxcnn.data.decode import decode, image_size

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
# Range of the shorter side of the resized image, for crops of 224 pixels.
SIDES = {
    "scale_jitter": (256, 512),  # VGG
    "scale_jitter_480": (256, 480),  # ResNet
    "fixed_scale": (256, 256),
    "fixed_square": (256, 256),  # AlexNet
}


class Window(NamedTuple):
    """A rectangle of an image.

    Attributes:
      top, left, bottom, right: in pixels, not necessarily integers.
      crop_first: crop before resizing, so that pixels outside the window do not affect the result.
        Otherwise resize before cropping, so that they affect its border.
    """

    top: float
    left: float
    bottom: float
    right: float
    crop_first: bool


Crop = Callable[[np.random.Generator, int, int], Window]


def inception(random: np.random.Generator, height: int, width: int) -> Window:
    """Draws a window of 8-100 % of the area (arXiv 1409.4842, section 6).

    The aspect ratio is log-uniform in 3/4 to 4/3. If none of ten draws fits into the image, the
    window is the largest central one whose aspect ratio is allowed, as in torchvision.

    Args:
      random: generator of the example.
      height: height of the image in pixels.
      width: width of the image in pixels.
    """
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(10):
        area = height * width * random.uniform(*AREA)
        ratio = math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            return Window(top, left, top + h, left + w, True)
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    top, left = (height - h) // 2, (width - w) // 2
    return Window(top, left, top + h, left + w, True)


def scale_jitter(
    random: np.random.Generator,
    height: int,
    width: int,
    *,
    size: int,
    sides: tuple[int, int],
    square: bool = False,
) -> Window:
    """Draws the shorter side of the resized image, then a window (arXiv 1409.1556, section 3.1).

    Args:
      random: generator of the example.
      height: height of the image in pixels.
      width: width of the image in pixels.
      size: height and width of the crop.
      sides: range of the shorter side for crops of 224 pixels. It is scaled in proportion to
        `size`, except for 227 (AlexNet), which is cropped from the same images as 224.
      square: restrict the window to the central square.
    """
    scale = 1 if size == 227 else size / 224
    low, high = (max(size, round(side * scale)) for side in sides)
    side = int(random.integers(low, high + 1))
    new = _resized(height, width, side)
    within = (side, side) if square else new
    top, left = (
        (n - m) // 2 + int(random.integers(m - size + 1)) for n, m in zip(new, within, strict=True)
    )
    return _window(height, width, new, top, left, size)


def center(height: int, width: int, *, size: int, side: int) -> Window:
    """Returns the central window of the image after resizing, as in torchvision.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.
      size: height and width of the crop.
      side: shorter side of the resized image.
    """
    new = _resized(height, width, side)
    top, left = (round((n - size) / 2) for n in new)
    return _window(height, width, new, top, left, size)


def whole(random: np.random.Generator, height: int, width: int) -> Window:
    """Returns the whole image as a window, whatever its aspect ratio."""
    return Window(0, 0, height, width, True)


CROPS = ("inception", *SIDES, "whole")


def training_crop(name: str, size: int) -> Crop:
    """Looks up a crop for training.

    Args:
      name: "inception", "whole", or a random crop of the resized image: "scale_jitter" (VGG),
        "scale_jitter_480" (ResNet), "fixed_scale", or "fixed_square" (AlexNet: of the central
        square).
      size: height and width of the crop.

    Returns:
      A function of (generator, height, width) that returns a window.

    Raises:
      ValueError: the name is unknown.
    """
    one_of("config.data.crop", name, CROPS)
    if name in ("inception", "whole"):
        return {"inception": inception, "whole": whole}[name]
    return functools.partial(
        scale_jitter, size=size, sides=SIDES[name], square=name == "fixed_square"
    )


def _resized(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width after resizing the shorter side to `side`; the longer is rounded down."""
    if height <= width:
        return side, side * width // height
    return side * height // width, side


def _window(height: int, width: int, new: tuple[int, int], top: int, left: int, size: int):
    down, across = height / new[0], width / new[1]
    return Window(top * down, left * across, (top + size) * down, (left + size) * across, False)


def cut(data: bytes, choose: Callable[[int, int], Window], size: int) -> np.ndarray:
    """Decodes an image file, as far as needed, and crops and resizes it.

    Args:
      data: content of the file.
      choose: function of (height, width) that returns the window.
      size: height and width of the result.

    Returns:
      u8[size,size,3].

    Raises:
      jaxcnn.data.decode.BadImage: the file cannot be decoded.
    """
    window = choose(*image_size(data))
    # Resizing reads pixels outside the window, up to the support of the filter.
    reach = 0 if window.crop_first else (window.bottom - window.top) / size + 2
    return resize(decode(data, rows=math.ceil(window.bottom + reach)), window, size)


def resize(pixels: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Crops and resizes an image, with antialiased bilinear interpolation.

    The result equals Pillow's, except when OpenCV, which is faster, enlarges a crop: then it can
    differ by one level. Without `crop_first`, a pixel can also differ by one level from resizing
    the whole image and cropping the result.

    Args:
      pixels: u8[H,W,3].
      window: the crop.
      size: height and width of the result.

    Returns:
      u8[size,size,3].
    """
    top, left, bottom, right, crop_first = window
    if not crop_first:
        box = (left, top, right, bottom)
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    crop = pixels[int(top) : int(bottom), int(left) : int(right)]
    if crop.shape[0] == crop.shape[1] == size:
        return np.ascontiguousarray(crop)
    if max(crop.shape[:2]) <= size:
        cv2 = _opencv()
        return cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    image = Image.fromarray(crop)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


@functools.cache
def _opencv():
    import cv2

    cv2.setNumThreads(1)  # the callers are threads already
    return cv2
