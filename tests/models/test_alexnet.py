"""AlexNet at small width: a slow NumPy form, the two towers, its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.models import alexnet, registry
from jaxcnn.runtime.compilation import compile_init
from jaxcnn.training.config.checks import check_options

NARROW = {"widths": (16, 16, 12, 12, 8), "fc_width": 10, "num_classes": 5}


def build(name="alexnet", size=227, **options):
    model = jaxcnn.create_model(name, **NARROW | options)
    return model, draw_variables(model, (1, size, size, 3))


def endpoints(model):
    return jax.jit(lambda v, x: jaxcnn.endpoints(model, v, x))


def slow_alexnet(params, x, *, groups, padding=0, normalize=None, pool_first=False):
    p = jax.tree.map(np.asarray, params)
    pool = lambda x: reference.max_pool(x, 3, 2)  # noqa: E731
    norm = normalize or (lambda x: x)
    geometry = ((4, padding), (1, 2), (1, 1), (1, 1), (1, 1))
    for i, (stride, pad) in enumerate(geometry, 1):
        layer = p[f"conv{i}"]["conv"]
        x = reference.conv(x, layer["kernel"], stride, pad, groups[i - 1], layer["bias"])
        x = reference.relu(x)
        if i <= 2:
            x = norm(pool(x)) if pool_first else pool(norm(x))
    x = pool(x).reshape(x.shape[0], -1)
    for name in ("fc6", "fc7"):
        x = reference.relu(x @ p[name]["kernel"] + p[name]["bias"])
    return x @ p["fc8"]["kernel"] + p["fc8"]["bias"]


@pytest.mark.parametrize(
    ("name", "size", "options", "slow"),
    [
        (
            "alexnet_2gpu",
            227,
            {"lrn": "paper"},
            {"groups": (1, 2, 1, 2, 2), "normalize": reference.local_response_norm},
        ),
        (
            "alexnet_caffenet",
            227,
            {"lrn": "caffe"},
            {
                "groups": (1, 2, 1, 2, 2),
                "normalize": lambda x: reference.local_response_norm(x, k=1, alpha=1e-4 / 5),
                "pool_first": True,
            },
        ),
        ("alexnet_owt", 224, {}, {"groups": (1,) * 5, "padding": 2}),
    ],
)
def test_network_equals_the_slow_one(name, size, options, slow):
    model, variables = build(name, size, **options)
    images = 20 * draw_images((1, size, size, 3))  # large enough for the normalization to matter
    logits = jax.jit(model.apply)(variables, images)
    want = slow_alexnet(variables["params"], images, **slow)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


def test_each_tower_sees_its_own_maps_until_conv3():
    model, variables = build(lrn_per_tower=True)
    images = draw_images((1, 227, 227, 3))
    run = endpoints(model)
    before = run(variables, images)
    bias = variables["params"]["conv1"]["conv"]["bias"]
    variables["params"]["conv1"]["conv"]["bias"] = bias.at[3].add(1.0)
    after = run(variables, images)
    changed = {k: np.any(before[k] != after[k], axis=(0, 1, 2)) for k in ("stage2", "stage3")}
    assert changed["stage2"][:8].any()
    assert not changed["stage2"][8:].any()
    assert changed["stage3"].mean() > 0.8  # a map may be dead behind its ReLU


def test_normalising_per_tower_differs_in_the_four_maps_at_the_split_only():
    images = 20 * draw_images((1, 227, 227, 3))
    one, variables = build()
    two, _ = build(lrn_per_tower=True)
    a, b = (endpoints(model)(variables, images)["stage1"] for model in (one, two))
    differs = np.any(np.abs(a - b) > 1e-5, axis=(0, 1, 2))
    np.testing.assert_array_equal(np.flatnonzero(differs), [6, 7, 8, 9])


def test_a_224_image_is_one_of_227_with_zeros_below_and_to_the_right():
    model, variables = build()
    images = draw_images((1, 224, 224, 3))
    padded = jnp.pad(images, ((0, 0), (0, 3), (0, 3), (0, 0)))
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(variables, images), apply(variables, padded), atol=1e-5)


def keep_center_taps(params, layers):
    """Makes these convolutions 1x1, so that no padding reaches their output."""
    for layer in layers:
        kernel = params[layer]["conv"]["kernel"]
        center = kernel.shape[0] // 2
        kept = jnp.zeros_like(kernel).at[center, center].set(kernel[center, center])
        params[layer]["conv"]["kernel"] = 5 * kept


def test_dense_evaluation():
    """At native size: the same. Without padding in the way: the mean over shifted crops."""
    model, variables = build()
    dense = model.clone(dense=True)
    run = jax.jit(lambda v, x: dense.apply(v, x, mutable=["endpoints"]))
    apply = jax.jit(model.apply)
    image = draw_images((1, 227, 227, 3))
    logits, state = run(variables, image)
    np.testing.assert_allclose(logits, apply(variables, image), atol=1e-5)
    assert state["endpoints"]["score_map"].shape == (1, 1, 1, 5)

    keep_center_taps(variables["params"], ("conv2", "conv3", "conv4", "conv5"))
    image = draw_images((1, 259, 227, 3))
    logits, state = run(variables, image)
    crops = jnp.concatenate([image[:, :227], image[:, 32:]])
    of_crops = apply(variables, crops)
    np.testing.assert_allclose(state["endpoints"]["score_map"][0, :, 0], of_crops, atol=1e-5)
    np.testing.assert_allclose(logits[0], of_crops.mean(0), atol=1e-5)
    assert np.abs(of_crops[0] - of_crops[1]).max() > 1e-3
    features = dense.clone(num_classes=0).apply(variables, image)
    np.testing.assert_allclose(features, state["endpoints"]["pre_logits"], atol=1e-5)


def test_dropout_follows_the_dense_layers_or_precedes_them():
    """With everything dropped only what lies behind the last dropout is left."""
    for first in (False, True):
        model, variables = build(dropout=1.0, dropout_first=first)
        p = variables["params"]
        logits = jax.jit(lambda v, x, model=model: model.apply(
            v, x, train=True, rngs={"dropout": jax.random.key(0)}
        ))(variables, draw_images((1, 227, 227, 3)))  # fmt: skip
        behind = np.maximum(p["fc7"]["bias"], 0) if first else np.zeros(10)
        np.testing.assert_allclose(
            logits[0], behind @ p["fc8"]["kernel"] + p["fc8"]["bias"], rtol=1e-5
        )


@pytest.mark.parametrize(
    ("initializer", "one", "std", "fc_std"),
    [("caffe", 0.1, 0.01, 0.005), ("paper", 1, 0.01, 0.01)],
)
def test_initial_values(initializer, one, std, fc_std):
    model = jaxcnn.create_model("alexnet", initializer=initializer, **NARROW | {"fc_width": 64})
    # Only the parameters leave the function, so that XLA drops the forward pass.
    params = compile_init(lambda key: model.init(key, jnp.zeros((1, 227, 227, 3)))["params"])(
        jax.random.key(0)
    )
    layers = {f"conv{i}": params[f"conv{i}"]["conv"] for i in range(1, 6)} | {
        f"fc{i}": params[f"fc{i}"] for i in (6, 7, 8)
    }
    biases = {name: float(layer["bias"][0]) for name, layer in layers.items()}
    ones = {name for name, bias in biases.items() if bias == np.float32(one)}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert {biases[name] for name in ("conv1", "conv3", "fc8")} == {0.0}
    np.testing.assert_allclose(layers["conv1"]["kernel"].std(), std, rtol=0.1)
    np.testing.assert_allclose(layers["fc6"]["kernel"].std(), fc_std, rtol=0.1)


def test_the_former_name_of_an_option_works_with_one_notice(caplog):
    registry._warn_once.cache_clear()
    for _ in range(2):
        model = jaxcnn.create_model("alexnet", initialiser="paper")
        assert model == jaxcnn.create_model("alexnet", initializer="paper")
    check_options("alexnet", {"initialiser": "paper"})
    with pytest.raises(ValueError, match="initializer is 1; it must be str"):
        check_options("alexnet", {"initialiser": 1})
    notes = [record.getMessage() for record in caplog.records]
    assert notes == ["the option initialiser is now initializer"]


def test_recomputing_changes_nothing_and_the_gradient_reaches_every_parameter():
    model, variables = build(lrn=None, conv1_padding=2, size=224, groups=(1, 2, 1, 1, 1))
    images = draw_images((2, 224, 224, 3))

    def gradient(model):
        return jax.jit(jax.grad(lambda p: jnp.sum(model.apply({"params": p}, images) ** 2)))

    plain, again = (gradient(m)(variables["params"]) for m in (model, model.clone(remat=True)))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again)):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())
        assert np.abs(a).max() > 0


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("alexnet", {}, 256, "images are 256x256; .* AlexNet take 227x227 or 224x224; dense=True"),
        ("alexnet", {"dense": True}, 225, "images are 225x225; .* at least 227x227"),
        ("alexnet", {}, 200, "at least 224x224"),
        ("alexnet_owt", {}, 227, "take 224x224; dense=True"),
        ("alexnet", {"lrn": "cafe"}, 227, "lrn is 'cafe'; did you mean 'caffe'"),
        ("alexnet", {"initializer": "torchh"}, 227, "initializer is 'torchh'.*'torch'"),
    ],
)
def test_bad_input_is_named(name, options, size, message):
    model = jaxcnn.create_model(name, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def test_variants_keep_the_papers_order_of_layers():
    build_ = {name: jaxcnn.create_model(name) for name in alexnet.VARIANTS}
    assert build_["alexnet_caffenet"] == build_["alexnet_2gpu"].clone(pool_first=True, lrn="caffe")
    assert build_["alexnet_ungrouped"] == build_["alexnet_2gpu"].clone(groups=(1,) * 5)
