"""The windows' distributions, and resizing against Pillow and against a float64 form of it."""

import numpy as np
import photos
import pytest
from PIL import Image

from jaxcnn.data import crops
from jaxcnn.data.crops import Window
from jaxcnn.data.decode import decode


def test_inception_windows_have_the_stated_area_and_aspect():
    random = np.random.default_rng(0)
    height, width = 375, 500
    windows = np.array([crops.inception(random, height, width) for _ in range(4000)])
    top, left, bottom, right, crop_first = windows.T
    assert crop_first.all() and (top >= 0).all() and (left >= 0).all()
    assert (bottom <= height).all() and (right <= width).all()
    assert (windows == windows.round()).all()
    h, w = bottom - top, right - left
    area, ratio = h * w / (height * width), np.log(w / h)
    assert 0.078 < area.min() < 0.1 and area.max() > 0.95
    assert np.abs(ratio).max() < np.log(4 / 3) + 0.02
    small = area < 0.4  # nothing is rejected there: uniform from 0.08
    assert abs(area[small].mean() - 0.24) < 0.01
    assert abs(ratio[small].mean()) < 0.02
    # Where there is room, every place is equally likely.
    assert abs((top / (height - h + 1e-9))[small].mean() - 0.5) < 0.02


@pytest.mark.parametrize("height, width", [(10, 400), (400, 10), (1, 1)])
def test_a_strip_gets_a_central_window(height, width):
    top, left, bottom, right, _ = crops.inception(np.random.default_rng(0), height, width)
    assert 0 < bottom - top <= height and 0 < right - left <= width
    assert abs(top + bottom - height) <= 1 and abs(left + right - width) <= 1
    assert max(height, width) == 1 or 0.74 < (right - left) / (bottom - top) < 1.4


def test_scale_jitter_covers_the_scales_and_stays_inside():
    random = np.random.default_rng(1)
    crop = crops.training_crop("scale_jitter", 224)
    windows = np.array([crop(random, 300, 400) for _ in range(2000)])
    top, left, bottom, right, _ = windows.T
    assert top.min() >= 0 and left.min() >= 0
    assert bottom.max() <= 300 + 1e-9 and right.max() <= 400 + 1e-9
    side = 224 * 300 / (bottom - top)  # shorter side that the image was resized to
    assert side.min() == pytest.approx(256) and side.max() == pytest.approx(512)
    assert abs(side.mean() - 384) < 6
    fixed = crops.training_crop("fixed_scale", 112)(random, 300, 400)
    assert fixed.bottom - fixed.top == pytest.approx(112 * 300 / 128)
    resnet = crops.training_crop("scale_jitter_480", 224)
    sides = [224 * 300 / (w.bottom - w.top) for w in (resnet(random, 300, 400) for _ in range(999))]
    assert min(sides) == pytest.approx(256) and max(sides) == pytest.approx(480)


def test_alexnets_windows_lie_in_the_central_square():
    """227 of 256 pixels: 30 places each way, of a 512x256 image in its middle half."""
    random = np.random.default_rng(2)
    crop = crops.training_crop("fixed_square", 227)
    windows = np.array([crop(random, 256, 512) for _ in range(3000)])
    top, left, bottom, right, _ = windows.T
    assert set(bottom - top) == set(right - left) == {227.0}
    assert set(top) == set(range(30)) and set(left) == set(range(128, 158))


@pytest.mark.parametrize("height, width", [(96, 128), (131, 90), (40, 41), (64, 64)])
def test_center_is_resize_then_crop(height, width):
    array = photos.pixels(3, height, width)
    side, size = 64, 56
    new = (side, side * width // height) if height <= width else (side * height // width, side)
    whole = Image.fromarray(array).resize(new[::-1], Image.Resampling.BILINEAR)
    top, left = (round((n - size) / 2) for n in new)
    expected = np.asarray(whole)[top : top + size, left : left + size]
    got = crops.resize(array, crops.center(height, width, size=size, side=side), size)
    assert np.abs(got.astype(int) - expected).max() <= 1


def triangle(length, size):
    """Matrix f64[size,length] of antialiased linear interpolation."""
    scale = length / size
    reach = max(scale, 1)
    center = (np.arange(size)[:, None] + 0.5) * scale
    weight = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - center) / reach)
    return weight / weight.sum(1, keepdims=True)


@pytest.mark.parametrize("height, width", [(20, 30), (30, 90), (90, 30), (93, 120), (48, 48)])
def test_resizing_is_antialiased_linear_interpolation(height, width):
    array = photos.pixels(4, 96, 128)
    window = Window(2, 5, 2 + height, 5 + width, True)
    part = array[2 : 2 + height, 5 : 5 + width]
    expected = np.einsum(
        "ih,hwc,jw->ijc", triangle(height, 48), part.astype(float), triangle(width, 48)
    )
    assert np.abs(crops.resize(array, window, 48) - expected).max() < 1.6


def test_cutting_a_file_is_decoding_it_whole_and_cutting():
    data = photos.jpeg(photos.pixels(5, 200, 260))
    random = np.random.default_rng(2)
    for name in crops.CROPS:
        crop = crops.training_crop(name, 64)
        for _ in range(20):
            window = crop(random, 200, 260)
            got = crops.cut(data, lambda h, w, window=window: window, 64)
            np.testing.assert_array_equal(got, crops.resize(decode(data), window, 64))
            assert got.shape == (64, 64, 3) and got.dtype == np.uint8


def test_an_unknown_crop_is_named():
    with pytest.raises(ValueError, match=r"config\.data\.crop is 'incepton'; did you mean"):
        crops.training_crop("incepton", 224)
