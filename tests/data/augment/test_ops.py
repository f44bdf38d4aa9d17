"""The operations against Pillow's, and the policies against what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxcnn.data.augment import ops as image_ops
from jaxcnn.data.augment import policies

FILL = (120, 30, 200)
RNG = np.random.default_rng(0)
# Smooth, of a narrow range, noise: each shows another fault.
IMAGES = [
    np.clip(np.mgrid[:24, :20].sum(0)[..., None] * 5 + np.array([0, 20, 40]), 0, 255),
    RNG.integers(60, 190, (24, 20, 3)),
    RNG.integers(0, 256, (24, 20, 3)),
    np.full((24, 20, 3), 77),
]
APPLY = jax.jit(image_ops.apply)


def moved(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=FILL)


def solarize_add(image, amount):
    pixels = np.asarray(image).astype(int)
    return np.where(pixels < 128, np.minimum(pixels + amount, 255), pixels)


PILLOW = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, bits),
    "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
    "solarize_add": solarize_add,
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "rotate": lambda image, degrees: image.rotate(degrees, fillcolor=FILL),
    "shear_x": lambda image, slope: moved(image, (1, slope, 0, 0, 1, 0)),
    "shear_y": lambda image, slope: moved(image, (1, 0, 0, slope, 1, 0)),
    "translate_x": lambda image, pixels: moved(image, (1, 0, pixels, 0, 1, 0)),
    "translate_y": lambda image, pixels: moved(image, (1, 0, 0, 0, 1, pixels)),
}
ARGUMENTS = {
    "posterize": (1, 4, 8),
    "solarize": (0, 100, 256),
    "solarize_add": (0, 50, 110),
    "rotate": (-30, 10, 29.7),
    "shear_x": (-0.3, 0.17),
    "shear_y": (-0.21, 0.3),
    "translate_x": (-7, 3, 25),
    "translate_y": (-7, 3),
    **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), (0.1, 0.63, 1.0, 1.9)),
}
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@pytest.mark.parametrize("name", image_ops.OPS)
def test_operation_against_pillow(name):
    op = image_ops.OPS.index(name)
    for argument in ARGUMENTS.get(name, (0,)):
        for pixels in IMAGES:
            image = Image.fromarray(pixels.astype(np.uint8))
            expected = np.asarray(PILLOW[name](image, argument)).astype(int)
            found = np.asarray(APPLY(pixels.astype(np.float32), op, argument, FILL))
            np.testing.assert_array_equal(found, np.round(found))
            off = np.abs(found - expected)
            if name in MOVES:  # Pillow counts in 1/65536: a pixel on a border may be its neighbor
                assert np.mean(off.max(-1) > 0) <= 0.02, (argument, np.mean(off > 0))
            else:
                assert off.max() <= 1, (argument, off.max())
                assert np.mean(off > 0) <= 0.02, (argument, np.mean(off > 0))


def keys_of(size, seed=0):
    return jax.random.split(jax.random.key(seed), size)


@pytest.mark.parametrize(
    "policy, amount",
    [
        (policies.randaugment, (2, 9.0, 0.5)),
        (policies.trivial_augment, 31),
        (policies.autoaugment, "cifar10"),
    ],
)
def test_policies_change_most_images_in_many_ways(policy, amount):
    image = jnp.asarray(IMAGES[1].astype(np.uint8))
    batch = jax.jit(jax.vmap(lambda key: policy(key, image, amount, fill=FILL)))
    out = np.asarray(batch(keys_of(64)))
    assert out.dtype == np.float32 and out.min() >= 0 and out.max() <= 255
    np.testing.assert_array_equal(out, np.round(out))
    assert 0.5 < np.mean((out != np.asarray(image)).any((1, 2, 3))) <= 1
    assert len(np.unique(out.reshape(64, -1), axis=0)) > 20
    # An image depends on its own key only.
    np.testing.assert_array_equal(out[::-1], batch(keys_of(64)[::-1]))


def test_randaugment_without_magnitude_leaves_most_operations_without_effect():
    image = jnp.asarray(IMAGES[2].astype(np.uint8))
    batch = jax.jit(jax.vmap(lambda key: policies.randaugment(key, image, (1, 0.0, 0.0))))
    out = np.asarray(batch(keys_of(64)))
    same = np.mean((out == np.asarray(image)).all((1, 2, 3)))
    # Half are left alone; of the others autocontrast, equalize, invert, posterize: 4 of 15.
    assert 0.7 < same < 0.98


def test_autoaugments_table_is_whole():
    pairs = policies._CIFAR10
    assert len(pairs) == 25 and all(len(pair) == 2 for pair in pairs)
    known = set(policies._strengths(0.0, (8, 8)))
    for op, share, level in (entry for pair in pairs for entry in pair):
        assert op in known and 0 <= share <= 1 and level in range(10)
    # shear_x is the one operation that the search did not keep
    assert known - {op for pair in pairs for op, _, _ in pair} == {"shear_x"}


@pytest.mark.parametrize(
    ("policy", "amount"),
    [
        (policies.randaugment, (2, 9.0, 0.5)),
        (policies.trivial_augment, 31),
        (policies.autoaugment, "cifar10"),
    ],
)
def test_policies_after_colors_that_leave_the_range(policy, amount):
    """Lighting and jitter do not clip; a value below 0 is black and not white."""
    image = jnp.stack([jnp.full((8, 8), v) for v in (-9.0, -3.0, -1.0)], -1)
    keys = jax.random.split(jax.random.key(0), 64)
    several = jax.jit(jax.vmap(lambda key, image: policy(key, image, amount), (0, None)))
    np.testing.assert_array_equal(several(keys, image), several(keys, 0 * image))
