"""Decoding of image files to pixels u8[H,W,3], on the host.

Datasets of photos contain a few irregular files: CMYK and grayscale JPEGs, PNGs with the file name
of a JPEG, truncated and empty files. Every file that can be decoded is converted to RGB; the others
raise `BadImage`. Orientation tags are ignored, as in torchvision and TensorFlow, with which the
published accuracies were measured.

Training, evaluation and prediction all use this module, so they accept the same formats and sizes.
16-bit images are reduced to their upper eight bits. Images of 32-bit integers and floats do not
define white: it is the first of 1 (floats only), 255 and 65535 that no pixel exceeds.
"""

from __future__ import annotations

import io
import os
import struct
import warnings

import numpy as np
from PIL import Image

# The largest photo of ImageNet has 56 million. Without a limit, a small file could claim any size.
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**30  # of a file; no supported format needs more for `MAX_PIXELS`
# What Pillow raises for damaged files.
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error)
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
# Pillow warns below the limit of this module.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_JPEG = b"\xff\xd8"
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA))


class BadImage(ValueError):
    """A file that cannot be decoded, or whose image is too large."""


def check_bytes(size: int) -> None:
    """Checks the size of an image file before it is read into memory.

    Args:
      size: in bytes.

    Raises:
      BadImage: it has more than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise BadImage(f"has {size:,} bytes; at most {MAX_BYTES:,} are read")


def read_file(path: str | os.PathLike) -> bytes:
    """Reads an image file of this machine.

    Args:
      path: of the file.

    Raises:
      BadImage: it has more than `MAX_BYTES`.
    """
    with open(path, "rb") as file:
        check_bytes(os.fstat(file.fileno()).st_size)
        return file.read()


def image_size(data: bytes) -> tuple[int, int]:
    """Reads the size of an image from the header of its file.

    Args:
      data: content of the file.

    Returns:
      (height, width).

    Raises:
      BadImage: the file is not an image, or the image is too large.
    """
    if data[:2] == _JPEG:
        import simplejpeg

        try:  # by the parser that decodes it, so that a file cannot claim another size here
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        except (ValueError, KeyError):  # no JPEG that it knows
            pass
        else:
            return _checked(height, width)
    with open_image(data) as image:
        return image.height, image.width


def decode(data: bytes, rows: int | None = None) -> np.ndarray:
    """Decodes an image file.

    Args:
      data: content of the file.
      rows: number of rows, from the top, that are needed; None for all. The result may have fewer
        rows than the image if that is faster, but at least these.

    Returns:
      RGB pixels u8[H,W,3].

    Raises:
      BadImage: the file is not an image or is truncated, or the image has more than `MAX_PIXELS`
        pixels.
    """
    import simplejpeg

    height, _ = image_size(data)
    frame = _frame(data)
    if frame and data[frame + 9] in (1, 3):  # components; four are CMYK
        short = _shorten(data, frame, height, rows)
        try:
            return simplejpeg.decode_jpeg(short, "RGB", strict=short is data)
        except ValueError:
            pass  # Pillow decides whether the file is bad
    with open_image(data) as image:
        try:
            image.load()
            if image.mode.startswith(("I", "F")):  # Pillow would clip, not scale
                return np.repeat(_to_bytes(np.asarray(image))[..., None], 3, 2)
            return np.asarray(image.convert("RGB"))
        except BROKEN as error:
            raise BadImage(f"cannot be decoded: {error}") from None


def _to_bytes(gray: np.ndarray) -> np.ndarray:
    """Converts grayscale pixels [H,W] of more than eight bits to u8[H,W]."""
    if gray.dtype.itemsize == 2:
        return (gray.astype(np.uint16) >> 8).astype(np.uint8)
    if not np.isfinite(gray).all():
        raise BadImage("has pixels that are not finite")
    low, high = gray.min(), gray.max()
    if low < 0 or high > 65535:
        raise BadImage(f"has pixels from {low:g} to {high:g}; they may reach from 0 to 65535")
    if gray.dtype.kind == "f" and high <= 1:
        return np.round(gray * 255).astype(np.uint8)
    return (gray if high <= 255 else gray.astype(np.uint16) >> 8).astype(np.uint8)


def check_resized(height: int, width: int) -> None:
    """Checks the size that an image is to be resized to: that of a narrow one can be enormous.

    Args:
      height: after resizing, in pixels.
      width: likewise.

    Raises:
      BadImage: it has more than `MAX_PIXELS` pixels.
    """
    if height * width > MAX_PIXELS:
        raise BadImage(
            f"is too narrow: resized to {width} x {height}, it has more than {MAX_PIXELS:,} pixels"
        )


def _checked(height: int, width: int) -> tuple[int, int]:
    if height * width > MAX_PIXELS:
        raise BadImage(f"is {width} x {height}; at most {MAX_PIXELS:,} pixels are decoded")
    return height, width


def open_image(data: bytes) -> Image.Image:
    """Opens an image file of a supported format with Pillow, without decoding it.

    Args:
      data: content of the file.

    Raises:
      BadImage: the file is not an image, or the image is too large.
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
    except BROKEN:
        raise BadImage(
            f"is not an image ({len(data)} bytes, beginning {data[:12]!r}); it must be a "
            f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
        ) from None


def _frame(data: bytes) -> int:
    """Offset of the frame header of a baseline or progressive JPEG; 0 for other files."""
    if data[:2] != _JPEG:
        return 0
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _BASELINE or marker == _PROGRESSIVE:
            return at
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xDA or marker in _WITHOUT_LENGTH:  # an unusual file: left to Pillow
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _shorten(data: bytes, frame: int, height: int, rows: int | None) -> bytes:
    """Reduces the height in the header of a baseline JPEG, so that decoding stops early.

    One additional block is kept, because chroma upsampling reads one more row. A file without end
    marker is returned unchanged, so that truncated files are detected for every crop.
    """
    if rows is None or data[frame + 1] not in _BASELINE or data[-2:] != b"\xff\xd9":
        return data
    sampling = data[frame + 11 : frame + 11 + 3 * data[frame + 9] : 3]
    block = 8 * max(byte & 15 for byte in sampling)
    kept = -(-rows // block) * block + block
    if kept >= height:
        return data
    return data[: frame + 5] + kept.to_bytes(2, "big") + data[frame + 7 :]
