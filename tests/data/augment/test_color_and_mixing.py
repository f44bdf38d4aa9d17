"""Color, erasing and mixing against closed forms and NumPy with the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn._checks import note_once
from jaxcnn.data import boxes
from jaxcnn.data.augment import color, erasing, mixing, pipeline

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (12, 10, 3)).astype(np.uint8)


def keys_of(size, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def over_keys(function, size):
    return np.asarray(jax.jit(jax.vmap(function))(keys_of(size)))


def test_lighting_adds_one_color_of_the_right_covariance():
    out = over_keys(lambda key: color.lighting(key, jnp.asarray(IMAGE), 0.1), 4000)
    shift = out - IMAGE
    np.testing.assert_allclose(shift, shift[:, :1, :1] * np.ones((1, 12, 10, 1)), atol=1e-4)
    found = np.cov(shift[:, 0, 0].T)
    values = 0.1 * np.array([55.46, 4.794, 1.148])
    first = np.array([-0.5675, -0.5808, -0.5836])
    np.testing.assert_allclose(first @ found @ first, values[0] ** 2, rtol=0.1)
    expected = sum(
        value**2 * np.outer(way, way)
        for value, way in zip(
            values, [first, [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]]
        )
    )
    np.testing.assert_allclose(found, expected, rtol=0.12)


def slow_jitter(image, order, factors):
    image = image.astype(np.float64)
    for kind in order:
        gray = image @ np.array([0.299, 0.587, 0.114])
        start = [np.zeros_like(image), np.full_like(image, gray.mean()), gray[..., None]][kind]
        image = factors[kind] * image + (1 - factors[kind]) * start
    return image


def test_color_jitter_against_numpy():
    jitter = jax.jit(lambda key: color.color_jitter(key, jnp.asarray(IMAGE), 0.4))
    orders = set()
    for key in keys_of(24):
        order_key, factor_key = jax.random.split(key)
        order = tuple(int(i) for i in jax.random.permutation(order_key, 3))
        factors = np.asarray(jax.random.uniform(factor_key, (3,), minval=0.6, maxval=1.4))
        np.testing.assert_allclose(jitter(key), slow_jitter(IMAGE, order, factors), atol=1e-3)
        orders.add(order)
    assert len(orders) == 6


def test_cutout_paints_one_square():
    fill = (1.0, 2.0, 3.0)
    image = np.full((12, 10, 3), 200, np.uint8)
    out = over_keys(lambda key: erasing.cutout(key, jnp.asarray(image), 4, fill=fill), 600)
    assert out.dtype == np.uint8
    painted = (out == np.uint8(fill)).all(-1)
    assert ((out == image).all(-1) | painted).all()
    assert set(painted.sum((1, 2))) <= {a * b for a in (2, 3, 4) for b in (2, 3, 4)}
    assert (painted.sum((1, 2)) == 16).mean() == pytest.approx(9 * 7 / 120, abs=0.07)
    # Pixel (0, 0) is reached from centers at rows 0..2 and columns 0..2.
    assert painted[:, 0, 0].mean() == pytest.approx(9 / 120, abs=0.04)
    assert painted[:, 6, 5].mean() == pytest.approx(16 / 120, abs=0.05)


def test_random_erasing_erases_as_often_and_as_much_as_it_says():
    image = np.full((40, 40, 3), 77, np.uint8)
    out = over_keys(lambda key: erasing.random_erasing(key, jnp.asarray(image), 0.25), 800)
    changed = (out != image).any(-1)
    hit = changed.any((1, 2))
    assert hit.mean() == pytest.approx(0.25, abs=0.05)
    assert changed[hit].mean((1, 2)).min() > 0.015 and changed[hit].mean((1, 2)).max() < 0.42
    rows, columns = changed.any(2).sum(1)[hit], changed.any(1).sum(1)[hit]
    assert np.abs(rows * columns - changed[hit].sum((1, 2))).max() <= 2  # it is a rectangle
    aspect = rows / columns
    assert 0.25 < aspect.min() < 0.5 and 2 < aspect.max() < 4


IMAGES = RNG.standard_normal((64, 8, 8, 3)).astype(np.float32)
LABELS = RNG.integers(0, 5, 64).astype(np.int32)
PARTNER = np.arange(64) ^ 1
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]


def mixed(keys=None, images=IMAGES, **options):
    keys = keys_of(64) if keys is None else keys
    return jax.jit(lambda k, x, y: mixing.mix(k, x, y, 5, **options))(keys, images, LABELS)


def test_mixup_is_an_average_with_the_targets_shares():
    images, targets = map(np.asarray, mixed(mixup=0.4))
    # The share, from the images, by least squares; then targets must have the same.
    difference = IMAGES - IMAGES[PARTNER]
    share = ((images - IMAGES[PARTNER]) * difference).sum((1, 2, 3)) / (difference**2).sum(
        (1, 2, 3)
    )
    wide = share[:, None, None, None]
    np.testing.assert_allclose(images, wide * IMAGES + (1 - wide) * IMAGES[PARTNER], atol=1e-5)
    expected = share[:, None] * ONE_HOT + (1 - share[:, None]) * ONE_HOT[PARTNER]
    np.testing.assert_allclose(targets, expected, atol=1e-5)
    assert len(np.unique(share)) == 64 and share.min() >= 0 and share.max() <= 1
    # Beta(0.4, 0.4) has variance 1 / (4 (2 a + 1)).
    assert share.var() == pytest.approx(1 / (4 * 1.8), rel=0.35)


def test_cutmix_replaces_a_rectangle_of_the_targets_share():
    images, targets = map(np.asarray, mixed(cutmix=1.0))
    own, other = (images == IMAGES).all(-1), (images == IMAGES[PARTNER]).all(-1)
    assert (own ^ other).all()
    rows, columns = other.any(2).sum(1), other.any(1).sum(1)
    np.testing.assert_array_equal(rows * columns, other.sum((1, 2)))
    share = own.mean((1, 2))[:, None]
    np.testing.assert_allclose(targets, share * ONE_HOT + (1 - share) * ONE_HOT[PARTNER], atol=1e-6)
    assert 0.5 < share.mean() < 0.85 and len(np.unique(share)) > 10


def test_both_take_turns_and_none_gives_one_hot():
    images, targets = map(np.asarray, mixed(mixup=1.0, cutmix=1.0))
    cut = ((images == IMAGES) | (images == IMAGES[PARTNER])).all((1, 2, 3))
    assert 0.3 < cut.mean() < 0.7
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    images, targets = mixed()
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, ONE_HOT)


def test_mixing_does_not_depend_on_the_split_of_the_batch():
    whole = mixed(mixup=0.2, cutmix=1.0)
    part = mixing.mix(keys_of(64)[32:48], IMAGES[32:48], LABELS[32:48], 5, mixup=0.2, cutmix=1.0)
    for a, b in zip(whole, part):
        np.testing.assert_allclose(a[32:48], b, atol=1e-6)
    with pytest.raises(ValueError, match="3 examples cannot be mixed in pairs"):
        mixing.mix(keys_of(3), IMAGES[:3], LABELS[:3], 5, mixup=0.2)
    with pytest.raises(ValueError, match="mixup and cutmix are -1 and 0"):
        mixing.mix(keys_of(2), IMAGES[:2], LABELS[:2], 5, mixup=-1, cutmix=0)


def test_steps_by_name_with_the_mean_color_for_paint():
    mean, std = (0.5, 0.25, 0.75), (0.2, 0.2, 0.2)
    steps = (("flip", 0.5), ("color_jitter", 0.4), ("lighting", 0.1), ("random_erasing", 0.5))
    prepare = jax.jit(pipeline.make_prepare((*steps, ("cutout", 12)), mean, std))
    out = prepare(np.stack([IMAGE] * 4), keys_of(4))
    assert out.shape == (4, 12, 10, 3) and out.dtype == jnp.float32
    # 12 pixels around any center reach the middle: the mean color, rounded, normalized.
    painted = (np.rint(255 * np.array(mean)) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(out[:, 6, 5], np.tile(painted, (4, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "step, message",
    [
        (("color_jiter", 0.4), "did you mean 'color_jitter'"),
        (("color_jitter", 1.5), "color_jitter is 1.5; it must be in"),
        (("randaugment", (2, 11, 0.5)), "number of operations, magnitude 0 to 10"),
        (("autoaugment", "svhn"), "it must be 'cifar10'"),
        (("trivial_augment", 1), "2 or more"),
        (("cutout", -1), "number of pixels"),
    ],
)
def test_bad_amounts(step, message):
    with pytest.raises(ValueError, match=message):
        pipeline.make_prepare((step,), (0.5,) * 3, (0.2,) * 3)


def test_former_names_of_steps_work_with_one_notice(capsys):
    note_once.cache_clear()
    images, keys, numbers = np.stack([IMAGE] * 2), keys_of(2), ((0.5,) * 3, (0.2,) * 3)
    former, current = (
        pipeline.make_prepare(((name, 0.4),), *numbers)(images, keys)
        for name in ("colour_jitter", "color_jitter")
    )
    np.testing.assert_array_equal(former, current)
    boxes.make_move((("colour_jitter", 0.4),))
    note = "note: the augmentation colour_jitter is now color_jitter\n"
    assert capsys.readouterr().err == note


def test_color_steps_refuse_gray_images():
    with pytest.raises(ValueError, match="lighting is for images of 3 channels; these have 1"):
        pipeline.make_prepare((("lighting", 0.1),), (0.5,), (0.2,))
