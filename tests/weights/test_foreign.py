"""Weights of other frameworks: the network that is read computes what the file's network does."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign_files import caffe, keras_h5, keras_zip, onnx, tfjs
from foreign_nets import (
    ALEXNET,
    PREACT,
    RESNET,
    ZFNET,
    Net,
    alexnet,
    googlenet,
    keras_preact,
    preact,
    resnet,
    zfnet_of_the_zoo,
)
from torch_like import equal

import jaxcnn
from jaxcnn.cli import main
from jaxcnn.weights import Preprocessing, files, loading
from jaxcnn.weights.formats import keras
from jaxcnn.weights.formats import onnx as onnx_format
from jaxcnn.weights.formats.graph import ordered


def images(size, channels=3):
    return np.random.default_rng(1).standard_normal((2, size, size, channels)).astype(np.float32)


def assert_same(net, outputs, path, model, bgr=False, **options):
    """Whether a file's network and the one that is read from it compute the same; returns it."""
    opened = loading.open_weights(path, model, options=options)
    network, variables = loading.build(opened, **options)
    x = images(net.size)
    got = jax.jit(network.apply)(variables, x)
    channels_first = (x[..., ::-1] if bgr else x).transpose(0, 3, 1, 2)
    (wanted,) = jax.jit(lambda x: net.outputs(x, *outputs))(jnp.asarray(channels_first))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 2e-5 * np.abs(wanted).max()
    return opened


# --- Caffe --------------------------------------------------------------------------------------


def test_caffe_resnet_with_biases_before_its_normalizations(tmp_path):
    net, outputs = resnet(bias=True, epsilon=2e-5)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, mean=(1.0, 2.0, 3.0), scale=0.5))
    opened = assert_same(net, outputs, path, "resnet50_v1", bgr=True, **RESNET)
    assert opened.options["bn_epsilon"] == 2e-5
    how = opened.preprocessing
    np.testing.assert_allclose(how.mean, np.array([3, 2, 1]) / 255)
    np.testing.assert_allclose(how.std, [2 / 255] * 3)
    assert how.size == 64


def test_caffe_by_the_numbers_of_its_first_layers(tmp_path):
    net, outputs = alexnet(pool_first=True)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, old=True))
    opened = assert_same(net, outputs, path, "alexnet_caffenet", bgr=True, **ALEXNET)
    assert not {"lrn", "pool_first"} & opened.options.keys()
    opened = loading.open_weights(path, "alexnet", options=ALEXNET)
    assert (opened.options["lrn"], opened.options["pool_first"]) == ("caffe", True)


def test_caffe_gates(tmp_path):
    net, outputs = resnet(se=True)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net))
    assert_same(net, outputs, path, "se_resnet50", bgr=True, se_reduction=16, **RESNET)


def test_caffe_googlenet_with_both_heads(tmp_path):
    """Every layer of a network of many equal ones gets the values of its namesake."""
    net, _ = googlenet()
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net))
    opened = loading.open_weights(path, "googlenet", options={"width": 0.125})
    assert opened.options == {"width": 0.125, "lrn": "caffe"}
    records = {r.name: r.arrays for r in net.records if r.arrays}
    assert {key.split("/", 1)[1].rpartition("/")[0] for key in opened.arrays} == set(records)
    for name, arrays in records.items():
        assert np.array_equal(opened.arrays[f"params/{name}/bias"], arrays["bias"])
        kernel = arrays["kernel"]
        if name == "conv1/conv":
            kernel = kernel[:, ::-1]
        if name.endswith("fc1"):
            kernel = kernel.reshape(1024, 128, 4, 4).transpose(0, 2, 3, 1).reshape(1024, 2048)
        kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        assert np.array_equal(opened.arrays[f"params/{name}/kernel"], kernel)


# --- ONNX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [False, True])
def test_onnx_in_the_order_of_pytorch(tmp_path, fold):
    pytest.importorskip("onnx")
    net, outputs = resnet(stride_on="3x3", shortcut_last=True)
    path = tmp_path / "net.onnx"
    model = onnx(net, outputs, fold)
    path.write_bytes(model.SerializeToString())
    opened = assert_same(net, outputs, path, "resnet50", **RESNET)
    assert opened.options["ceil_pool"] is True  # as the file has it
    from onnx.reference import ReferenceEvaluator

    x = images(net.size)
    (wanted,) = ReferenceEvaluator(model).run(None, {"data": x.transpose(0, 3, 1, 2)})
    (got,) = jax.jit(lambda x: net.outputs(x, *outputs))(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_onnx_of_preactivation(tmp_path):
    pytest.importorskip("onnx")
    net, outputs = preact()
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    assert_same(net, outputs, path, "resnet50_v2", **PREACT)


def test_onnx_of_the_zoo(tmp_path):
    """Its ZFNet is another network than the paper's."""
    pytest.importorskip("onnx")
    net, outputs = zfnet_of_the_zoo()
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    opened = assert_same(net, outputs, path, "zfnet_512", **ZFNET)
    assert opened.options == {**ZFNET, "fc_width": 16, "onnx_zoo": True}


# --- files that normalize their images -----------------------------------------------------------


def assert_same_normalization(how, scale, shift):
    """Pixels of [0,255] become `scale * pixel + shift`."""
    np.testing.assert_allclose(1 / np.array(how.std), 255 * scale * np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(-np.array(how.mean) / how.std, shift, rtol=1e-5, atol=1e-5)


def rescaled(net):
    return net.scaled("data", 1 / 127.5, -1.0)


def test_keras_rescaling_takes_raw_pixels(tmp_path):
    pytest.importorskip("h5py")
    net, _ = resnet(epsilon=1.001e-5, bias=True, first=rescaled)
    keras_h5(tmp_path / "net.h5", net)
    opened = loading.open_weights(tmp_path / "net.h5", "resnet50", options=RESNET)
    assert_same_normalization(opened.preprocessing, 1 / 127.5, -1)
    kernel = next(r for r in net.records if r.name == "conv1").arrays["kernel"]
    got = opened.arrays["params/stem_conv/kernel"]
    np.testing.assert_allclose(got, kernel.transpose(2, 3, 1, 0))  # not reversed to BGR


def numbers_after_a_mean(net):
    """The mean first, then a factor."""
    return net.scaled(net.scaled("data", 1.0, -127.5), 1 / 58.8)


def unit_pixels(net):
    return net.scaled("data", 1 / 0.25, -0.5 / 0.25)


@pytest.mark.parametrize(
    "first, scale, shift",
    [
        (numbers_after_a_mean, 1 / 58.8, -127.5 / 58.8),
        (unit_pixels, 1 / (255 * 0.25), -0.5 / 0.25),
    ],
)
def test_onnx_with_a_normalization(tmp_path, first, scale, shift):
    pytest.importorskip("onnx")
    net, outputs = resnet(stride_on="3x3", shortcut_last=True, first=first)
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    opened = loading.open_weights(path, "resnet50", options=RESNET)
    assert_same_normalization(opened.preprocessing, scale, shift)


def test_caffe_with_a_power_before_the_first_layer(tmp_path):
    net, _ = resnet(first=lambda net: net.scaled("data", 0.5, -3.0))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, mean=(10.0, 20.0, 30.0)))
    how = loading.open_weights(path, "resnet50", options=RESNET).preprocessing
    assert_same_normalization(how, 0.5, [-0.5 * mean - 3 for mean in (30, 20, 10)])


def test_caffe_images_without_a_mean_are_not_given_one(tmp_path):
    """Two layers normalize them, or learned statistics are those of pixels."""
    net, _ = resnet(first=numbers_after_a_mean)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net))
    how = loading.open_weights(path, "resnet50", options=RESNET).preprocessing
    assert_same_normalization(how, 1 / 58.8, -127.5 / 58.8)
    net, _ = resnet(first=lambda net: net.norm("data"))
    net.records[0].arrays["mean"] = np.float32([104, 117, 123])
    path.write_bytes(caffe(net))
    how = loading.open_weights(path, "resnet50", options=RESNET).preprocessing
    a = net.records[0].arrays
    std = np.sqrt(a["var"] + 1e-5) / a["scale"]
    wanted = (a["mean"] - a["bias"] * std) / 255
    np.testing.assert_allclose(how.mean, wanted[::-1], rtol=1e-4)


def test_factors_that_are_not_positive_are_refused(tmp_path):
    net, _ = resnet(first=lambda net: net.scaled("data", 0.0, 1.0))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net))
    with pytest.raises(ValueError, match="multiplies images by numbers that are not above 0"):
        loading.open_weights(path, "resnet50", options=RESNET)


def test_caffe_statistics_of_the_images_are_in_the_order_of_the_file(tmp_path):
    net, _ = resnet(first=lambda net: net.norm("data"))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffe(net, mean=(104.0, 117.0, 123.0)))
    how = loading.open_weights(path, "resnet50", options=RESNET).preprocessing
    pixels = np.array([[10.0, 100.0, 200.0]], np.float32)  # blue, green, red
    images = jnp.asarray((pixels - (104, 117, 123))[:, :, None, None], jnp.float32)
    (wanted,) = net.outputs(images, net.records[0].name, through=1)
    got = (pixels[0, ::-1] / 255 - how.mean) / how.std
    np.testing.assert_allclose(got[::-1], np.ravel(wanted), rtol=1e-4)


# --- padding of average pooling -----------------------------------------------------------------


def averages(graph):
    return [n for n in ordered(graph.outputs) if n.kind == "avg_pool"]


def pooled():
    """A network whose average pooling has zeros around it from an operation of their own."""
    net = Net(size=32)
    x = net.pool(net.conv("data", 4, 3), "avg", 3, 1, 1, zeros=True)
    net.dense(net.global_pool(x), 5, name="fc")
    return net


def test_zeros_of_an_operation_of_their_own_count_in_averages(tmp_path):
    """As PyTorch exports average pooling, and as Keras' layers compute it."""
    pytest.importorskip("h5py")
    pytest.importorskip("onnx")
    net = pooled()
    keras_h5(tmp_path / "net.h5", net)
    (tmp_path / "net.onnx").write_bytes(onnx(net, ("fc",)).SerializeToString())
    graphs = (keras.read_h5(tmp_path / "net.h5"), onnx_format.read(tmp_path / "net.onnx"))
    for graph in graphs:
        (pool,) = averages(graph)
        assert pool.window.padding == ((1, 1), (1, 1))
        assert pool.facts["count_include_pad"] is True


# --- Keras --------------------------------------------------------------------------------------


def test_keras_files_with_a_description(tmp_path):
    """Of three kinds of files the same weights, and what they compute is what Keras' layers do."""
    pytest.importorskip("h5py")
    net, outputs = resnet(bias=True, epsilon=1.001e-5)
    keras_h5(tmp_path / "a.h5", net)
    keras_zip(tmp_path / "b.keras", net)
    paths = (tmp_path / "a.h5", tmp_path / "b.keras", tfjs(tmp_path, net))
    opened = assert_same(net, outputs, paths[0], "resnet50", bgr=True, **RESNET)
    assert opened.options["stride_on"] == "1x1" and opened.options["bn_epsilon"] == 1.001e-5
    assert opened.preprocessing.mean[0] == pytest.approx(123.68 / 255)
    for path in paths[1:]:
        again = loading.open_weights(path, "resnet50", options=RESNET)
        assert again.options == opened.options
        assert equal(again.arrays, opened.arrays)


def test_keras_preactivation(tmp_path):
    pytest.importorskip("h5py")
    net, outputs = keras_preact()
    keras_h5(tmp_path / "net.h5", net)
    options = {**PREACT, "blocks": (2, 2)}
    opened = assert_same(net, outputs, tmp_path / "net.h5", "resnet50_v2", **options)
    assert opened.options["keras"] is True
    assert opened.preprocessing.mean == (0.5, 0.5, 0.5)


def test_keras_weights_alone_by_their_names(tmp_path):
    pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    layers, wanted = {}, {}

    def add(name, path, *shape):
        kernel = random.random(shape, np.float32)
        layers[f"{name}_conv"] = {"kernel": kernel, "bias": np.ones(shape[-1], np.float32)}
        parts = {w: random.random(shape[-1], np.float32) for w in ("gamma", "beta")}
        parts |= {
            w: random.random(shape[-1], np.float32) for w in ("moving_mean", "moving_variance")
        }
        layers[f"{name}_bn"] = parts
        wanted[f"params/{path.format('conv')}/kernel"] = kernel
        wanted[f"batch_stats/{path.format('bn')}/mean"] = parts["moving_mean"] - 1

    add("conv1", "stem_{}", 7, 7, 3, 8)
    blocks = {"conv2_block1": 8, "conv2_block2": 16, "conv3_block1": 16}
    for (name, inputs), path in zip(
        blocks.items(), ("stage1_block1", "stage1_block2", "stage2_block1")
    ):
        width = 8 if path.startswith("stage2") else 4
        add(f"{name}_1", f"{path}/{{}}1", 1, 1, inputs, width)
        add(f"{name}_2", f"{path}/{{}}2", 3, 3, width, width)
        if name.endswith("1"):  # in Keras' order of depth
            add(f"{name}_0", f"{path}/proj_{{}}", 1, 1, inputs, 4 * width)
        add(f"{name}_3", f"{path}/{{}}3", 1, 1, width, 4 * width)
    head = {"kernel": random.random((32, 7), np.float32), "bias": np.zeros(7, np.float32)}
    layers["probs"] = head
    keras_h5(tmp_path / "w.h5", None, config=False, weights=layers)
    opened = loading.open_weights(tmp_path / "w.h5", "resnet50", images="tf", options=RESNET)
    for key, array in wanted.items():
        np.testing.assert_allclose(opened.arrays[key], array, rtol=1e-6, err_msg=key)
    assert np.array_equal(opened.arrays["params/fc/kernel"], head["kernel"])
    assert opened.options["stride_on"] == "1x1" and opened.preprocessing.mean == (0.5,) * 3
    layers.pop("conv2_block2_2_conv")
    keras_h5(tmp_path / "w.h5", None, config=False, weights=layers)
    with pytest.raises(
        ValueError, match="is stage1_block2/conv2 3x3x4x4 in the network and nothing in the file"
    ):
        loading.open_weights(tmp_path / "w.h5", "resnet50", options=RESNET)


# --- flaxmodels ---------------------------------------------------------------------------------


def test_flaxmodels(tmp_path):
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    wanted = {}

    def add(file, name, path, *shape):
        kernel = file.create_dataset(
            f"{name.format('conv')}/weight", data=random.random(shape, "f")
        )
        wanted[f"params/{path.format('conv')}/kernel"] = np.asarray(kernel)
        for part in ("scale", "bias", "mean", "var"):
            array = random.random(shape[-1], "f")
            file[f"{name.format('bn')}/{part}"] = array
            kind = "params" if part in ("scale", "bias") else "batch_stats"
            wanted[f"{kind}/{path.format('bn')}/{part}"] = array

    with h5py.File(tmp_path / "r.h5", "w") as file:
        add(file, "{}1", "stem_{}", 7, 7, 3, 4)
        for stage, inputs, width in ((1, 4, 4), (2, 4, 8)):
            place, path = f"layer{stage}/block0/{{}}", f"stage{stage}_block1/{{}}"
            add(file, f"{place}1", f"{path}1", 3, 3, inputs, width)
            add(file, f"{place}2", f"{path}2", 3, 3, width, width)
        add(file, "layer2/block0/downsample/{}", "stage2_block1/proj_{}", 1, 1, 4, 8)
        file["fc/weight"], file["fc/bias"] = random.random((8, 7), "f"), np.zeros(7, "f")
        wanted["params/fc/kernel"] = np.asarray(file["fc/weight"])
        wanted["params/fc/bias"] = np.zeros(7, "f")
    options = {"width": 4, "stem": (4,), "blocks": (1, 1)}
    opened = loading.open_weights(tmp_path / "r.h5", "resnet18", options=options)
    assert equal(opened.arrays, wanted) and opened.options == options

    maps, units = random.random((512, 2, 2, 6), "f"), {"fc7": (6, 6), "fc8": (6, 3)}
    with h5py.File(tmp_path / "v.h5", "w") as file:
        for block, convs in enumerate((1, 1, 2, 2, 2), 1):
            for i in range(1, convs + 1):
                inputs = 3 if block == 1 else 2
                out = 512 if block == 5 else 2
                inputs = 512 if (block, i) == (5, 2) else inputs
                file[f"conv{block}_{i}/weight"] = np.zeros((3, 3, inputs, out), "f")
                file[f"conv{block}_{i}/bias"] = np.zeros(out, "f")
        file["fc6/weight"], file["fc6/bias"] = maps.reshape(2048, 6), np.zeros(6, "f")
        for name, shape in units.items():
            file[f"{name}/weight"] = np.zeros(shape, "f")
            file[f"{name}/bias"] = np.zeros(shape[1], "f")
    options = {"widths": (2, 2, 2, 2, 512), "min_size": 64}
    opened = loading.open_weights(tmp_path / "v.h5", "vgg11", options=options)
    kernel = maps.transpose(1, 2, 0, 3).reshape(2048, 6)
    assert np.array_equal(opened.arrays["params/fc6/kernel"], kernel)


# --- heads --------------------------------------------------------------------------------------


def vgg(size, *widths):
    """VGG's convolutions, of 4 channels each, and dense layers on all of the last map."""
    net, x = Net(size=size), "data"
    for convs in (1, 1, 2, 2, 2):
        for _ in range(convs):
            x = net.relu(net.conv(x, 4, 3, 1, 1, bias=True))
        x = net.pool(x, "max", 2, 2)
    rows = 4 * (size // 32) ** 2
    for i, width in enumerate(widths):
        x = net.dense(x, width, rows=None if i else rows)
        x = net.relu(x) if i + 1 < len(widths) else x
    return net, (x,)


VGG = {"widths": (4, 4, 4, 4, 4)}


def test_three_dense_layers_at_a_size_that_is_no_multiple_of_32(tmp_path):
    pytest.importorskip("onnx")
    net, outputs = vgg(72, 6, 6, 3)
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    opened = assert_same(net, outputs, path, "vgg_a", **VGG)
    assert (opened.options["fc_width"], opened.options["min_size"]) == (6, 72)


def test_heads_of_other_layers_are_named_or_left_out(tmp_path):
    pytest.importorskip("onnx")
    net, outputs = vgg(72, 6, 5)
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx(net, outputs).SerializeToString())
    with pytest.raises(ValueError, match=r"2 dense layers \(dense\d+ 16x6, dense\d+ 6x5\), wh"):
        loading.open_weights(path, "vgg_a", options=VGG)
    opened = loading.open_weights(path, "vgg_a", num_classes=0, options=VGG)
    assert opened.options["fc_width"] == 0
    network, variables = loading.build(opened, 0, **VGG)
    x = images(72)
    last = net.records[-4].name  # the last map
    (maps,) = jax.jit(lambda x: net.outputs(x, last))(x.transpose(0, 3, 1, 2))
    got = jax.jit(network.apply)(variables, x)
    np.testing.assert_allclose(got, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


# --- the command, and timm's config.json --------------------------------------------------------


def test_convert_says_what_it_has_taken_and_writes_the_network(tmp_path, capsys):
    net, _ = resnet()
    path, out = tmp_path / "no_suffix", tmp_path / "net.safetensors"
    path.write_bytes(caffe(net))
    options = [f"{name}={value}" for name, value in RESNET.items()]
    assert main(["convert", str(path), str(out), "--model", "resnet50", *options]) == 0
    text, err = capsys.readouterr()
    assert err == ""
    assert "options taken from the file: ceil_pool=True, stride_on=1x1" in text
    assert "minus (123, 117, 104), divided by (1, 1, 1)" in text
    assert text.endswith(f"wrote {out}: resnet50, 7 classes, layout of jaxcnn\n")
    network, variables = jaxcnn.load_pretrained(out)
    assert (network.stride_on, network.ceil_pool, network.width) == ("1x1", True, 4)
    opened = loading.open_weights(path, "resnet50", options=RESNET)
    assert equal(variables, loading.build(opened, **RESNET)[1])
    assert loading.open_weights(out).preprocessing == opened.preprocessing
    assert main(["convert", str(path), str(out), "--model", "resnet50", "width"]) == 2
    assert "'width' is not an option of the network" in capsys.readouterr()[1]


def test_the_config_of_timm_names_network_and_preprocessing(tmp_path):
    state = {"fc.bias": np.zeros(3, np.float32)}  # not read before the network is known
    files.write(tmp_path / "model.safetensors", state, {"format": "pt"})
    config = {
        "architecture": "resnetv2_50",
        "label_names": ["a", "b", "c"],
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "test_input_size": [3, 288, 288],
            "crop_pct": 0.95,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = loading.open_weights(tmp_path / "model.safetensors")
    assert (opened.model, opened.class_names) == ("resnet50_v2", ("a", "b", "c"))
    how = Preprocessing(288, 0.95, "bicubic", (0.5,) * 3, (0.25,) * 3)
    assert opened.preprocessing == how
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base"}))
    with pytest.raises(ValueError, match="does not state its network"):
        loading.open_weights(tmp_path / "model.safetensors")


# --- files that do not fit ----------------------------------------------------------------------


def test_the_first_layer_that_differs_is_named(tmp_path):
    path = tmp_path / "net.caffemodel"
    net, _ = resnet()
    path.write_bytes(caffe(net))
    for options, text in (
        (
            {**RESNET, "blocks": (1, 1)},
            "stage2_block1/.+ in the network and conv.+ 1x1x16x4 in the file",
        ),
        ({**RESNET, "blocks": (2, 2)}, "is stage2_block2/.+ in the network"),
        ({**RESNET, "stem": (9,)}, "layer 1 is stem_conv 7x7x3x9 in .+ conv1 7x7x3x8 in the file"),
        ({**RESNET, "stride_on": "3x3"}, "of resnet50_v1, but its stage2_block1/conv1 .+ stride"),
    ):
        with pytest.raises(ValueError, match=text) as error:
            loading.open_weights(path, "resnet50_v1", options=options)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="pass its name as"):
        loading.open_weights(path)
    with pytest.raises(ValueError, match="these weights do not fit vgg_d: layer 1"):
        loading.open_weights(path, "vgg16")


def test_damaged_files_are_named_in_one_line(tmp_path):
    pytest.importorskip("h5py")
    net, outputs = resnet()
    keras_h5(tmp_path / "net.h5", net)
    keras_zip(tmp_path / "net.keras", net)
    tfjs(tmp_path, net)
    (tmp_path / "net.caffemodel").write_bytes(caffe(net))
    names = ["net.h5", "net.keras", "net.caffemodel", "b.bin"]
    if importlib.util.find_spec("onnx"):
        (tmp_path / "net.onnx").write_bytes(onnx(net, outputs).SerializeToString())
        names.append("net.onnx")
    for name in names:
        path = tmp_path / name
        whole = path.read_bytes()
        opened = tmp_path / "model.json" if name == "b.bin" else path
        for size in (0, 5, len(whole) // 3, len(whole) - 9):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError) as error:
                loading.open_weights(opened, "resnet50_v1", options=RESNET)
            assert str(opened) in str(error.value), (name, size)
            assert len(str(error.value)) < 400 and "\n" not in str(error.value)
