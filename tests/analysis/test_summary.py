"""The per-layer table: VGG-16's against the published one row by row, and shapes of a made net."""

import json
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import layers
from jaxcnn.analysis.trace import input_size_of
from jaxcnn.reporting.tables import markdown_table, text_table

# Output, values in memory and weights of each row of VGG-16: the table of the Stanford course
# cs231n, which counts the input and the output of every convolution, pool and dense layer once.
VGG16 = [
    ("input", (224, 224, 3), 150_528, 0),
    ("conv 3x3", (224, 224, 64), 3_211_264, 1_728),
    ("conv 3x3", (224, 224, 64), 3_211_264, 36_864),
    ("max pool 2x2/2", (112, 112, 64), 802_816, 0),
    ("conv 3x3", (112, 112, 128), 1_605_632, 73_728),
    ("conv 3x3", (112, 112, 128), 1_605_632, 147_456),
    ("max pool 2x2/2", (56, 56, 128), 401_408, 0),
    ("conv 3x3", (56, 56, 256), 802_816, 294_912),
    ("conv 3x3", (56, 56, 256), 802_816, 589_824),
    ("conv 3x3", (56, 56, 256), 802_816, 589_824),
    ("max pool 2x2/2", (28, 28, 256), 200_704, 0),
    ("conv 3x3", (28, 28, 512), 401_408, 1_179_648),
    ("conv 3x3", (28, 28, 512), 401_408, 2_359_296),
    ("conv 3x3", (28, 28, 512), 401_408, 2_359_296),
    ("max pool 2x2/2", (14, 14, 512), 100_352, 0),
    ("conv 3x3", (14, 14, 512), 100_352, 2_359_296),
    ("conv 3x3", (14, 14, 512), 100_352, 2_359_296),
    ("conv 3x3", (14, 14, 512), 100_352, 2_359_296),
    ("max pool 2x2/2", (7, 7, 512), 25_088, 0),
    ("dense", (1, 1, 4096), 4_096, 102_760_448),
    ("dense", (1, 1, 4096), 4_096, 16_777_216),
    ("dense", (1000,), 1_000, 4_096_000),
]


def test_vgg16_row_by_row():
    summary = jaxcnn.summarize("vgg16")
    rows = [(row.kind, row.shape, row.activations, row.weights) for row in summary.rows]
    assert rows == VGG16
    for row in summary.rows:  # a bias per channel; one multiply-add per weight and position
        if row.weights:
            assert row.params == row.weights + row.shape[-1]
            positions = row.shape[0] * row.shape[1] if len(row.shape) == 3 else 1
            assert row.macs == row.weights * positions
    assert summary.total("params") == 138_357_544
    assert summary.total("weights") == 138_344_128
    assert summary.total("activations") == 15_237_608  # the slide's 24M is wrong
    assert summary.total("activation_bytes") == 60_950_432
    assert summary.total("macs") == 15_470_264_320
    assert "activations: 60.95 MB per image" in str(summary)


@pytest.mark.parametrize(
    "name, activations",
    [
        ("vgg_a", 9_116_136),
        ("vgg_a_lrn", 9_116_136),
        ("vgg_a_bn", 9_116_136),
        ("vgg_b", 13_933_032),
        ("vgg_c", 15_237_608),
        ("vgg_e", 16_542_184),
    ],
)
def test_activations_of_the_other_vgg_nets(name, activations):
    assert jaxcnn.summarize(name).total("activations") == activations


class Block(nn.Module):
    norm_act: object

    @nn.compact
    def __call__(self, x):
        x = layers.ConvBNAct(8, 3, 2, 1, groups=2, norm_act=self.norm_act, name="unit")(x)
        return layers.SqueezeExcite(2, name="se")(x)


class Made(layers.Network):
    """Everything a row can be: helper methods, a remat block, groups, pools, an auxiliary head."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = self.rematerialize(Block)(self.norm_act(train), name="stage1")(images)
        if self.wants_endpoints():
            self.endpoint("aux1", nn.Dense(3, name="aux1_fc")(layers.global_avg_pool(x)))
        x = self.stage2(layers.local_response_norm(x))
        return self.logits(layers.global_avg_pool(x))

    def stage2(self, x):
        x = layers.avg_pool(self.conv()(4, (1, 3), (1, 2), (0, 1), name="stage2")(x), 3, 1, 1)
        return layers.max_pool(x, 3, 2, ceil_mode=True)


@pytest.mark.parametrize("remat", [False, True])
def test_rows_of_a_made_network(remat):
    summary = jaxcnn.summarize(Made(num_classes=5, remat=remat), (12, 16, 8))
    rows = [(r.name, r.kind, r.shape, r.activations, r.params, r.macs) for r in summary.rows]
    assert rows == [
        ("input", "input", (12, 16, 8), 1536, 0, 0),
        ("stage1/unit/conv", "conv 3x3/2, 2 groups", (6, 8, 8), 384, 288, 48 * 288),
        ("stage1/unit/bn", "batch norm", (6, 8, 8), 0, 16, 0),
        ("stage1/se/pool", "global average pool", (8,), 8, 0, 0),
        ("stage1/se/fc1", "dense", (4,), 4, 36, 32),
        ("stage1/se/fc2", "dense", (8,), 8, 40, 32),
        ("norm", "LRN", (6, 8, 8), 0, 0, 0),
        ("stage2", "conv 1x3/1x2", (6, 4, 4), 96, 96, 24 * 96),
        ("pool1", "average pool 3x3", (6, 4, 4), 96, 0, 0),
        ("pool2", "max pool 3x3/2", (3, 2, 4), 24, 0, 0),
        ("pool3", "global average pool", (4,), 4, 0, 0),
        ("fc", "dense", (5,), 5, 25, 20),
    ]
    assert summary.aux_params == 27
    assert "auxiliary heads (training only): 27 more parameters" in str(summary)


class Other(nn.Module):
    """Layers that the networks of this package do not have."""

    dtype: Any = None

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.GroupNorm(2, name="group")(nn.Conv(4, (3, 3), name="first")(images))
        x = nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(x)
        blocks = nn.scan(Step, {"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(5, name="fc")(x.mean((1, 2)))


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Conv(4, (3, 3), name="conv")(x), None


def test_rows_of_other_layers():
    summary = jaxcnn.summarize(Other(), np.int64(8))
    rows = [(row.name, row.kind, row.params, row.macs) for row in summary.rows]
    assert rows == [
        ("input", "input", 0, 0),
        ("first", "conv 3x3", 112, 64 * 108),
        ("group", "norm", 8, 0),
        ("up", "conv 2x2", 68, 256 * 64),
        ("blocks/conv", "conv 3x3", 3 * 148, 3 * 256 * 144),
        ("pool", "global average pool", 0, 0),
        ("fc", "dense", 25, 20),
    ]
    assert summary.rows[0].activation_bytes == 4 * 192 and summary.aux_params == 0
    assert summary.rows[2].field is not None
    assert summary.rows[3].field is summary.rows[4].field is None


def test_a_module_has_the_input_size_of_the_network_that_it_is_most_like():
    sizes = {"lenet5": (32, 32, 1), "resnet20_cifar": (32, 32, 3), "resnet18": (224, 224, 3)}
    for name, size in sizes.items():
        model = jaxcnn.create_model(name, num_classes=7)
        assert input_size_of(model) == size
    assert input_size_of(model, 64) == (64, 64, 3)


def test_forms():
    summary = jaxcnn.summarize("lenet5", 28, num_classes=3)
    data = json.loads(summary.to_json())
    assert data == summary.to_dict()
    assert data["model"] == "lenet5_modern" and data["input_size"] == [28, 28, 1]
    assert data["totals"]["macs"] == sum(row["macs"] for row in data["rows"])
    assert data["rows"][-1]["shape"] == [3]
    assert (
        "| conv1 | conv 5x5 | 28x28x6 | 5 | 4,704 | 156 | 150 | 117,600 |" in summary.to_markdown()
    )
    half = jaxcnn.summarize("lenet5", dtype=jnp.bfloat16)
    assert half.total("activation_bytes") == 2 * half.total("activations") + 2 * 10  # the logits


def test_mistakes():
    with pytest.raises(ValueError, match="did you mean 'lenet5'"):
        jaxcnn.summarize("lenet6")
    with pytest.raises(ValueError, match="input_size is missing"):
        jaxcnn.summarize(Made())
    with pytest.raises(ValueError, match=r"input_size is \(1, 2, 3, 4\)"):
        jaxcnn.summarize("lenet5", (1, 2, 3, 4))
    with pytest.raises(ValueError, match="needs at least 28x28"):
        jaxcnn.summarize("lenet5", 20)


def test_tables():
    header, rows = ["id", "n"], [["a", "1,000"], ["long", "2"]]
    assert text_table(header, rows) == (
        "id        n\n"
        "----  -----\n"
        "a     1,000\n"
        "long      2"
    )  # fmt: skip
    assert markdown_table(header, rows).splitlines()[1:3] == ["| --- | ---: |", "| a | 1,000 |"]
