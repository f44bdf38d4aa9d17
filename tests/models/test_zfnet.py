"""ZFNet at small width against a slow NumPy form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from drawing import draw_images, draw_variables

import jaxcnn

NARROW = {"widths": (8, 12, 10, 6, 8), "fc_width": 10, "num_classes": 5}


def slow_zfnet(params, x):
    p = jax.tree.map(np.asarray, params)
    for i, (stride, padding) in enumerate(((2, 1), (2, 0), (1, 1), (1, 1), (1, 1)), 1):
        layer = p[f"conv{i}"]["conv"]
        x = reference.relu(reference.conv(x, layer["kernel"], stride, padding, 1, layer["bias"]))
        if i <= 2:
            x = reference.local_response_norm(reference.max_pool(x, 3, 2, 1))
    x = reference.max_pool(x, 3, 2).reshape(x.shape[0], -1)
    for name in ("fc6", "fc7"):
        x = reference.relu(x @ p[name]["kernel"] + p[name]["bias"])
    return x @ p["fc8"]["kernel"] + p["fc8"]["bias"]


def test_network_equals_the_slow_one_and_its_dense_form():
    model = jaxcnn.create_model("zfnet", **NARROW)
    variables = draw_variables(model, (1, 224, 224, 3))
    images = 20 * draw_images((1, 224, 224, 3))
    want = slow_zfnet(variables["params"], images)
    for net in (model, model.clone(dense=True)):
        logits = jax.jit(net.apply)(variables, images)
        np.testing.assert_allclose(logits, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("name", "widths"),
    [("zfnet_384", (96, 256, 384, 384, 256)), ("zfnet_512", (96, 256, 512, 1024, 512))],
)
def test_stages_have_the_sizes_of_figure_3(name, widths):
    model = jaxcnn.create_model(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = jax.eval_shape(lambda v, x: jaxcnn.endpoints(model, v, x), variables, images)
    want = {
        f"stage{i}": (1, n, n, w) for i, (n, w) in enumerate(zip((55, 13, 13, 13, 6), widths), 1)
    }
    assert {k: v.shape for k, v in found.items() if k.startswith("stage")} == want


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"images are 256x256; .* ZFNet take 224x224; dense=True"):
        jax.eval_shape(
            jaxcnn.create_model("zfnet").init, jax.random.key(0), jnp.zeros((1, 256, 256, 3))
        )
