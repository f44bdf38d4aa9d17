"""Which part of an image the network sees, and resizing it: on the host, u8 in and out."""

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
# Shorter side of the resized image, for windows of 224 pixels.
SIDES = {
    "scale_jitter": (256, 512),  # VGG
    "scale_jitter_480": (256, 480),  # ResNet
    "fixed_scale": (256, 256),
    "fixed_square": (256, 256),  # AlexNet
}


class Window(NamedTuple):
    """A rectangle of an image in pixels, not always whole.

    `alone`: what is outside does not count when it is resized (crop, then resize); otherwise it
    does at the border (resize, then crop).
    """

    top: float
    left: float
    bottom: float
    right: float
    alone: bool


Crop = Callable[[np.random.Generator, int, int], Window]


def inception(random: np.random.Generator, height: int, width: int) -> Window:
    """8-100 % of the area, aspect ratio 3/4 to 4/3, log-uniform (arXiv 1409.4842, section 6).

    After ten vain draws the largest central window of an allowed aspect ratio, as torchvision.
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
    """Shorter side uniform in a range, then any window (arXiv 1409.1556, section 3.1).

    `sides` are for size 224 and in proportion for others; but 227, AlexNet's, is cut from the same
    images. With `square` the window lies in the central square.
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
    """The center of the image resized to `side` pixels on the shorter side, as torchvision."""
    new = _resized(height, width, side)
    top, left = (round((n - size) / 2) for n in new)
    return _window(height, width, new, top, left, size)


def whole(random: np.random.Generator, height: int, width: int) -> Window:
    """All of it, whatever the aspect ratio."""
    return Window(0, 0, height, width, True)


CROPS = ("inception", *SIDES, "whole")


def training_crop(name: str, size: int) -> Crop:
    """The crop of this name: "inception", "whole", or a window of the resized image: "scale_jitter"
    (VGG), "scale_jitter_480" (ResNet), "fixed_scale", or "fixed_square" (AlexNet: of its center).

    Raises ValueError for another name.
    """
    one_of("config.data.crop", name, CROPS)
    if name in ("inception", "whole"):
        return {"inception": inception, "whole": whole}[name]
    return functools.partial(
        scale_jitter, size=size, sides=SIDES[name], square=name == "fixed_square"
    )


def _resized(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the shorter one `side`; the longer is rounded down."""
    if height <= width:
        return side, side * width // height
    return side * height // width, side


def _window(height: int, width: int, new: tuple[int, int], top: int, left: int, size: int):
    down, across = height / new[0], width / new[1]
    return Window(top * down, left * across, (top + size) * down, (left + size) * across, False)


def cut(data: bytes, choose: Callable[[int, int], Window], size: int) -> np.ndarray:
    """The window of an image file, resized: u8[size,size,3]. Decodes no further than it must.

    Args:
      data: the file.
      choose: (height, width) to a window.
      size: of the result.

    Raises:
      jaxcnn.data.decode.BadImage: the file shows no image.
    """
    window = choose(*image_size(data))
    # Outside the window, resizing looks as far as a pixel of the result reaches.
    reach = 0 if window.alone else (window.bottom - window.top) / size + 2
    return resize(decode(data, rows=math.ceil(window.bottom + reach)), window, size)


def resize(pixels: np.ndarray, window: Window, size: int) -> np.ndarray:
    """A window of pixels u8[H,W,3], bilinear with antialiasing: u8[size,size,3].

    Equal to Pillow's bilinear `resize` (of the crop, or a crop of it), but for enlarging, where
    OpenCV computes the same in less time and may differ by one gray level. A pixel of a window
    that is not alone may differ by one level from resizing the whole and cropping, too.
    """
    top, left, bottom, right, alone = window
    if not alone:
        box = (left, top, right, bottom)
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    part = pixels[int(top) : int(bottom), int(left) : int(right)]
    if part.shape[0] == part.shape[1] == size:
        return np.ascontiguousarray(part)
    if max(part.shape[:2]) <= size:
        cv2 = _opencv()
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
    image = Image.fromarray(part)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


@functools.cache
def _opencv():
    import cv2

    cv2.setNumThreads(1)  # the threads are those that call
    return cv2
