"""3x3 convolution by Winograd's algorithm: against the definition, and when it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import all_three, assert_same_convolution, derived, draw, options_of
from whole_step import float64 as in_float64

from jaxcnn.ops import conv, conv_cpu, conv_winograd, reference
from jaxcnn.runtime import compilation


# The rest of a tile of 2x2 is left over below, beside, in both, in none; every padding.
@pytest.mark.parametrize(
    "size, channels, features, padding",
    [
        ((6, 8), 3, 5, 1),
        ((7, 8), 2, 3, 1),
        ((6, 5), 4, 1, 0),
        ((5, 5), 1, 4, 2),
        ((4, 7), 3, 2, ((2, 0), (0, 1))),
        ((3, 3), 2, 2, 0),
    ],
)
def test_value_and_both_gradients(size, channels, features, padding, float64):
    x, w = draw(2, *size, channels), draw(3, 3, channels, features, seed=1)
    assert_same_convolution(conv_winograd, x, w, **options_of(1, padding))


def test_float32_is_as_exact_as_the_definition():
    x, w = draw(2, 14, 14, 128), draw(3, 3, 128, 128, seed=1) / 34
    g = draw(2, 14, 14, 128, seed=2)

    def run(implementation, dtype):
        given = (jnp.asarray(a, dtype) for a in (x, w, g))
        return all_three(implementation, *given, **options_of(1, 1))

    plain = derived(reference.conv)
    with in_float64():
        exact = [np.asarray(a) for a in run(plain, np.float64)]
    ours, usual = run(conv_winograd, np.float32), run(plain, np.float32)
    for a, b, want in zip(ours, usual, exact, strict=True):
        error, usual_error = (np.abs(y - want).max() / np.abs(want).max() for y in (a, b))
        assert error < 4 * usual_error and error < 2e-6


@pytest.mark.parametrize(
    "images, channels, change, chosen",
    [
        ((4, 14, 14), 128, {}, True),
        ((1, 28, 28), 128, {}, True),
        ((2, 14, 14), 128, {}, True),  # 98 tiles
        ((5, 7, 7), 128, {}, False),  # 80
        ((4, 14, 14), 96, {}, True),
        ((3, 14, 14), 96, {}, False),  # 147
        ((4, 14, 14), 64, {}, False),
        ((4, 14, 14), 128, {"kernel": 1, "padding": 0}, False),
        ((4, 14, 14), 128, {"kernel": 5, "padding": 2}, False),
        ((4, 28, 28), 128, {"stride": 2}, False),
        ((4, 14, 14), 128, {"padding": 3}, False),
        ((4, 14, 14), 128, {"groups": 2}, False),
        ((4, 14, 14), 128, {"dtype": jnp.bfloat16}, False),
    ],
)
def test_when_it_is_chosen(images, channels, change, chosen):
    change = {"kernel": 3, "stride": 1, "padding": 1, "groups": 1, "dtype": jnp.float32} | change
    kernel = (change["kernel"],) * 2
    x = jax.ShapeDtypeStruct((*images, channels), change["dtype"])
    w = jax.ShapeDtypeStruct((*kernel, channels // change["groups"], 128), change["dtype"])
    options = options_of(change["stride"], change["padding"], change["groups"])
    assert (conv_cpu.choose(x, w, **options).conv is conv_winograd.conv) == chosen


def test_a_gradient_keeps_the_images_and_not_their_transforms():
    """Each further convolution adds its input to the memory, and not 4 times as much."""
    images = jax.ShapeDtypeStruct((4, 28, 28, 128), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 128), jnp.float32)
    assert conv_cpu.choose(images, kernel, **options_of(1, 1)).conv is conv_winograd.conv

    def loss(kernels, x):
        for w in kernels:
            x = conv(x, w, **options_of(1, 1))
        return (x**2).sum()

    def temporaries(depth):
        compiled = compilation.jit(jax.grad(loss)).lower([kernel] * depth, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    added = (temporaries(6) - temporaries(3)) / 3
    assert added < 2.5 * images.size * images.dtype.itemsize
