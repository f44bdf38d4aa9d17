"""Augmentation against NumPy with the same draws, and what a composition promises."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.augment import pipeline

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def draw(size, shape=(12, 10, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, *shape), np.uint8)


def keys_of(size, seed=0):
    return jax.random.split(jax.random.key(seed), size)


def normalized(images):
    return (images / 255 - np.array(MEAN)) / np.array(STD)


def test_normalize():
    images = draw(4)
    for values in (images, images.astype(np.float32)):
        out = pipeline.normalize(jnp.asarray(values), MEAN, STD)
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, normalized(images), atol=2e-6)
    gray = draw(2, (5, 5, 1))
    out = pipeline.normalize(jnp.asarray(gray), (0.1307,), (0.3081,))
    np.testing.assert_allclose(out, (gray / 255 - 0.1307) / 0.3081, atol=2e-6)


@pytest.mark.parametrize(("pad", "mode"), [(1, "zeros"), (4, "zeros"), (3, "reflect")])
def test_pad_crop_against_numpy(pad, mode):
    images, keys = draw(64), keys_of(64)
    function = {"zeros": pipeline.pad_crop, "reflect": pipeline.reflect_crop}[mode]
    out = jax.jit(jax.vmap(lambda k, x: function(k, x, pad)))(keys, images)
    assert out.dtype == jnp.uint8
    for key, image, got in zip(keys, images, out):
        y, x = np.asarray(jax.random.randint(key, (2,), 0, 2 * pad + 1))
        around = ((pad, pad), (pad, pad), (0, 0))
        padded = np.pad(image, around, mode="reflect" if mode == "reflect" else "constant")
        assert np.array_equal(got, padded[y : y + 12, x : x + 10])


def test_all_offsets_are_equally_likely():
    """A lone bright pixel tells the offset: chi-squared over 25 offsets, 24 degrees of freedom."""
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 1
    crop = jax.jit(jax.vmap(lambda k: pipeline.pad_crop(k, jnp.asarray(image), 2)))
    place = np.asarray(crop(keys_of(5000))).reshape(5000, 81).argmax(1)
    counts = np.bincount(place, minlength=81).reshape(9, 9)[2:7, 2:7]
    assert counts.sum() == 5000
    assert np.sum((counts - 200) ** 2 / 200) < 51.2  # exceeded once in a thousand


def test_half_of_the_images_are_flipped():
    images = np.broadcast_to(draw(1), (4000, 12, 10, 3))
    out = np.asarray(jax.jit(jax.vmap(pipeline.flip))(keys_of(4000), images))
    mirrored = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / 4000**0.5
    for probability, expected in ((0.0, images), (1.0, images[:, :, ::-1])):
        out = jax.vmap(lambda k, x, p=probability: pipeline.flip(k, x, p))(keys_of(50), images[:50])
        assert np.array_equal(out, expected[:50])


def test_prepare_augments_with_keys_only():
    images, keys = draw(32), keys_of(32)
    prepare = jax.jit(pipeline.make_prepare((("pad_crop", 2), ("flip", 0.5)), MEAN, STD))
    np.testing.assert_allclose(prepare(images), normalized(images), atol=2e-6)
    out = prepare(images, keys)
    assert out.shape == images.shape and out.dtype == jnp.float32
    steps = (lambda k, x: pipeline.pad_crop(k, x, 2), pipeline.flip)
    expected = jnp.asarray(images)
    for i, step in enumerate(steps):
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        expected = jax.vmap(step)(own, expected)
    np.testing.assert_allclose(out, normalized(np.asarray(expected)), atol=2e-6)
    assert np.abs(out - prepare(images)).max() > 0.1


def test_an_example_does_not_depend_on_the_batch_around_it():
    images, keys = draw(16), keys_of(16)
    prepare = jax.jit(pipeline.make_prepare((("pad_crop", 4), ("flip", 0.5)), MEAN, STD))
    whole = prepare(images, keys)
    order = np.array([9, 2, 13, 4])
    assert np.array_equal(prepare(images[order], keys[order]), whole[order])


def test_without_augmentation_keys_change_nothing():
    images = draw(3)
    prepare = pipeline.make_prepare((), MEAN, STD)
    assert np.array_equal(prepare(images, keys_of(3)), prepare(images))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((("flop", 1),), r"unknown augmentation 'flop'; did you mean 'flip'\?"),
        ((("pad_crop", -1),), "pad_crop is -1; it must be a number of pixels, 0 to 512"),
        ((("pad_crop", 1000),), "pad_crop is 1000; it must be a number of pixels, 0 to 512"),
        ((("cutout", 10**20),), "cutout is 1000.*; it must be a number of pixels"),
        ((("pad_crop", 0.5),), "pad_crop is 0.5; it must be"),
        ((("reflect_crop", True),), "reflect_crop is True; it must be"),
        ((("pad_crop", 2), ("flip", 1.5)), "flip is 1.5; it must be a probability, 0 to 1"),
        ((("flip", "often"),), "flip is 'often'; it must be"),
        ((("randaugment", ("2", 9, 0.5)),), "randaugment is .*; it must be"),
        ((("randaugment", (math.inf, 9, 0.5)),), "randaugment is .*; it must be"),
    ],
)
def test_amounts_are_checked(steps, message):
    with pytest.raises(ValueError, match=message):
        pipeline.make_prepare(steps, MEAN, STD)


@pytest.mark.parametrize("name", ["pad_crop", "reflect_crop"])
def test_padding_is_within_the_image(name):
    pipeline.check_padding((("flip", 0.5), (name, 32)), 32)
    with pytest.raises(ValueError, match=f"{name} is 33; it must be at most the images' side, 32"):
        pipeline.check_padding((("flip", 0.5), (name, 33)), 32)
