"""Receptive fields: published ones, closed forms, and what moving a single pixel changes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import layers
from jaxcnn.analysis.explain import patch_box
from jaxcnn.analysis.receptive_field import receptive_fields

# Araujo et al. 2019, "Computing receptive fields of convolutional neural networks", table 1: size
# and stride of the last feature map.
PUBLISHED = {
    "alexnet_owt": ("stage5", 195, 32),
    "vgg16": ("stage5", 212, 32),
    "resnet50_v1": ("stage4", 483, 32),
    "resnet101_v1": ("stage4", 1027, 32),
    "bn_inception": ("stage3", 699, 32),
    "inception_v3": ("stage3", 1311, 32),
    "inception_resnet_v2": ("stage3", 3039, 32),
}
SLOW = ("inception_resnet_v2", "inception_v3", "resnet101_v1")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PUBLISHED]
)
def test_published(name):
    endpoint, size, stride = PUBLISHED[name]
    found = receptive_fields(name)[endpoint]
    assert (found.size, found.stride) == ((size, size), (stride, stride))


@pytest.mark.parametrize("n", [3, 9])
def test_plain_cifar_nets_by_closed_form(n):
    """r = 1 + the sum over layers of (kernel - 1) * stride so far, for 6n + 1 convolutions."""
    kernels = [1] * (2 * n + 1) + [1] + [2] * (2 * n - 1) + [2] + [4] * (2 * n - 1)
    found = receptive_fields(f"plain{6 * n + 2}_cifar")["stage3"]
    assert found.size == (1 + 2 * sum(kernels),) * 2 and found.stride == (4, 4)


class Made(layers.Network):
    """Unequal branches, an uneven kernel, dilation by stride, padding on one side, cropping."""

    num_classes: int = 0
    min_size: int = 8

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        conv = self.conv()
        x = self.endpoint("stem", conv(2, (3, 5), (2, 1), ((0, 1), (2, 2)), name="conv1")(x))
        left = layers.max_pool(x, 3, 2, padding=1)
        right = conv(2, 1, 2, name="right")(x)
        x = self.endpoint("joined", jnp.concatenate([left, left + right], -1))
        self.endpoint("gated", x * layers.global_avg_pool(x)[:, None, None])
        x = self.endpoint("cropped", jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 3), (2, 0), (0, 0))))
        return self.logits(layers.global_avg_pool(x))


def seen_by_moving_pixels(values, side, where):
    """(first, last) row and column whose pixels change the unit at `where` of an activation.

    `values`: images f32[N,side,side,3] to f32[N,h,w,c]. Several backgrounds are tried, since a
    maximum hides what is below it.
    """
    rng = np.random.default_rng(0)
    spans = []
    for axis in (1, 2):
        changed = np.zeros(side, bool)
        for _ in range(3):
            image = rng.uniform(0.5, 1, (side, side, 3)).astype(np.float32)
            images = np.repeat(image[None], side + 1, 0)
            for i in range(side):  # a whole line of pixels, far above the others
                line = (i, i, slice(None)) if axis == 1 else (i, slice(None), i)
                images[line] += 50
            out = np.asarray(values(images))[:, where[0], where[1]]
            changed |= np.any(out[:side] != out[side], -1)
        lines = np.flatnonzero(changed)
        spans.append((lines[0], lines[-1]))
    return spans


def check_by_moving_pixels(model, side):
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, variables)  # nothing cancels
    run = jax.jit(functools.partial(jaxcnn.endpoints, model, variables))
    fields = receptive_fields(model, side)
    shapes = jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(run, jnp.zeros((1, side, side, 3)))
    )
    for name, found in fields.items():
        middle = [size // 2 for size in shapes[name][1:3]]
        seen = seen_by_moving_pixels(lambda images: run(images)[name], side, middle)  # noqa: B023
        for axis in (0, 1):
            center = found.center[axis] + found.stride[axis] * middle[axis]
            half = (found.size[axis] - 1) / 2
            expected = (max(0, center - half), min(side - 1, center + half))
            if found.size[axis] == float("inf"):
                expected = (0, side - 1)
            assert seen[axis] == expected, (name, axis)
    return fields


def test_made_network_by_moving_pixels():
    fields = check_by_moving_pixels(Made(), 24)
    assert fields["stem"].size == (3, 5) and fields["stem"].stride == (2, 1)
    assert fields["stem"].center == (1, 0)
    assert fields["gated"].size == (float("inf"),) * 2
    assert str(fields["stem"]) == "3x5/2x1" and str(fields["gated"]) == "all"


@pytest.mark.parametrize(
    "name, side, options",
    [
        ("resnet20_cifar", 40, {"blocks": (1, 1, 1)}),
        ("lenet_caffe", 28, {"channels": 3}),
        pytest.param(
            "resnext50_32x4d",
            64,
            {"groups": 4, "base_width": 8, "width": 16, "blocks": (1, 1)},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_networks_by_moving_pixels(name, side, options):
    model = jaxcnn.create_model(name, num_classes=3, **options)
    check_by_moving_pixels(model, side)


def test_field_is_where_the_gradient_is_not_zero():
    """Without a maximum and with positive weights every pixel of the field counts."""
    model = jaxcnn.create_model("resnet20_cifar", blocks=(1, 1, 1), num_classes=3)
    images = jnp.ones((1, 40, 40, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, variables)
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    variables["params"] = jax.tree.map(lambda leaf: leaf + 1, variables["params"])
    units = {"stage2": (9, 10), "stage3": (2, 9)}

    @jax.jit
    def gradients(images):
        def unit(images, name):
            return jaxcnn.endpoints(model, variables, images)[name][0, *units[name]].sum()

        return {name: jax.grad(unit)(images, name) for name in units}

    fields = receptive_fields(model, 40)
    for endpoint, gradient in gradients(images).items():
        rows, columns = np.nonzero(np.asarray(gradient)[0].any(-1))
        box = patch_box(fields[endpoint], *units[endpoint], (40, 40))
        assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == box
        assert len(rows) == (box[1] - box[0]) * (box[3] - box[2])


def test_summary_shows_it():
    rows = {row.name: row for row in jaxcnn.summarize("alexnet_owt").rows}
    assert str(rows["conv5"].field if "conv5" in rows else rows["conv5/conv"].field) == "163/16"
    last = jaxcnn.summarize("lenet5").to_dict()["rows"][-1]
    assert last["field"]["size"] is None
    assert "163/16" in str(jaxcnn.summarize("alexnet_owt"))
