"""Files that are not what they should be: what shows an image becomes RGB, the rest is refused."""

import io
import struct
import zlib

import numpy as np
import photos
import pytest
from PIL import Image

from jaxcnn.data.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    BadImage,
    decode,
    image_size,
    open_image,
    read_file,
)


def near(a, b, mean):
    return a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).mean() < mean


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "small.jpg").write_bytes(b"abc")
    assert read_file(tmp_path / "small.jpg") == b"abc"
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole, which takes no space
    with pytest.raises(BadImage, match="has 1,073,741,825 bytes; at most 1,073,741,824 are read"):
        read_file(tmp_path / "large.jpg")


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_what_pillow_makes_of_it(subsampling, progressive):
    data = photos.jpeg(photos.pixels(), subsampling=subsampling, progressive=progressive)
    assert image_size(data) == (96, 128)
    with Image.open(io.BytesIO(data)) as image:
        assert near(decode(data), np.asarray(image), 0.05)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40, 95, 96])
def test_decoding_some_rows_gives_those_of_the_whole(subsampling, rows):
    data = photos.jpeg(photos.pixels(), subsampling=subsampling)
    part = decode(data, rows=rows)
    assert rows <= len(part) <= 96
    np.testing.assert_array_equal(part[:rows], decode(data)[:rows])
    assert rows > 40 or len(part) < 96


def test_gray_cmyk_and_png_become_rgb():
    array = photos.pixels()
    gray = decode(photos.jpeg(array, "L"))
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])
    assert near(decode(photos.jpeg(array, "CMYK", quality=95, subsampling=0)), array, 8)
    disguised = photos.encode(Image.fromarray(array), "PNG")
    np.testing.assert_array_equal(decode(disguised), array)
    clear = Image.fromarray(array).convert("RGBA")
    np.testing.assert_array_equal(decode(photos.encode(clear, "PNG")), array)
    palette = Image.fromarray(array).quantize(256)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(photos.encode(palette, "PNG")), expected)


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = Image.fromarray((photos.pixels()[..., 0].astype(np.uint16) << 8) + 7)
    pixels = decode(photos.encode(deep, "PNG"))
    np.testing.assert_array_equal(pixels[..., 1], photos.pixels()[..., 0])


RAMP = np.linspace(0, 1, 256)[None].repeat(48, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_of_more_bits_is_the_same_picture(kind):
    """256 levels from black to white, of 16 bits, of 32-bit integers, and of floats."""
    wanted = np.arange(256, dtype=np.uint8)[None].repeat(48, 0)
    deep = {"16 bits": (RAMP * 65535).astype(np.uint16)}
    if kind == "TIFF":
        deep |= {
            "big-endian": (RAMP * 65535).astype(">u2"),
            "integers": (RAMP * 65535).astype(np.int32),
            "bytes in integers": wanted.astype(np.int32),
            "floats to 1": RAMP.astype(np.float32),
            "floats to 255": (RAMP * 255).round().astype(np.float32),
            "floats to 65535": (RAMP * 65535).astype(np.float32),
        }
    for name, gray in deep.items():
        pixels = decode(photos.encode(Image.fromarray(gray), kind))
        assert pixels.shape == (48, 256, 3) and pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels[..., 2], wanted, err_msg=name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32("nan"), "not finite"),
        (np.float32("inf"), "not finite"),
        (np.float32(-0.5), "from -0.5 to 1; they may reach from 0 to 65535"),
        (np.float32(70000), "from 0 to 70000"),
        (np.int32(-3), "from -3 to 1"),
        (np.int32(2**24), "from 0 to 1.67772e"),
    ],
)
def test_pixels_of_no_known_range_are_refused(value, text):
    gray = RAMP.astype(value.dtype)
    gray[3, 4] = value
    with pytest.raises(BadImage, match=text):
        decode(photos.encode(Image.fromarray(gray), "TIFF"))


def test_other_formats_are_not_opened_whatever_their_name():
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6\n1 1\n255\nabc"):
        with pytest.raises(BadImage, match="is not an image"):
            image_size(data)
        with pytest.raises(BadImage, match="is not an image"):
            open_image(data)


def test_the_orientation_tag_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = photos.jpeg(photos.pixels(), exif=exif)
    assert image_size(data) == (96, 128)
    np.testing.assert_array_equal(decode(data), decode(photos.jpeg(photos.pixels())))


@pytest.mark.parametrize("rows", [None, 8])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_jpeg_is_refused_whichever_part_is_wanted(share, rows):
    data = photos.jpeg(photos.pixels())
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: int(share * len(data))], rows=rows)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"<html>no such page"])
def test_no_image_is_refused(data):
    with pytest.raises(BadImage, match=r"empty|not an image"):
        decode(data)


@pytest.mark.parametrize("marker", [0x00, 0x01, 0xD0, 0xD7, 0xD8, 0xD9])
def test_the_size_of_a_jpeg_is_the_one_that_is_decoded(marker):
    """A marker without a length must not lead to a second frame header, of a smaller image."""
    data = photos.jpeg(photos.pixels())
    head = bytes([0xFF, 0xD8, 0xFF, marker]) + data[2:]
    # Where a reader lands that takes the next two bytes for a length.
    lands = 4 + int.from_bytes(head[4:6], "big")
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, 10, 10, 3)
    crafted = head.ljust(lands, b"\0") + frame + bytes(20)
    assert image_size(crafted) == (96, 128)
    if marker in (0x01, 0xD8, 0xD9):  # more than the parsers of Pillow put up with
        with pytest.raises(BadImage):
            decode(crafted)
    else:
        assert decode(crafted).shape == (96, 128, 3) and decode(crafted, rows=5).shape[1] == 128


def bomb_png(side):
    """A PNG of a few bytes that says it is side x side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    data = bytearray(photos.jpeg(photos.pixels()))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    for bomb in (bytes(data), bomb_png(60_000), bomb_png(10_001)):
        with pytest.raises(BadImage, match=r"at most|too large"):
            decode(bomb)
        if bomb[:2] != b"\xff\xd8":
            with pytest.raises(BadImage, match=r"at most|too large"):
                open_image(bomb)
    assert MAX_PIXELS == 100_000_000
