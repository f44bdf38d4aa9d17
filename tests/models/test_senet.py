"""SENet: the gate in closed form, slow NumPy forms, SENet-154's departures, names."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import draw_images, draw_variables
from slow_resnet import slow_resnet

import jaxcnn
from jaxcnn.models.costs import count_params

SMALL = {"width": 16, "stem": (8,), "num_classes": 5}


def shapes(name, **options):
    model = jaxcnn.create_model(name, **options)
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def test_constant_gates_scale_the_branch():
    model = jaxcnn.create_model("se_resnet50", **SMALL | {"blocks": (1, 1)})
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, 32, 32, 3))
    plain = {"params": {}, "batch_stats": variables["batch_stats"]}
    for name, module in variables["params"].items():
        module = dict(module)
        if "se" in module:
            # With no weights the gate is the sigmoid of the last bias, whatever the image.
            module["se"]["fc2"]["kernel"] *= 0
            gate = 1 / (1 + np.exp(-module.pop("se")["fc2"]["bias"]))
            module["bn3"] = {key: value * gate for key, value in module["bn3"].items()}
        plain["params"][name] = module
    gated = jax.jit(model.apply)(variables, images)
    scaled = jax.jit(model.clone(se_reduction=0).apply)(plain, images)
    np.testing.assert_allclose(gated, scaled, atol=1e-5 * np.abs(scaled).max())


CASES = {
    "se_resnet50": {"kind": "B", "strided": 1, "pool": "ceil"},
    "se_resnet50_v1_5": {"kind": "B", "strided": 2, "pool": "pad"},
    "se_resnext50_32x4d": {"kind": "B", "strided": 2, "pool": "ceil", "groups": 4},
    "senet154": {"kind": "B", "strided": 2, "pool": "ceil", "groups": 4},
}


@pytest.mark.parametrize("name", CASES)
def test_network_equals_the_slow_one(name):
    options = SMALL | {"blocks": (1, 1), "groups": CASES[name].get("groups", 1)}
    if options["groups"] > 1:
        options["base_width"] = 16
    if name == "senet154":
        options["stem"] = (4, 4, 8)
    model = jaxcnn.create_model(name, **options)
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, 34, 36, 3))
    want = slow_resnet(variables, images, **CASES[name])
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


def test_senet154_departs_from_resnext152_as_the_appendix_says():
    params = shapes("senet154")
    assert [params[f"stem_conv{i}"]["kernel"].shape[-1] for i in (1, 2, 3)] == [64, 64, 128]
    for stage in (1, 2, 3, 4):
        block = params[f"stage{stage}_block1"].items()
        block = {name: layer["kernel"].shape for name, layer in block if "kernel" in layer}
        width = 128 * 2 ** (stage - 1)
        assert block["conv1"][-1] == width
        assert block["conv2"] == (3, 3, width // 64, 2 * width)
        assert block["conv3"][-1] == 2 * width
        assert block["proj_conv"][0] == (1 if stage == 1 else 3)
    model = jaxcnn.create_model("senet154", blocks=(1,), dropout=1.0, num_classes=0)
    variables = draw_variables(model, (1, 32, 32, 3))
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    rngs = {"dropout": jax.random.key(0)}
    features, _ = jax.jit(train)(variables, draw_images((1, 32, 32, 3)), rngs=rngs)
    np.testing.assert_array_equal(features, 0)


def test_gates_have_biases_unless_told():
    assert count_params(shapes("se_resnet50")) == 28_088_024
    assert count_params(shapes("se_resnet50", se_bias=False)) == 28_071_976


@pytest.mark.parametrize(
    "name", ["se_resnet18", "se_resnet50_v1_5", "se_resnext50_32x4d", "senet154"]
)
def test_names_are_timms_and_differ(name):
    rules = importlib.import_module("jaxcnn.weights.rules.senet")
    paths = {
        "/".join(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes(name, blocks=(2, 1)))
    }
    names = {path: rules.torch_name(name, path) for path in paths}
    assert len(set(names.values())) == len(paths)
    legacy = not name.endswith("_v1_5")
    assert names["stage1_block2/se/fc1"] == f"layer1.1.{'se_module' if legacy else 'se'}.fc1"
    assert names["fc"] == ("last_linear" if legacy else "fc")
    stem = "stem_conv" if "stem_conv" in names else "stem_conv1"
    assert names[stem] == ("layer0.conv1" if legacy else "conv1")
    assert {path for path in paths if rules.dense_layout(name, path)} == {
        path for path in paths if "/se/" in path
    }
