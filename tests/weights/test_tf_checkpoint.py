"""Checkpoints of TensorFlow: the network that is read computes what the file's network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from foreign_files import field
from foreign_nets import Net
from tf_files import slim_variables, table, version_1, version_2
from torch_like import equal

from jaxcnn.weights import loading
from jaxcnn.weights.formats import keras_names, slim
from jaxcnn.weights.formats.graph import ordered
from jaxcnn.weights.formats.traced import trace

OPTIONS = {"width": 4, "stem": (8,), "blocks": (2, 1)}


def slim_resnet(version, size=64):
    """TF-Slim's: the last block of a stage has the stride, and the first pooling rounds up."""
    net, scope = Net(size=size), f"resnet_v{version}_50"
    v2 = version == 2

    def conv(x, out, kernel, stride, name, bias=False):
        return net.conv(x, out, kernel, stride, kernel // 2, bias=bias, name=name)

    def unit(x, out, kernel, stride, name):  # with what follows it
        x = conv(x, out, kernel, stride, name)
        return net.norm(x, name=f"{name}/BatchNorm")

    x = conv("data", 8, 7, 2, f"{scope}/conv1", bias=v2)
    x = x if v2 else net.relu(net.norm(x, name=f"{scope}/conv1/BatchNorm"))
    x = net.pool(x, "max", 3, 2, 0, after=1)
    for block, (width, count) in enumerate(((4, 2), (8, 1)), 1):
        for i in range(count):
            name = f"{scope}/block{block}/unit_{i + 1}/bottleneck_v{version}"
            stride = 2 if (block, i) == (1, 1) else 1
            a = net.relu(net.norm(x, name=f"{name}/preact")) if v2 else x
            if i:
                shortcut = net.pool(x, "max", 1, 2) if stride == 2 else x
            elif v2:
                shortcut = conv(a, 4 * width, 1, 1, f"{name}/shortcut", bias=True)
            else:
                shortcut = unit(a, 4 * width, 1, 1, f"{name}/shortcut")
            y = net.relu(unit(a, width, 1, 1, f"{name}/conv1"))
            y = net.relu(unit(y, width, 3, stride, f"{name}/conv2"))
            if v2:
                x = net.add(shortcut, conv(y, 4 * width, 1, 1, f"{name}/conv3", bias=True))
            else:
                x = net.relu(net.add(shortcut, unit(y, 4 * width, 1, 1, f"{name}/conv3")))
    x = net.relu(net.norm(x, name=f"{scope}/postnorm")) if v2 else x
    return net, net.dense(net.global_pool(x), 7, name=f"{scope}/logits")


@pytest.mark.parametrize("version", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_residual_networks_of_tf_slim(tmp_path, version):
    net, output = slim_resnet(version)
    name = {1: "resnet50_v1", 2: "resnet50_v2"}[version]
    options = OPTIONS if version == 1 else {**OPTIONS, "stem": 8}
    version_1(tmp_path / "old.ckpt", slim_variables(net))
    version_2(tmp_path / "net.ckpt", slim_variables(net))
    opened = loading.open_weights(tmp_path / "old.ckpt", name, options=options)
    network, variables = loading.build(opened, **options)
    x = np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)
    got = jax.jit(network.apply)(variables, x)
    (wanted,) = jax.jit(lambda x: net.outputs(x, output))(jnp.asarray(x.transpose(0, 3, 1, 2)))
    assert np.abs(got - wanted).max() < 2e-5 * np.abs(wanted).max()
    mean, size = opened.preprocessing.mean[0], opened.preprocessing.size
    assert (mean, size) == ((123.68 / 255, 224) if version == 1 else (0.5, 299))
    for path in ("net.ckpt", "net.ckpt.index", "net.ckpt.data-00000-of-00001"):
        again = loading.open_weights(tmp_path / path, name, options=options)
        assert equal(again.arrays, opened.arrays) and again.options == opened.options


# In the order in which TF-Slim creates them; a number is a branch.
INCEPTION_V3 = """
Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3
Mixed_5b: 0 0a_1x1 1 0a_1x1 0b_5x5 2 0a_1x1 0b_3x3 0c_3x3 3 0b_1x1
Mixed_5c: 0 0a_1x1 1 0b_1x1 Conv_1_0c_5x5 2 0a_1x1 0b_3x3 0c_3x3 3 0b_1x1
Mixed_5d: 0 0a_1x1 1 0a_1x1 0b_5x5 2 0a_1x1 0b_3x3 0c_3x3 3 0b_1x1
Mixed_6a: 0 1a_1x1 1 0a_1x1 0b_3x3 1a_1x1
Mixed_6b: 0 0a_1x1 1 0a_1x1 0b_1x7 0c_7x1 2 0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7 3 0b_1x1
Mixed_6c: 0 0a_1x1 1 0a_1x1 0b_1x7 0c_7x1 2 0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7 3 0b_1x1
Mixed_6d: 0 0a_1x1 1 0a_1x1 0b_1x7 0c_7x1 2 0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7 3 0b_1x1
Mixed_6e: 0 0a_1x1 1 0a_1x1 0b_1x7 0c_7x1 2 0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7 3 0b_1x1
Mixed_7a: 0 0a_1x1 1a_3x3 1 0a_1x1 0b_1x7 0c_7x1 1a_3x3
Mixed_7b: 0 0a_1x1 1 0a_1x1 0b_1x3 0b_3x1 2 0a_1x1 0b_3x3 0c_1x3 0d_3x1 3 0b_1x1
Mixed_7c: 0 0a_1x1 1 0a_1x1 0b_1x3 0c_3x1 2 0a_1x1 0b_3x3 0c_1x3 0d_3x1 3 0b_1x1
Logits/Conv2d_1c_1x1
"""
_A = "0 0a_1x1 1 0a_1x1 0b_3x3 2 0a_1x1 0b_3x3 0c_3x3 3 0b_1x1"
_B = "0 0a_1x1 1 0a_1x1 0b_1x7 0c_7x1 2 0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7 3 0b_1x1"
_C = "0 0a_1x1 1 0a_1x1 0b_1x3 0c_3x1 2 0a_1x1 0b_3x1 0c_1x3 0d_1x3 0e_3x1 3 0b_1x1"
INCEPTION_V4 = "\n".join(
    [
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3",
        "Mixed_3a: 1 0a_3x3",
        "Mixed_4a: 0 0a_1x1 1a_3x3 1 0a_1x1 0b_1x7 0c_7x1 1a_3x3",
        "Mixed_5a: 0 1a_3x3",
        *(f"Mixed_5{c}: {_A}" for c in "bcde"),
        "Mixed_6a: 0 1a_3x3 1 0a_1x1 0b_3x3 1a_3x3",
        *(f"Mixed_6{c}: {_B}" for c in "bcdefgh"),
        "Mixed_7a: 0 0a_1x1 1a_3x3 1 0a_1x1 0b_1x7 0c_7x1 1a_3x3",
        *(f"Mixed_7{c}: {_C}" for c in "bcd"),
        "Logits/Logits",
    ]
)
_LAST = "0 Conv2d_1x1 1 0a_1x1 0b_1x3 0c_3x1 - Conv2d_1x1"
INCEPTION_RESNET_V2 = "\n".join(
    [
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3",
        "Mixed_5b: 0 Conv2d_1x1 1 0a_1x1 0b_5x5 2 0a_1x1 0b_3x3 0c_3x3 3 0b_1x1",
        *(
            f"Repeat/block35_{i}: 0 Conv2d_1x1 1 0a_1x1 0b_3x3 2 0a_1x1 0b_3x3 0c_3x3 - Conv2d_1x1"
            for i in range(1, 11)
        ),
        "Mixed_6a: 0 1a_3x3 1 0a_1x1 0b_3x3 1a_3x3",
        *(
            f"Repeat_1/block17_{i}: 0 Conv2d_1x1 1 0a_1x1 0b_1x7 0c_7x1 - Conv2d_1x1"
            for i in range(1, 21)
        ),
        "Mixed_7a: 0 0a_1x1 1a_3x3 1 0a_1x1 1a_3x3 2 0a_1x1 0b_3x3 1a_3x3",
        *(f"Repeat_2/block8_{i}: {_LAST}" for i in range(1, 10)),
        f"Block8: {_LAST}",
        "Conv2d_7b_1x1",
        "Logits/Logits",
    ]
)


def created(text):
    """Names of convolutions and of the classifier in the order of the text."""
    for line in text.strip().splitlines():
        module, colon, parts = line.partition(": ")
        if not colon:
            yield from line.split()
            continue
        where = module
        for part in parts.split():
            if part.isdigit() or part == "-":
                where = module if part == "-" else f"{module}/Branch_{part}"
            else:
                yield f"{where}/{part if part.startswith('Conv') else f'Conv2d_{part}'}"


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        ("InceptionV3", INCEPTION_V3),
        pytest.param("InceptionV4", INCEPTION_V4, marks=pytest.mark.slow),
        pytest.param("InceptionResnetV2", INCEPTION_RESNET_V2, marks=pytest.mark.slow),
    ],
)
def test_every_layer_of_an_inception_finds_its_place(scope, text):
    """Sorted by name as in a file, the layers are paired in the order of their creation."""
    ids = {"InceptionV3": "inception_v3", "InceptionV4": "inception_v4"}
    name = ids.get(scope, "inception_resnet_v2")
    gamma = {"gamma": False, "aux_heads": False}
    own = [n for n in ordered(trace(name, (299, 299, 3), **gamma)[:1]) if "call" in n.facts]
    own.sort(key=lambda node: node.facts["call"])
    layers = [node for node in own if node.kind != "norm"]
    names = list(created(text))
    assert len(names) == len(layers) == len(set(names))
    variables, wanted = {}, {}
    for layer, place in zip(layers, names):
        path = f"{scope}/{place}"
        variables[f"{path}/weights"] = np.broadcast_to(np.float32(0), layer.shape)
        wanted[layer.name] = path
        for norm in (node for node in own if node.kind == "norm" and node.inputs[0] is layer):
            wanted[norm.name] = f"{path}/BatchNorm"
            for word in ("beta", "moving_mean", "moving_variance"):
                variables[f"{path}/BatchNorm/{word}"] = np.zeros(norm.channels, np.float32)
    found = slim.layers(dict(sorted(variables.items())))
    pairs = keras_names.assign(own, found.layers)
    assert {node.name: given and given.name for node, given in pairs} == wanted


def test_an_inception_with_1001_outputs(tmp_path):
    """InceptionV1 with narrow modules; the first output is of images of no class."""
    random = np.random.default_rng(0)
    options = {"width": 0.125}
    own = ordered(trace("googlenet_bn", (224, 224, 3), gamma=False, aux_heads=False, **options))
    layers = sorted((n for n in own if "call" in n.facts), key=lambda node: node.facts["call"])
    convs = [node for node in layers if node.kind == "conv"]
    stem = ("Conv2d_1a_7x7", "Conv2d_2b_1x1", "Conv2d_2c_3x3")
    modules = [f"Mixed_{m}" for m in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")]
    names = [f"InceptionV1/{name}" for name in stem]
    for module in modules:
        parts = ("0/Conv2d_0a_1x1", "1/Conv2d_0a_1x1", "1/Conv2d_0b_3x3", "2/Conv2d_0a_1x1")
        # One name of the release has an "a" where a "b" would be.
        last = "2/Conv2d_0a_3x3" if module == "Mixed_5b" else "2/Conv2d_0b_3x3"
        names += [f"InceptionV1/{module}/Branch_{p}" for p in (*parts, last, "3/Conv2d_0b_1x1")]
    variables, wanted = {}, {}
    for node, name in zip(convs, names, strict=True):
        variables[f"{name}/weights"] = random.random(node.shape, np.float32)
        wanted[f"params/{node.name}/kernel"] = variables[f"{name}/weights"]
        for word in ("beta", "moving_mean", "moving_variance"):
            variables[f"{name}/BatchNorm/{word}"] = random.random(node.channels, np.float32)
        bn = node.name.replace("/conv", "/bn")
        wanted[f"batch_stats/{bn}/mean"] = variables[f"{name}/BatchNorm/moving_mean"]
        wanted[f"params/{bn}/bias"] = variables[f"{name}/BatchNorm/beta"]
    rows = convs[-1].channels + sum(convs[i].channels for i in (-6, -4, -2))
    logits = "InceptionV1/Logits/Conv2d_0c_1x1"
    variables[f"{logits}/weights"] = random.random((1, 1, rows, 1001), np.float32)
    variables[f"{logits}/biases"] = random.random(1001, np.float32)
    wanted["params/fc/kernel"] = variables[f"{logits}/weights"][0, 0, :, 1:]
    wanted["params/fc/bias"] = variables[f"{logits}/biases"][1:]
    version_2(tmp_path / "net.ckpt", variables)
    opened = loading.open_weights(tmp_path / "net.ckpt", "googlenet_bn", options=options)
    for key, array in wanted.items():
        assert np.array_equal(opened.arrays[key], array), key
    assert opened.options["same_padding"] is True and opened.options["gamma"] is False
    assert "first of 1001 outputs" in opened.notes[0]
    opened = loading.open_weights(
        tmp_path / "net.ckpt", "googlenet_bn", num_classes=0, options=options
    )
    assert not any("fc" in key for key in opened.arrays) and len(opened.arrays) == 57 * 4


def test_vgg_of_tf_slim(tmp_path):
    """Its fully connected layers are convolutions, which read (height, width, channel) as here."""
    random = np.random.default_rng(0)
    options = {"widths": (2, 2, 2, 2, 4), "min_size": 64}
    variables = {}

    def add(name, *shape):
        variables[f"vgg_a/{name}/weights"] = random.random(shape, np.float32)
        variables[f"vgg_a/{name}/biases"] = random.random(shape[-1], np.float32)

    for block, convs in enumerate((1, 1, 2, 2, 2), 1):
        for i in range(1, convs + 1):
            inputs = 3 if block == 1 else 4 if (block, i) == (5, 2) else 2
            add(f"conv{block}/conv{block}_{i}", 3, 3, inputs, 4 if block == 5 else 2)
    add("fc6", 2, 2, 4, 6)
    add("fc7", 1, 1, 6, 6)
    add("fc8", 1, 1, 6, 3)
    version_1(tmp_path / "vgg.ckpt", variables)
    opened = loading.open_weights(tmp_path / "vgg.ckpt", "vgg11", options=options)
    assert opened.options["fc_width"] == 6
    kernel = variables["vgg_a/fc6/weights"].reshape(16, 6)
    assert np.array_equal(opened.arrays["params/fc6/kernel"], kernel)
    kernel = variables["vgg_a/conv5/conv5_2/weights"]
    assert np.array_equal(opened.arrays["params/block5/conv2/kernel"], kernel)


def keras_variables():
    """VGG-A of Keras' names: the layers are numbered, and the names are those of the variables."""
    random, arrays, objects = np.random.default_rng(0), {}, {}

    def add(name, *shape):
        number = len(objects) // 2
        for word, size in (("kernel", shape), ("bias", shape[-1:])):
            key = f"layer_with_weights-{number}/{word}/.ATTRIBUTES/VARIABLE_VALUE"
            arrays[key] = random.random(size, np.float32)
            objects[f"{name}/{word}"] = key
        slot = f"layer_with_weights-{number}/kernel/.OPTIMIZER_SLOT/m/.ATTRIBUTES/VARIABLE_VALUE"
        arrays[slot] = np.zeros(shape, np.float32)

    for block, convs in enumerate((1, 1, 2, 2, 2), 1):
        for i in range(1, convs + 1):
            inputs = 3 if block == 1 else 2
            add(f"block{block}_conv{i}", 3, 3, inputs, 2)
    add("predictions", 2, 3)
    return arrays, objects


def test_checkpoints_of_keras(tmp_path):
    arrays, objects = keras_variables()
    version_2(tmp_path / "net", arrays, objects)
    options = {"widths": (2,) * 5}
    opened = loading.open_weights(tmp_path / "net", "vgg11", options=options)
    key = objects["block5_conv2/kernel"]
    assert np.array_equal(opened.arrays["params/block5/conv2/kernel"], arrays[key])
    assert np.array_equal(opened.arrays["params/fc8/kernel"], arrays[objects["predictions/kernel"]])
    assert opened.options["fc_width"] == 0 and opened.preprocessing.mean[0] > 0.48
    version_2(tmp_path / "net", arrays)
    with pytest.raises(ValueError, match="do not have names of TF-Slim or Keras"):
        loading.open_weights(tmp_path / "net", "vgg11", options=options)


def read(path, options):
    return loading.open_weights(path, "vgg11", options=options).arrays


def refused(path, model, options, *words):
    with pytest.raises(ValueError) as error:
        loading.open_weights(path, model, options=options)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and len(text) < 400, text
    assert all(word in text for word in words), text


def test_damaged_checkpoints_are_named_in_one_line(tmp_path):
    arrays, objects = keras_variables()
    options = {"widths": (2,) * 5}
    version_2(tmp_path / "net", arrays, objects)
    version_1(tmp_path / "old.ckpt", {"vgg_a/fc6/weights": np.ones((2, 2, 2, 6))})
    index, data = tmp_path / "net.index", tmp_path / "net.data-00000-of-00001"
    for path, opened in ((index, index), (data, index), (tmp_path / "old.ckpt",) * 2):
        whole = path.read_bytes()
        known = None if path.name == "old.ckpt" else read(opened, options)
        for i in range(0, len(whole), max(len(whole) // 25, 1)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
            try:
                found = read(opened, options)
            except ValueError:
                refused(opened, "vgg11", options)
            else:  # bytes that nobody reads: of the optimizer, or of another part of the table
                assert equal(found, known)
        for size in (0, len(whole) // 3, len(whole) - 1):
            path.write_bytes(whole[:size])
            refused(opened, "vgg11", options)
        path.write_bytes(whole)
    data.write_bytes(bytes(data.stat().st_size))
    refused(index, "vgg11", options)
    data.unlink()
    refused(index, "vgg11", options, "the file net.data-00000-of-00001 must be in the same folder")


def test_tables_that_say_what_is_not_so(tmp_path):
    path = tmp_path / "net.index"
    name = b"vgg_a/fc6/weights"

    def entry(*sizes, offset=0, size=0, **more):
        shape = b"".join(field(2, field(1, n)) for n in sizes)
        return field(1, 1) + field(2, shape) + field(4, offset) + field(5, size)

    header = {b"": field(1, 1)}
    (tmp_path / "net.data-00000-of-00001").write_bytes(b"1234")
    for rows, text in (
        ({**header, name: entry(10**9, 10**9, size=4)}, "wrong checksum"),
        ({**header, name: entry(1, offset=10**12, size=4)}, "cut off"),
        ({**header, name: entry(10**9)}, "wrong checksum"),
        ({**header, name: entry() + field(7, b"")}, "in parts"),
        ({b"": field(2, 1)}, "big-endian"),
        ({name: entry()}, "does not begin with a header"),
        (header, "do not have names"),
    ):
        path.write_bytes(table(rows))
        refused(path, "vgg11", {}, text)
    path.write_bytes(table(header, compression=1))
    refused(path, "vgg11", {}, "compressed")
