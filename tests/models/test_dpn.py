"""DPN: widths of both paths, a slow NumPy form at small width, the split variant."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables

import jaxcnn
from jaxcnn.models import dpn

TINY = {
    "stem": (6, 3),
    "blocks": (2, 1, 1, 2),
    "width": 8,
    "mid": 8,
    "groups": 4,
    "growth": (2, 4, 3, 5),
    "num_classes": 5,
}


@pytest.mark.parametrize("name", [n for n in dpn.VARIANTS if "68" in n or "92" in n])
def test_a_stage_ends_with_its_width_and_growth_times_blocks_and_two(name):
    model = jaxcnn.create_model(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = jax.eval_shape(lambda v, x: jaxcnn.endpoints(model, v, x), variables, images)
    for i, (blocks, growth) in enumerate(zip(model.blocks, model.growth)):
        channels = model.width * 2**i + growth * (blocks + 2)
        assert found[f"stage{i + 1}"].shape == (1, 56 >> i, 56 >> i, channels)
    assert found["pre_logits"].shape[1] == (832 if "68" in name else 2688)


def slow_dpn(variables, x, model):
    p, stats = (jax.tree.map(np.asarray, variables[k]) for k in ("params", "batch_stats"))

    def norm(x, *path):
        scale, moments = p, stats
        for key in path:
            scale, moments = scale[key], moments[key]
        x = reference.batch_norm(
            x, scale["scale"], scale["bias"], moments["mean"], moments["var"], 1e-3
        )
        return reference.relu(x)

    x = reference.conv(x, p["stem_conv"]["kernel"], 2, 1)
    x = reference.max_pool(norm(x, "stem_bn"), 3, 2, 1)
    for i, blocks in enumerate(model.blocks):
        width = model.width * 2**i
        for j in range(blocks):
            block = f"stage{i + 1}_block{j + 1}"
            kernels = {k: v["kernel"] for k, v in p[block].items() if "kernel" in v}
            stride = 2 if i > 0 and j == 0 else 1
            if j == 0:
                both = reference.conv(norm(x, block, "proj_bn"), kernels["proj_conv"], stride)
            else:
                both = x
            y = reference.conv(norm(x, block, "bn1"), kernels["conv1"])
            y = reference.conv(norm(y, block, "bn2"), kernels["conv2"], stride, 1, model.groups)
            y = reference.conv(norm(y, block, "bn3"), kernels["conv3"])
            residual = both[..., :width] + y[..., :width]
            x = np.concatenate([residual, both[..., width:], y[..., width:]], -1)
    x = norm(x, "final_bn").mean((1, 2))
    return x @ p["fc"]["kernel"] + p["fc"]["bias"]


def test_network_equals_the_slow_one_and_its_split_form():
    model = jaxcnn.create_model("dpn92", **TINY)
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((2, 64, 48, 3))
    want = slow_dpn(variables, images, model)
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())

    params = {}
    for name, layers in variables["params"].items():
        params[name] = dict(layers)
        if "conv3" in layers:
            kernel = params[name].pop("conv3")["kernel"]
            width = model.width * 2 ** (int(name[5]) - 1)
            params[name]["conv3_residual"] = {"kernel": kernel[..., :width]}
            params[name]["conv3_dense"] = {"kernel": kernel[..., width:]}
    split = jax.jit(model.clone(split=True).apply)({**variables, "params": params}, images)
    np.testing.assert_allclose(split, logits, atol=1e-5 * np.abs(want).max())


def test_recomputing_blocks_changes_no_gradient():
    model = jaxcnn.create_model("dpn92", **TINY | {"blocks": (2,), "growth": (2,)})
    variables = draw_variables(model, (1, 32, 32, 3))
    images = draw_images((4, 32, 32, 3))

    def gradient(model):
        def loss(params):
            logits, _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits**2)

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = gradient(model), gradient(model.clone(remat=True))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again)):
        np.testing.assert_allclose(a, b, atol=1e-4 * scale)
        assert np.abs(a).max() > 0


def test_normalization_is_the_releases():
    info = jaxcnn.model_info("dpn92")
    pixel = np.array([200.0, 10.0, 104.0])
    normalized = (pixel / 255 - np.array(info.mean)) / np.array(info.std)
    np.testing.assert_allclose(normalized, (pixel - [124, 117, 104]) * 0.0167, atol=1e-12)


def test_names_are_timms():
    rules = importlib.import_module("jaxcnn.weights.rules.dpn")
    for path, name in {
        "stage1_block1/proj_bn": "features.conv2_1.c1x1_w_s1.bn",
        "stage4_block1/proj_conv": "features.conv5_1.c1x1_w_s2.conv",
        "stage3_block12/conv2": "features.conv4_12.c3x3_b.conv",
        "stage2_block2/conv3_dense": "features.conv3_2.c1x1_c2",
        "final_bn": "features.conv5_bn_ac.bn",
        "fc": "classifier",
    }.items():
        assert rules.torch_name("dpn98", path) == name
    assert rules.dense_layout("dpn98", "fc") == "conv1x1"
