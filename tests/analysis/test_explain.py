"""Grad-CAM, backward views and strongest patches on networks whose answers are known by hand."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn import layers, ops, weights
from jaxcnn.analysis import explain, explain_pictures
from jaxcnn.analysis.receptive_field import receptive_fields
from jaxcnn.analysis.rewiring import evaluate
from jaxcnn.cli import main
from tests.drawing import draw_images, draw_variables


class Two(layers.Network):
    """ReLU(W1 x) as maps "stage1", ReLU(W2 .) as "stage2", global average, dense."""

    num_classes: int = 2
    channels: int = 2
    min_size: int = 1

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        conv = self.conv()
        x = self.endpoint("stage1", nn.relu(conv(2, 1, name="conv1")(x)))
        x = self.endpoint("stage2", nn.relu(conv(2, 1, name="conv2")(x)))
        return self.logits(layers.global_avg_pool(x))


W1 = np.array([[1.0, -2.0], [3.0, 1.0]], np.float32)  # (in, out)
W2 = np.array([[1.0, -1.0], [-2.0, 3.0]], np.float32)
FC = np.array([[2.0, -1.0], [-3.0, 1.0]], np.float32)
BY_HAND = {
    "params": {
        "conv1": {"kernel": W1[None, None]},
        "conv2": {"kernel": W2[None, None]},
        "fc": {"kernel": FC, "bias": np.zeros(2, np.float32)},
    }
}


def relu(x):
    return np.maximum(x, 0)


def test_grad_cam_by_hand():
    images = draw_images((3, 4, 5, 2))
    classes = [0, 1, 0]
    x1 = relu(images @ W1)
    x2 = relu(x1 @ W2)
    got = jax.jit(lambda v, x, c: explain.grad_cam(Two(), v, x, "stage2", c))(
        BY_HAND, images, np.array(classes)
    )
    # the mean gradient of a map is its weight in the classifier over the number of places
    expected = [relu(x2[n] @ FC[:, c] / 20) for n, c in enumerate(classes)]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.shape == (3, 4, 5) and np.any(got > 0) and np.any(got == 0)
    # one layer down the gradient passes the second ReLU
    grads = [((x2[n] > 0) * FC[:, c]) @ W2.T / 20 for n, c in enumerate(classes)]
    lower = explain.grad_cam(Two(), BY_HAND, images, "stage1", classes)
    expected = [relu(x1[n] @ g.mean((0, 1))) for n, g in enumerate(grads)]
    np.testing.assert_allclose(lower, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided"])
def test_rules_by_closed_form(rule):
    images = draw_images((2, 3, 3, 2), seed=1)
    z1 = images @ W1
    z2 = relu(z1) @ W2
    signal = np.asarray(draw_images(z2.shape, seed=2))

    def back(z, g):
        passed = relu(g) if rule != "gradient" else g
        return passed if rule == "deconvnet" else passed * (z > 0)

    expected = back(z1, back(z2, signal) @ W2.T) @ W1.T
    got = explain.backward_view(Two(), BY_HAND, images, {"stage2": signal}, rule)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_mistakes_name_what_there_is():
    images = draw_images((1, 3, 3, 2))
    with pytest.raises(ValueError, match="did you mean 'stage1'"):
        explain.grad_cam(Two(), BY_HAND, images, "stag1", [0])
    with pytest.raises(ValueError, match=r"no endpoint 'pre_logits'.* are stage1, stage2"):
        explain.grad_cam(Two(), BY_HAND, images, "pre_logits", [0])
    with pytest.raises(ValueError, match="rule is 'deconv'"):
        explain.backward_view(Two(), BY_HAND, images, {}, "deconv")
    with pytest.raises(ValueError, match="no endpoint 'stage1'"):
        explain.grad_cam(WithoutEndpoints(), {}, images, "stage1", [0])


class WithoutEndpoints(nn.Module):
    """As a beginner writes it."""

    @nn.compact
    def __call__(self, images, train=False):
        return images.mean((1, 2))


SMALL = [
    ("lenet_caffe", 28, {}),
    ("alexnet_2gpu", 227, {"num_classes": 3}),
    ("resnet20_cifar", 16, {"blocks": (1, 1), "remat": True, "min_size": 8}),
    ("se_resnet18", 32, {"blocks": (1, 1), "width": 16, "num_classes": 3}),
    ("dpn68", 32, {"num_classes": 3}),
]


@pytest.mark.parametrize("name, side, options", SMALL)
def test_every_relu_is_found(name, side, options):
    """Whatever is inside of what: groups, gates, rematerialized blocks, custom derivatives."""
    model = jaxcnn.create_model(name, **options)
    channels = model.channels
    shape = (1, side, side, channels)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))

    def run(variables, images):
        return model.apply(variables, images, train=False)

    with ops.use("reference"):  # as `explain` traces networks
        closed = jax.make_jaxpr(run)(variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    seen = []

    def relu_seen(x):
        seen.append(x.shape)
        return jnp.tanh(x)

    again = jax.make_jaxpr(
        lambda *args: evaluate(closed.jaxpr, closed.consts, args, relu=relu_seen)
    )(*(v.aval for v in closed.jaxpr.invars))
    assert str(closed).count("name=relu") > 0 and seen
    assert "name=relu" not in str(again)


def test_views_of_a_whole_network_agree_with_its_gradient():
    model = jaxcnn.create_model("resnet20_cifar", blocks=(1, 1), num_classes=3, remat=True)
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, 32, 32, 3))
    seed = np.eye(3, dtype=np.float32)[:2]
    got = jax.jit(
        lambda v, x: [
            explain.backward_view(model, v, x, {"logits": seed}, rule)
            for rule in ("gradient", "guided")
        ]
    )(variables, images)
    true = jax.jit(jax.grad(lambda x: jnp.vdot(model.apply(variables, x, train=False), seed)))
    np.testing.assert_allclose(got[0], true(images), rtol=1e-4, atol=1e-6)
    assert not np.allclose(got[0], got[1])


class Finder(layers.Network):
    """One 5x5 convolution with stride 2 and padding, which answers to a cross."""

    num_classes: int = 2
    channels: int = 1
    min_size: int = 8

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        x = self.endpoint("stage1", nn.relu(self.conv()(2, 5, 2, 1, name="conv1")(x)))
        return self.logits(layers.global_avg_pool(x))


def test_patches_find_a_planted_pattern():
    cross = np.zeros((5, 5), np.float32)
    cross[2, :] = cross[:, 2] = 1
    kernel = np.stack([cross, -cross], -1)[:, :, None] - 0.1
    model = Finder()
    fc = {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    variables = {"params": {"conv1": {"kernel": kernel}, "fc": fc}}
    images = np.zeros((3, 21, 21, 1), np.float32)
    images[1, 9:14, 3:8, 0] = cross
    images[2, 9:14, 3:8, 0] = 0.5 * cross
    maps = jaxcnn.endpoints(model, variables, images)["stage1"]
    values, rows, columns = map(np.asarray, explain.peaks(maps))
    [(channel, order)] = explain.strongest(values, 1, 2)
    assert channel == 0 and order == [1, 2]
    seen = receptive_fields(model, 21)["stage1"]
    top, bottom, left, right = explain.patch_box(seen, rows[1, 0], columns[1, 0], (21, 21))
    np.testing.assert_array_equal(images[1, top:bottom, left:right, 0], cross)
    assert explain.patch_box(seen, 0, 9, (21, 21)) == (0, 4, 17, 21)  # cut off at the border
    pixels = np.ones((21, 21, 1))
    patch = explain_pictures._patch(pixels, (0, 4, 17, 21), seen, 7)  # as large as the others
    assert patch.shape == (*map(int, seen.size), 1) and (patch[-4:, :4] == 1).all()
    assert patch.sum() == 16 + 7 * (patch.size - 16)
    seed = np.zeros(maps.shape, np.float32)
    seed[1, rows[1, 0], columns[1, 0], 0] = 1
    view = explain.backward_view(model, variables, images, {"stage1": seed}, "deconvnet")
    np.testing.assert_allclose(view[1, 9:14, 3:8, 0], kernel[..., 0, 0])
    assert np.count_nonzero(view) == 25


def test_command(tmp_path, capsys):
    how = weights.Preprocessing(32, 1.0, "bilinear", (0.5,), (0.5,))
    variables = draw_variables(jaxcnn.create_model("lenet5"), (1, 32, 32, 1))
    weights.save(tmp_path / "w.safetensors", "lenet5", variables, preprocessing=how)
    rng = np.random.default_rng(0)
    for i in range(6):  # more than one batch, the last one not full
        Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(tmp_path / f"{i}.png")
    given = [str(tmp_path / "w.safetensors"), str(tmp_path)]
    folder = tmp_path / "views"
    assert main(["predict", *given, "--explain", str(folder), "--json", "--top", "1"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    written = {path.name for path in folder.iterdir()}
    assert {str(folder / name) for name in written} == set(err.split())
    stages = [name for name in written if name.startswith("patches")]
    assert {f"{i}_gradcam.png" for i in range(6)} == written - set(stages) and len(stages) >= 2
    assert all(Image.open(folder / name).size[0] > 400 for name in written)
    assert len(rows) == 6
    assert main(["predict", *given, "--explain", given[0]]) == 2
    assert "which is not a directory" in capsys.readouterr().err
