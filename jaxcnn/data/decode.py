"""Image files of any kind to pixels u8[H,W,3], on the host.

Photo sets hold a few files that are not what they should be: CMYK and greyscale JPEGs, PNGs under
a JPEG's name, truncated and empty files. What shows an image becomes RGB, the rest is a `BadImage`.
Orientation tags are ignored, as torchvision and TensorFlow do, whose accuracies are published.

Training, evaluation and prediction decode here: the formats and the limits are the same everywhere.
Of 16 bits the upper eight are taken. Images of 32-bit integers and of floats do not say what is
white: it is 1 (floats), 255 or 65535, the first that no pixel exceeds.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

# More than any photo of ImageNet (the largest has 56 million); a small file can claim any size.
MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2


class BadImage(ValueError):
    """A file that shows no image, or too large a one."""


def image_size(data: bytes) -> tuple[int, int]:
    """(height, width) from the file's header. Raises `BadImage`."""
    frame = _frame(data)
    if frame:
        height, width = struct.unpack(">HH", data[frame + 5 : frame + 9])
        if height and width:
            return _checked(height, width)
    with open_image(data) as image:
        return image.height, image.width


def decode(data: bytes, rows: int | None = None) -> np.ndarray:
    """The pixels u8[H,W,3].

    Args:
      data: the file.
      rows: how many rows from the top are needed. Where that saves time the image returned ends
        below them; its pixels are those of the whole.

    Raises:
      BadImage: no image, a truncated one, or more than `MAX_PIXELS` pixels.
    """
    import simplejpeg

    height, _ = image_size(data)
    frame = _frame(data)
    if frame and data[frame + 9] in (1, 3):  # components; four are CMYK
        short = _shorten(data, frame, height, rows)
        try:
            return simplejpeg.decode_jpeg(short, "RGB", strict=short is data)
        except ValueError:
            pass  # Pillow decides whether it is bad
    with open_image(data) as image:
        try:
            image.load()
            if image.mode.startswith(("I", "F")):  # Pillow would clip, not scale
                return np.repeat(_to_bytes(np.asarray(image))[..., None], 3, 2)
            return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
            raise BadImage(f"cannot be decoded: {error}") from None


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    """Grey of more than eight bits, [H,W], as u8[H,W]."""
    if grey.dtype.itemsize == 2:
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    if not np.isfinite(grey).all():
        raise BadImage("has pixels that are not finite")
    low, high = grey.min(), grey.max()
    if low < 0 or high > 65535:
        raise BadImage(f"has pixels from {low:g} to {high:g}; they may reach from 0 to 65535")
    if grey.dtype.kind == "f" and high <= 1:
        return np.round(grey * 255).astype(np.uint8)
    return (grey if high <= 255 else grey.astype(np.uint16) >> 8).astype(np.uint8)


def _checked(height: int, width: int) -> tuple[int, int]:
    if height * width > MAX_PIXELS:
        raise BadImage(f"is {width} x {height}; at most {MAX_PIXELS:,} pixels are decoded")
    return height, width


def open_image(data: bytes) -> Image.Image:
    """The image in a file, of the formats and size that are decoded, not yet decoded.

    Raises `BadImage`.
    """
    if not data:
        raise BadImage("is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _checked(image.height, image.width)
        return image
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"is too large: {error}") from None
    except (OSError, ValueError, SyntaxError, struct.error):
        raise BadImage(f"is not an image ({len(data)} bytes, beginning {data[:12]!r})") from None


def _frame(data: bytes) -> int:
    """Where a JPEG's frame header begins, 0 if there is none of the usual kinds."""
    if data[:2] != b"\xff\xd8":
        return 0
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _BASELINE or marker == _PROGRESSIVE:
            return at
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0xDA:  # the scan, without a frame header before it
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _shorten(data: bytes, frame: int, height: int, rows: int | None) -> bytes:
    """A baseline JPEG that says it ends below these rows, so that the decoder stops there.

    One block more than needed is kept: the interpolation of chroma looks a row further down. A file
    without its end marker is left as it is, for a truncated one to be found whatever the crop.
    """
    if rows is None or data[frame + 1] not in _BASELINE or data[-2:] != b"\xff\xd9":
        return data
    sampling = data[frame + 11 : frame + 11 + 3 * data[frame + 9] : 3]
    block = 8 * max(byte & 15 for byte in sampling)
    kept = -(-rows // block) * block + block
    if kept >= height:
        return data
    return data[: frame + 5] + kept.to_bytes(2, "big") + data[frame + 7 :]
