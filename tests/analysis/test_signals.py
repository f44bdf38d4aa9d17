"""Signals layer by layer against closed forms, and the command on a network and on a run."""

import csv

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import layers, training
from jaxcnn.analysis import signals
from jaxcnn.analysis.signals import measure_signals
from jaxcnn.cli import main
from jaxcnn.training.state import init_variables
from jaxcnn.training.step import run_keys


class Stack(layers.Network):
    """1x1 convolutions and ReLUs, with kernels of variance gain / fan-in."""

    num_classes: int = 10
    channels: int = 256
    min_size: int = 1
    gain: float = 2.0
    depth: int = 6

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        init = nn.initializers.variance_scaling(self.gain, "fan_in", "normal")
        for i in range(self.depth):
            x = nn.relu(self.conv(kernel_init=init)(256, 1, name=f"conv{i + 1}")(x))
        return self.logits(layers.global_avg_pool(x))


def test_stages_are_named_unless_the_networks_differ():
    names = ["stem_conv", "stage1_block1/conv1", "stage1_block2/conv1", "stage2_block1/conv1", "fc"]
    found = [signals.Signal(name, 1.0, 1.0, None) for name in names]
    marks = [(1, "stem"), (2, "stage1"), (4, "stage2"), (5, "fc")]
    assert signals._stages([found, found], "variance") == marks
    assert signals._stages([found, found[:-1]], "variance") == []
    assert signals._readable([(1, "stem"), (2, "stage1"), (20, "stage2")], 58)[0] == (2, "stage1")
    assert signals._readable(marks, 5) == marks


@pytest.mark.parametrize("gain", [2.0, 1.0])
def test_he_initialization_keeps_the_variance(gain):
    """Var of layer l's output is gain * (gain / 2) ** (l - 1) for unit normal inputs and infinite
    width: He et al. 2015 (arXiv 1502.01852), equation 9."""
    model = Stack(gain=gain)
    images = np.random.default_rng(0).standard_normal((8, 4, 4, 256)).astype(np.float32)
    variables = init_variables(model, jax.random.key(0), images.shape)
    found = measure_signals(model, variables, images, np.arange(8) % 10)
    convs = [s for s in found if s.name.startswith("conv")]
    for i, s in enumerate(convs):
        assert 0.7 < s.variance / (gain * (gain / 2) ** i) < 1.3, s
    assert len(convs) == 6
    assert found[-1].name == "fc" and all(s.distance is None for s in found)


class Block(nn.Module):
    """y = x + a * W2 W1 x, with W1 = W2 = identity."""

    a: float

    @nn.compact
    def __call__(self, x):
        eye = lambda *_: jnp.eye(x.shape[-1])[None, None]  # noqa: E731
        y = layers.conv(x.shape[-1], 1, kernel_init=eye, name="conv1")(x)
        return x + self.a * layers.conv(x.shape[-1], 1, kernel_init=eye, name="conv2")(y)


class Residual(layers.Network):
    num_classes: int = 3
    channels: int = 4
    min_size: int = 1

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.check_images(images)
        block = self.rematerialize(Block)
        x = block(0.25, name="block1")(x)
        x = block(-0.5, name="block2")(x)
        return self.logits(layers.global_avg_pool(x))


@pytest.mark.parametrize("remat", [False, True])
def test_blocks_and_gradients_by_hand(remat):
    model = Residual(remat=remat)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((5, 3, 3, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    variables = init_variables(model, jax.random.key(0), images.shape)
    found = {s.name: s for s in measure_signals(model, variables, images, labels)}
    assert list(found) == [
        "block1/conv1", "block1/conv2", "block1", "block2/conv1", "block2/conv2", "block2", "fc",
    ]  # fmt: skip
    assert found["block1"].distance == pytest.approx(0.25, rel=1e-5)
    assert found["block2"].distance == pytest.approx(0.5, rel=1e-5)
    assert found["block1/conv2"].variance == pytest.approx(images.var(), rel=1e-5)
    assert found["block2/conv1"].variance == pytest.approx((1.25 * images).var(), rel=1e-5)
    # the gradient of mean cross-entropy with respect to the classifier: features' (p - t)
    features = 0.625 * images.mean((1, 2))
    fc = jax.tree.map(np.asarray, variables["params"]["fc"])
    p = np.asarray(jax.nn.softmax(features @ fc["kernel"] + fc["bias"]))
    t = np.eye(3)[labels]
    at_features = (p - t) / 5
    expected = np.linalg.norm(features.T @ at_features)
    assert found["fc"].gradient_norm == pytest.approx(expected, rel=1e-4)
    back = np.einsum("nk,ck->nc", at_features, fc["kernel"])  # at the mean over the places
    kernel = -0.5 * np.einsum("nc,nd->cd", 1.25 * images.mean((1, 2)), back)
    assert found["block2/conv2"].gradient_norm == pytest.approx(np.linalg.norm(kernel), rel=1e-4)


@pytest.mark.parametrize(
    "name, size, expected",
    [("resnet20_cifar", 32, 7), ("se_resnet18", 32, 5), ("dpn68", 32, 0), ("inception_v3", 75, 6)],
)
def test_any_network_has_signals(name, size, expected):
    """Traced only: every convolution is there, gates are no blocks, blocks of one shape are."""
    model = jaxcnn.create_model(name, num_classes=3)
    shape = (2, size, size, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    seen = {}

    def measure(variables):
        from jaxcnn.analysis import signals as module

        with nn.intercept_methods(module._recorder(seen)):
            model.apply(variables, jnp.zeros(shape), train=True, mutable=["batch_stats"],
                        rngs={"dropout": jax.random.key(0)})  # fmt: skip

    jax.eval_shape(measure, shapes)
    kernels = [p for p, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
               if p[-1].key == "kernel" and "aux" not in str(p)]  # fmt: skip
    gates = [n for n in seen if n.endswith("/se")]
    blocks = [n for n, values in seen.items() if "distance" in values]
    assert not gates and sum("variance" in values for values in seen.values()) == len(kernels)
    assert len(blocks) == expected


def test_command(tmp_path, capsys):
    config = training.default_config()
    config.train.length_steps, config.train.length_epochs = 4, None
    config.checkpoint.every_steps, config.checkpoint.every_epochs = 2, None
    workdir = tmp_path / "run"
    for _ in training.train(config, workdir):
        pass
    picture, table = tmp_path / "s.png", tmp_path / "s.csv"
    argv = ["signals", str(workdir), "--batch-size", "4", "--out", str(picture)]
    assert main([*argv, "--csv", str(table)]) == 0
    out = capsys.readouterr().out
    assert "gradient norm" in out and picture.read_bytes()[:4] == b"\x89PNG"
    with open(table) as stream:
        rows = list(csv.DictReader(stream))
    states = list(dict.fromkeys(row["state"] for row in rows))
    begin = ["run; before training", "run; step 2", "run; step 4"]
    assert states[:3] == begin
    # before training: the weights that the run itself began with
    first = [float(r["variance"]) for r in rows if r["state"] == begin[0]]
    model = jaxcnn.create_model(config.model.name, num_classes=10)
    test = jaxcnn.data.catalog.load("digits", "test[:4]")
    images = (test.images / np.float32(255) - np.float32(test.mean)) / np.float32(test.std)
    variables = init_variables(model, run_keys(config.train.seed)[0], images.shape)
    state = model.apply(variables, images, mutable=["intermediates"], capture_intermediates=True)
    made = state[1]["intermediates"]
    assert first[0] == pytest.approx(float(np.var(made["conv1"]["__call__"][0])), rel=1e-5)
    later = [float(r["variance"]) for r in rows if r["state"] == begin[2]]
    assert not np.allclose(first, later, rtol=1e-3)

    for wrong, word in [
        (["lenet6"], "did you mean"),
        ([str(tmp_path)], "is not a run directory"),
        (["lenet5", "--batch-size", "0"], "batch is 0"),
        (["lenet5", "--out", "s.gif"], ".png"),
    ]:
        assert main(["signals", *wrong]) == 2
        assert word in capsys.readouterr().err
