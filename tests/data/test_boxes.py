"""Boxes: overlap by counting pixels, and following augmentations and crops as drawn masks do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import boxes, catalog, crops
from jaxcnn.data.augment import pipeline
from jaxcnn.data.crops import Window


def painted(box, side):
    """A mask of the box, which lies on whole pixels of the side."""
    top, left, bottom, right = np.rint(np.asarray(box) * side).astype(int)
    mask = np.zeros((side, side), bool)
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


def extent(mask):
    """The box of a mask, in shares; zeros for none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4)
    ends = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    return ends / np.array(mask.shape * 2)


def random_boxes(random, count, side=20):
    ends = np.sort(random.randint(0, side + 1, (count, 2, 2)), 1)
    ends[:, 1] += ends[:, 0] == ends[:, 1]
    return ends.reshape(count, 4).astype(np.float32) / side


def test_overlap_in_closed_form():
    whole, left, lower = ([0, 0, 1, 1], [0, 0, 1, 0.5], [0.5, 0, 1, 1])
    pairs = [(whole, whole, 1), (whole, left, 0.5), (left, lower, 1 / 3), (left, [0, 0.5, 1, 1], 0)]
    pairs += [([1, 1, 0, 0], whole, 0), ([0, 0, 0, 0], [0, 0, 0, 0], 0)]
    for first, second, right in pairs:
        found = boxes.iou(jnp.array(first, float), jnp.array(second, float))
        np.testing.assert_allclose(found, right, atol=1e-6)


def test_overlap_equals_counted_pixels_and_survives_stretching():
    random = np.random.RandomState(0)
    first, second = random_boxes(random, 50), random_boxes(random, 50)
    masks = [[painted(b, 20) for b in found] for found in (first, second)]
    right = [(a & b).sum() / (a | b).sum() for a, b in zip(*masks)]
    np.testing.assert_allclose(boxes.iou(jnp.array(first), jnp.array(second)), right, atol=1e-5)
    stretched = [jnp.array(found * [3, 7, 3, 7] - 2) for found in (first, second)]
    np.testing.assert_allclose(boxes.iou(*stretched), right, atol=1e-5)


def test_center_form_is_undone():
    found = jnp.array([[0.1, 0.2, 0.5, 0.8]])
    np.testing.assert_allclose(boxes.to_center(found), [[0.5, 0.3, 0.6, 0.4]], atol=1e-6)
    np.testing.assert_allclose(boxes.from_center(boxes.to_center(found)), found, atol=1e-6)


def test_packed_largest_first():
    found = boxes.pack([[0, 0, 0.1, 0.1], [0, 0, 1, 1], [0, 0, 0.5, 0.5]], most=2)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(boxes.pack([], most=2), np.zeros((2, 4)))


STEPS = (("pad_crop", 3), ("flip", 0.5), ("pad_crop", 2), ("cutout", 2))


@pytest.fixture(scope="module")
def moved():
    """(masks of boxes after the pixels' own augmentation, boxes after theirs)."""
    random, side = np.random.RandomState(1), 16
    own = random_boxes(random, 64, side)
    masks = np.stack([painted(box, side) for box in own])
    keys = jax.random.split(jax.random.key(3), 64)
    pixels = np.repeat(masks[..., None], 3, -1).astype(np.uint8) * 255
    without_cutout = pipeline.make_prepare(STEPS[:3], (0.0,) * 3, (1.0,) * 3)
    after = np.asarray(jax.jit(without_cutout)(pixels, keys))[..., 0] > 0.5
    move = jax.jit(boxes.make_move(STEPS), static_argnums=2)
    return masks, after, np.asarray(move(keys, own[:, None], (side, side)))[:, 0]


def test_follow_the_pixels(moved):
    masks, after, found = moved
    assert (masks != after).any((1, 2)).sum() > 50  # they do move
    for mask, box in zip(after, found):
        if mask.any():
            np.testing.assert_allclose(box, extent(mask), atol=1e-6)
        else:
            assert boxes.area(box) == 0


def test_refuse_what_bends_an_image():
    with pytest.raises(ValueError, match="'randaugment' cannot be combined with boxes"):
        boxes.make_move((("flip", 0.5), ("randaugment", (2, 9, 0.5))))


def test_follow_a_window():
    random = np.random.default_rng(2)
    image = np.zeros((40, 60, 3), np.uint8)
    box = np.array([[10 / 40, 12 / 60, 30 / 40, 36 / 60], [0, 0, 0, 0]], np.float32)
    image[10:30, 12:36] = 255
    for window in (
        Window(5, 6, 35, 46, True),
        Window(20, 0, 40, 30, True),
        crops.center(40, 60, size=28, side=32),
        *(crops.inception(random, 40, 60) for _ in range(8)),
    ):
        shown = crops.resize(image, window, 100)[..., 0] > 127
        found = boxes.through(box, window, 40, 60)
        np.testing.assert_allclose(boxes.visible(found[0]), extent(shown), atol=0.021)
        np.testing.assert_array_equal(found[1], 0)
        np.testing.assert_allclose(boxes.out_of(found, window, 40, 60)[0], box[0], atol=1e-5)


def test_synthetic_boxes_are_those_of_the_bright_pixels():
    found = catalog.load("synthetic_boxes", "test[:48]")
    assert sorted(set(found.labels.tolist())) == list(range(8))
    for image, box in zip(found.images, found.boxes[:, 0]):
        np.testing.assert_allclose(box, extent(image.max(-1) > 120), atol=1e-6)
    again = catalog.load("synthetic_boxes", "test[16:48]")
    np.testing.assert_array_equal(again.images, found.images[16:])
    np.testing.assert_array_equal(again.boxes, found.boxes[16:])
    large = catalog.load("synthetic_boxes:64", "test[:2]")
    assert large.images.shape == (2, 64, 64, 3)
    with pytest.raises(ValueError, match="8 pixels wide; they have 16 to 512"):
        catalog.load("synthetic_boxes:8", "test")
