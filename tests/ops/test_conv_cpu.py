"""Convolutions on a CPU: each implementation against the reference and the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import assert_same_convolution, close, derived, draw, options_of

from jaxcnn import ops
from jaxcnn.ops import conv_cpu, conv_winograd, reference

pytestmark = pytest.mark.usefixtures("float64")

# Few and many groups have implementations of their own; strides, odd sizes, uneven padding in all.
CONVOLUTIONS = [
    # size, in, out, kernel, stride, padding, groups
    ((9, 9), 6, 8, (3, 3), 1, 1, 1),
    ((13, 12), 3, 4, (5, 5), 4, ((0, 3), (0, 3)), 1),
    ((11, 8), 4, 6, (1, 7), 1, (0, 3), 1),
    ((6, 8), 5, 4, (1, 1), 1, 0, 1),
    ((7, 9), 5, 4, (1, 1), 2, 0, 1),
    ((7, 9), 5, 4, (1, 1), (1, 3), 0, 1),
    ((5, 6), 5, 4, (1, 1), 1, 1, 1),
    ((9, 12), 1, 6, (5, 5), 1, 0, 1),
    ((8, 7), 3, 4, (3, 3), 1, 1, 1),
    ((5, 6), 2, 3, (2, 4), 1, ((1, 0), (0, 3)), 1),
    ((4, 3), 15, 2, (3, 3), 1, 1, 1),
    ((3, 3), 1, 1, (3, 3), 1, 0, 1),
    ((9, 7), 6, 4, (3, 3), 2, 1, 2),
    ((8, 9), 6, 12, (5, 3), (1, 2), (2, 1), 3),
    ((7, 7), 8, 8, (3, 3), 1, 1, 4),
    ((9, 7), 16, 16, (3, 3), 2, 1, 8),
    ((8, 8), 12, 24, (3, 3), 2, ((1, 0), (0, 1)), 6),
    ((7, 8), 32, 32, (3, 3), 1, 1, 32),
    ((10, 10), 3, 24, (7, 7), 2, 3, 3),
    ((5, 6), 160, 10, (3, 3), 1, 1, 5),  # wide groups
    # Pixels enough to go in blocks: two, one, and as many as groups.
    ((24, 22), 64, 32, (3, 3), 1, 1, 16),
    ((46, 45), 12, 24, (3, 3), 2, ((1, 0), (0, 1)), 6),
    ((23, 23), 100, 5, (1, 3), 1, (0, 1), 5),
    # Winograd's.
    ((14, 14), 128, 128, (3, 3), 1, 1, 1),
    # Windows larger than the images; than the outputs, few and many of them.
    ((2, 2), 17, 8, (3, 3), 1, 1, 1),
    ((1, 4), 6, 3, (3, 5), (1, 2), ((1, 1), (0, 3)), 1),
    ((4, 5), 16, 6, (3, 3), 2, ((1, 0), (0, 1)), 1),
    ((5, 20), 16, 4, (5, 3), 1, 0, 1),
    ((1, 3), 16, 4, (3, 3), 1, 0, 1),  # no output
]
EVERY = pytest.mark.parametrize(
    "size, channels, features, kernel, stride, padding, groups", CONVOLUTIONS
)


def value_and_gradients(x, w, g, **options):
    y, pull = jax.vjp(functools.partial(ops.conv, **options), x, w)
    return y, *pull(g)


@EVERY
def test_value_and_both_gradients(size, channels, features, kernel, stride, padding, groups):
    x, w = draw(2, *size, channels), draw(*kernel, channels // groups, features, seed=1)
    options = {"stride": stride, "padding": padding, "groups": groups}
    with ops.use("reference"):
        shape = jax.eval_shape(functools.partial(ops.conv, **options), x, w).shape
        g = draw(*shape, seed=2)
        want = jax.jit(functools.partial(value_and_gradients, **options))(x, w, g)
    found = jax.jit(functools.partial(value_and_gradients, **options))(x, w, g)
    for a, b in zip(found, want, strict=True):
        close(a, b)


@pytest.mark.parametrize("size, channels, features, kernel, stride, padding, groups", [
    CONVOLUTIONS[i] for i in (1, 4, 7, 9, 13, 16, 24, 25, 26, 27)
])  # fmt: skip
def test_the_chosen_one_is_the_definition(
    size, channels, features, kernel, stride, padding, groups
):
    x, w = draw(2, *size, channels), draw(*kernel, channels // groups, features, seed=1)
    options = options_of(stride, padding, groups)
    assert_same_convolution(conv_cpu.choose(x, w, **options), x, w, **options)


GROUPED = [
    ((8, 9), 6, 12, (5, 3), (1, 2), (2, 1), 3),
    ((8, 8), 12, 24, (3, 3), 2, ((1, 0), (0, 1)), 6),
    ((5, 6), 160, 10, (3, 3), 1, 1, 5),
]


@pytest.mark.parametrize("implementation", [conv_cpu.block_conv, conv_cpu.patch_conv])
@pytest.mark.parametrize("size, channels, features, kernel, stride, padding, groups", GROUPED)
def test_either_grouped_one_serves_all_groups(
    implementation, size, channels, features, kernel, stride, padding, groups
):
    x, w = draw(2, *size, channels), draw(*kernel, channels // groups, features, seed=1)
    options = options_of(stride, padding, groups)
    assert_same_convolution(derived(implementation), x, w, **options)


@pytest.mark.parametrize("fold", [1, 3, 5, 16])
def test_any_fold(fold):
    x, w = draw(1, 5, 11, 2), draw(3, 3, 2, 3, seed=1)
    padding = ((1, 1), (0, 2))
    y = conv_cpu.folded_conv(jnp.asarray(x), jnp.asarray(w), padding=padding, fold=fold)
    close(y, reference.conv(x, w, padding=padding))


# One of each implementation: grouped in patches, in blocks, 1x1, folded, Winograd's, of a window
# that is larger than the images, XLA's own.
KINDS = {
    "patches": ((5, 6), 8, 8, (3, 3), 2, 1, 8),
    "blocks": ((5, 6), 4, 4, (3, 3), 1, 1, 2),
    "pointwise": ((5, 6), 5, 4, (1, 1), 2, 0, 1),
    "folded": ((5, 6), 3, 4, (3, 3), 1, 1, 1),
    "winograd": ((14, 14), 128, 128, (3, 3), 1, 1, 1),
    "small": ((2, 2), 16, 4, (3, 3), 1, 1, 1),
    "native": ((7, 6), 3, 4, (3, 3), 2, 1, 1),
}


def kind(name):
    size, channels, features, kernel, *rest = KINDS[name]
    options = dict(zip(("stride", "padding", "groups"), rest))
    x = draw(2, *size, channels)
    w = draw(*kernel, channels // options["groups"], features, seed=1) / 10
    return functools.partial(ops.conv, **options), x, w


def agree(function, *args):
    """The function, compiled, against itself with the reference."""
    found = jax.jit(lambda *args: function(*args))(*args)
    with ops.use("reference"):
        want = jax.jit(lambda *args: function(*args))(*args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        scale = float(jnp.abs(b).max())
        assert scale > 0
        close(a / scale, b / scale, rtol=1e-10, atol=1e-10)


def test_kinds_are_what_they_are_called():
    chosen = {}
    for name in KINDS:
        conv, x, w = kind(name)
        options = options_of(*(conv.keywords[key] for key in ("stride", "padding", "groups")))
        one = conv_cpu.choose(x, w, **options).conv
        chosen[name] = getattr(one, "func", one)
    assert chosen == {
        "patches": conv_cpu.patch_conv, "blocks": conv_cpu.block_conv,
        "pointwise": conv_cpu.pointwise_conv, "folded": conv_cpu.folded_conv,
        "winograd": conv_winograd.conv, "small": conv_cpu.patch_conv, "native": reference.conv,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("images", "size", "padding", "name"),
    [(128, 2, 1, "winograd"), (64, 2, 1, "patches"), (128, 1, 1, "patches"), (64, 1, 0, "plain")],
)
def test_small_maps_of_many_channels(images, size, padding, name):
    """Winograd's tiles of 2x2 from enough images on; without an output there is nothing to do."""
    x = jax.ShapeDtypeStruct((images, size, size, 512), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)
    assert conv_cpu.choose(x, w, **options_of(1, padding)).name == name


@pytest.mark.parametrize("name", KINDS)
def test_forward_mode_and_second_derivatives(name):
    conv, x, w = kind(name)
    tx, tw = draw(*x.shape, seed=3), draw(*w.shape, seed=4)

    def loss(x, w):
        return jnp.sum(jnp.sin(conv(x, w)))

    def second(x, w):
        return jax.jvp(jax.grad(loss, (0, 1)), (x, w), (tx, tw))

    agree(lambda x, w: jax.jvp(conv, (x, w), (tx, tw)), x, w)
    agree(second, x, w)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_third_derivatives(name):
    conv, x, w = kind(name)
    tx, tw = draw(*x.shape, seed=3), draw(*w.shape, seed=4)

    def along(x, w):
        return jax.jvp(lambda x, w: jnp.sum(jnp.sin(conv(x, w))), (x, w), (tx, tw))[1]

    def third(x, w):
        return jax.grad(lambda x, w: jax.jvp(along, (x, w), (tw.mean() * tx, tw))[1], (0, 1))(x, w)

    agree(third, x, w)


# Winograd's is slow, since the reference becomes a grouped convolution.
MAPPED = [
    pytest.param(
        name,
        axes,
        marks=[pytest.mark.slow] * (None in axes or (name, axes) == ("winograd", (1, -1))),
    )
    for name in KINDS
    for axes in [(0, 0), (1, -1), (0, None), (None, 0)]
]


@pytest.mark.parametrize(("name", "mapped"), MAPPED)
def test_vmap_of_one_or_both(name, mapped):
    """Value and gradients of networks side by side, and of many inputs of one network."""
    conv, x, w = kind(name)
    several = [
        a if axis is None else np.stack([a, 0.5 * a[::-1], a + 1], axis)
        for a, axis in zip((x, w), mapped)
    ]

    def run(x, w):
        y, pull = jax.vjp(conv, x, w)
        return y, pull(jnp.cos(y))

    agree(jax.vmap(run, mapped), *several)


@pytest.mark.parametrize("name", ["patches", "pointwise", "folded", "native"])
def test_vmap_of_vmap(name):
    conv, x, w = kind(name)
    xs, ws = np.stack([x, 2 * x]), np.stack([w, w[::-1], 3 * w])
    run = jax.vmap(jax.vmap(jax.grad(lambda x, w: jnp.sum(conv(x, w) ** 3), (0, 1)), (0, None)),
                   (None, 0))  # fmt: skip
    agree(run, xs, ws)


def test_gradient_of_one_member_alone():
    """Gradients under `vmap` with respect to one argument, with the other mapped or not."""
    conv, x, w = kind("native")
    xs = np.stack([x, 2 * x, x - 1])
    agree(jax.vmap(jax.grad(lambda w, x: jnp.sum(conv(x, w) ** 2)), (None, 0)), w, xs)
    agree(jax.vmap(jax.grad(lambda x, w: jnp.sum(conv(x, w) ** 2)), (0, None)), xs, w)


def test_gradient_by_differences():
    """A check of the reference's own gradients as well."""
    x, w, g = draw(1, 5, 4, 10), draw(3, 3, 2, 5, seed=1), draw(1, 3, 2, 5, seed=2)
    options = {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 5}

    def loss(x, w):
        return jnp.sum(ops.conv(x, w, **options) * g)

    gradients = jax.grad(loss, (0, 1))(x, w)
    for argument, gradient in enumerate(gradients):
        direction = draw(*(x, w)[argument].shape, seed=10)
        ends = []
        for sign in (1, -1):
            moved = [x, w]
            moved[argument] = moved[argument] + sign * 1e-4 * direction
            ends.append(float(loss(*moved)))
        slope = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-8)


@pytest.mark.parametrize("name", ["patches", "blocks", "pointwise", "folded", "native"])
def test_symbolic_batch(name):
    """Compiled for any number of images, value and gradients."""
    conv, x, w = kind(name)
    (batch,) = jax.export.symbolic_shape("n")

    def run(x, w):
        y, pull = jax.vjp(conv, x, w)
        return y, pull(jnp.cos(y))

    shapes = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), w
    exported = jax.export.export(jax.jit(run))(*shapes)
    with ops.use("reference"):
        want = jax.jit(lambda *args: run(*args))(x, w)
    for a, b in zip(jax.tree.leaves(exported.call(x, w)), jax.tree.leaves(want), strict=True):
        close(a, b)
