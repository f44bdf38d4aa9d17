"""VGG: the lecture table's parameters per layer, a slow NumPy form, dense evaluation, names."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.models import registry, vgg
from jaxcnn.runtime.compilation import compile_init

NARROW = {"widths": (4, 6, 8, 16, 16), "fc_width": 10, "num_classes": 5}


def shapes(name):
    model = jaxcnn.create_model(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def build(name, size=32, **options):
    model = jaxcnn.create_model(name, min_size=size, **NARROW | options)
    return model, draw_variables(model, (1, size, size, 3))


def test_weights_per_layer_of_vgg16_are_those_of_the_lecture_table():
    params = shapes("vgg16")
    convs = {
        (block, layer): np.prod(leaf["kernel"].shape)
        for block, layers in params.items()
        if block.startswith("block")
        for layer, leaf in layers.items()
    }
    weights = [int(convs[key]) for key in sorted(convs)]
    weights += [int(np.prod(params[fc]["kernel"].shape)) for fc in ("fc6", "fc7", "fc8")]
    assert weights == [
        *(1_728, 36_864, 73_728, 147_456, 294_912, 589_824, 589_824, 1_179_648),
        *(2_359_296,) * 5,
        *(102_760_448, 16_777_216, 4_096_000),
    ]
    assert sum(weights) == 138_344_128


def test_third_convolution_of_net_c_is_1x1_from_block_3_on():
    kernels = {
        (block, layer): leaf["kernel"].shape[0]
        for block, layers in shapes("vgg_c").items()
        if block.startswith("block")
        for layer, leaf in layers.items()
    }
    ones = {key for key, size in kernels.items() if size == 1}
    assert ones == {("block3", "conv3"), ("block4", "conv3"), ("block5", "conv3")}
    assert set(kernels.values()) == {1, 3}


def slow_vgg(variables, x, convs, *, norm=False, se=False, lrn=False):
    p, stats = (jax.tree.map(np.asarray, variables.get(k, {})) for k in ("params", "batch_stats"))
    for block, count in enumerate(convs, 1):
        layers = p[f"block{block}"]
        for i in range(1, count + 1):
            kernel, bias = layers[f"conv{i}"]["kernel"], layers[f"conv{i}"]["bias"]
            x = reference.conv(x, kernel, 1, kernel.shape[0] // 2, bias=bias)
            if norm:
                bn, moments = layers[f"bn{i}"], stats[f"block{block}"][f"bn{i}"]
                x = reference.batch_norm(
                    x, bn["scale"], bn["bias"], moments["mean"], moments["var"], 1e-5
                )
            x = reference.relu(x)
            if se:
                fc1, fc2 = layers[f"se{i}"]["fc1"], layers[f"se{i}"]["fc2"]
                x = reference.squeeze_excite(
                    x, fc1["kernel"], fc1["bias"], fc2["kernel"], fc2["bias"]
                )
            if lrn and (block, i) == (1, 1):
                x = reference.local_response_norm(x)
        x = reference.max_pool(x, 2, 2)
    x = x.reshape(x.shape[0], -1)
    for name in ("fc6", "fc7"):
        x = reference.relu(x @ p[name]["kernel"] + p[name]["bias"])
    return x @ p["fc8"]["kernel"] + p["fc8"]["bias"]


@pytest.mark.parametrize(
    ("name", "options", "slow"),
    [
        ("se_vgg_d_bn", {"widths": (16, 16, 16, 32, 32)}, {"norm": True, "se": True}),
    ],
)
def test_network_equals_the_slow_one(name, options, slow):
    model, variables = build(name, **options)
    images = 20 * draw_images((2, 32, 32, 3))
    want = slow_vgg(variables, images, model.convs, **slow)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


def test_dense_evaluation():
    """At native size: the same. Without padding in the way: the mean over shifted crops."""
    model, variables = build("vgg11", size=64)
    dense = model.clone(dense=True)
    run = jax.jit(lambda v, x: dense.apply(v, x, mutable=["endpoints"]))
    apply = jax.jit(model.apply)
    image = draw_images((1, 64, 64, 3))
    np.testing.assert_allclose(run(variables, image)[0], apply(variables, image), atol=1e-5)

    center = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(3.0)
    for block in (f"block{i}" for i in range(1, 6)):
        for layer in variables["params"][block].values():
            layer["kernel"] = layer["kernel"] * center
    image = draw_images((1, 96, 128, 3))
    logits, state = run(variables, image)
    tops, lefts = (0, 32), (0, 32, 64)
    crops = [image[0, i : i + 64, j : j + 64] for i in tops for j in lefts]
    of_crops = apply(variables, jnp.stack(crops))
    scores = state["endpoints"]["score_map"]
    assert scores.shape == (1, 2, 3, 5)
    np.testing.assert_allclose(scores.reshape(6, 5), of_crops, atol=1e-5)
    np.testing.assert_allclose(logits[0], of_crops.mean(0), atol=1e-5)
    assert np.ptp(of_crops, axis=0).max() > 1e-3


def test_dense_form_has_the_same_parameters_and_full_size_images_give_a_map():
    model = jaxcnn.create_model("vgg16", dense=True)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.tree.map(lambda leaf: leaf.shape, variables["params"]) == jax.tree.map(
        lambda leaf: leaf.shape, shapes("vgg16")
    )
    larger = jax.ShapeDtypeStruct((1, 384, 416, 3), jnp.float32)
    found = jax.eval_shape(lambda v, x: jaxcnn.endpoints(model, v, x), variables, larger)
    assert found["score_map"].shape == (1, 6, 7, 1000)
    assert found["pre_logits"].shape == (1, 4096)


def test_batch_statistics_move_and_dropout_draws_while_training():
    model, variables = build("vgg11_bn")
    images = draw_images((4, 32, 32, 3))

    @jax.jit
    def train(variables, seed):
        return model.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )

    (first, state), (second, _) = train(variables, 0), train(variables, 1)
    assert np.abs(first - second).max() > 1e-3
    moved = jax.tree.map(
        lambda a, b: bool(np.abs(a - b).min() > 0), state["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


def test_torch_names_count_positions_in_one_sequence():
    """Positions as torchvision prints them for vgg13 and vgg11_bn."""
    rules = importlib.import_module("jaxcnn.weights.rules.vgg")
    convs = [f"block{b}/conv{i}" for b in range(1, 6) for i in (1, 2)]
    names = [rules.torch_name("vgg_b", path) for path in convs]
    assert names == [f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)]
    assert rules.torch_name("vgg_a_bn", "block5/conv2") == "features.25"
    assert rules.torch_name("vgg_a_bn", "block5/bn2") == "features.26"
    assert rules.torch_name("vgg_b", "fc8") == "classifier.6"


def test_glorot_values_have_their_variance():
    model = jaxcnn.create_model("vgg11", min_size=32, initializer="glorot", widths=(8,) * 5)
    params = compile_init(lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)))["params"])(
        jax.random.key(0)
    )
    kernel = params["block3"]["conv2"]["kernel"]
    np.testing.assert_allclose(kernel.var(), 2 / (9 * 8 + 9 * 8), rtol=0.2)
    assert not np.any(params["block3"]["conv2"]["bias"])


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, 256, "images are 256x256; .* VGG take 224x224; dense=True"),
        ({}, 200, "at least 224x224"),
        ({"min_size": 31}, 128, "min_size is 31; it must be at least 32"),
        ({"initializer": "xavier"}, 224, "initializer is 'xavier'; it must be one of he, glorot"),
    ],
)
def test_bad_input_is_named(options, size, message):
    model = jaxcnn.create_model("vgg16", **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def test_aliases_name_the_depths():
    for depth, name in ((11, "vgg_a"), (13, "vgg_b"), (16, "vgg_d"), (19, "vgg_e")):
        convs = sum(vgg.VARIANTS[name].keywords["convs"])
        assert convs + 3 == depth
        assert registry.list_aliases()[f"vgg{depth}_bn"] == f"{name}_bn"


def test_without_fully_connected_layers_the_classifier_reads_the_average_of_the_map():
    model = jaxcnn.create_model("vgg11", min_size=32, fc_width=0, widths=(4,) * 5, num_classes=3)
    x = jax.random.normal(jax.random.key(1), (2, 70, 50, 3))
    variables = compile_init(model.init)(jax.random.key(0), x)
    found = jaxcnn.endpoints(model, variables, x)
    assert found["stage5"].shape == (2, 2, 1, 4)
    assert set(variables["params"]) == {*(f"block{i}" for i in range(1, 6)), "fc8"}
    head = variables["params"]["fc8"]
    wanted = found["stage5"].mean((1, 2)) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), wanted, rtol=1e-5, atol=1e-6)
