"""GoogLeNet against table 1 of the paper, from shapes and jaxprs; its heads, options and sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import layers
from jaxcnn.models.costs import count_macs, count_params
from jaxcnn.models.googlenet import ROWS, AuxHead, GoogLeNet, Row, aux_pool, caffe_xavier
from jaxcnn.models.inception import Mixed, SeparableStem


def image(size, channels=3):
    height, width = layers.pair(size)
    return jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)


def shapes_of(model, x, **call):
    shapes = jax.eval_shape(functools.partial(model.init, **call), jax.random.key(0), x)
    return {k: v for k, v in shapes.items() if k != "endpoints"}


def endpoints_of(model, size):
    x = image(size)
    shapes = jax.eval_shape(functools.partial(jaxcnn.endpoints, model), shapes_of(model, x), x)
    return {name: leaf.shape[1:] for name, leaf in shapes.items()}


# Szegedy et al. 2014, table 1: input, size, output; parameters with biases and multiply-adds as
# the printed widths give them (the table's own cells for 4c and 5a contradict its widths).
TABLE = {
    "3a": (192, 28, 256, 163_696, 128_049_152),
    "3b": (256, 28, 480, 388_736, 304_267_264),
    "4a": (480, 14, 512, 376_176, 73_608_192),
    "4b": (512, 14, 512, 449_160, 87_908_352),
    "4c": (512, 14, 512, 510_104, 99_850_240),
    "4d": (512, 14, 528, 605_376, 118_515_712),
    "4e": (528, 14, 832, 868_352, 169_996_288),
    "5a": (832, 7, 832, 1_043_456, 51_079_168),
    "5b": (832, 7, 1024, 1_444_080, 70_697_984),
}


@pytest.mark.parametrize("name", TABLE)
def test_modules_are_those_of_table_1(name):
    inputs, size, outputs, params, macs = TABLE[name]
    module = Mixed(ROWS[name].branches(), GoogLeNet().unit(train=False))
    x = image(size, inputs)
    variables = shapes_of(module, x)
    assert count_params(variables) == params
    assert count_macs(module.apply, variables, x) == macs
    assert jax.eval_shape(module.apply, variables, x).shape == (1, size, size, outputs)


def test_naive_module_grows_and_reductions_bound_it():
    row = Row(one=128, reduce3=64, three=192, reduce5=64, five=96, projection=64)
    for branches, channels, macs in (
        (row.naive_branches(), 672, 854_196_224),
        (row.branches(), 480, 271_351_808),
    ):
        module = Mixed(branches, GoogLeNet().unit(train=False))
        x = image(28, 256)
        variables = shapes_of(module, x)
        assert jax.eval_shape(module.apply, variables, x).shape[-1] == channels
        assert count_macs(module.apply, variables, x) == macs


def test_endpoints_at_the_papers_size():
    assert endpoints_of(jaxcnn.create_model("googlenet"), 224) == {
        "stem": (28, 28, 192),
        "stage1": (28, 28, 480),
        "stage2": (14, 14, 832),
        "stage3": (7, 7, 1024),
        "pre_logits": (1024,),
        "aux1": (1000,),
        "aux2": (1000,),
    }
    naive = endpoints_of(jaxcnn.create_model("googlenet_naive"), 224)
    assert naive["stage3"] == (7, 7, 4944)  # "depth grows at every layer"


@pytest.mark.parametrize(
    "name, size", [("googlenet", 32), ("googlenet", (250, 320)), ("googlenet_bn", (33, 47))]
)
def test_any_size_has_endpoints_and_the_same_parameters(name, size):
    model = jaxcnn.create_model(name)
    assert shapes_of(model, image(size)) == shapes_of(model, image(224))
    found = endpoints_of(model, size)
    assert found["pre_logits"] == (1024,) and found["aux1"] == found["aux2"] == (1000,)


def test_pools_round_up():
    # 36 -> 18, then 9, 4, 2 and 1, where rounding down would give 8, 3, 1 and none.
    found = endpoints_of(jaxcnn.create_model("googlenet"), 36)
    assert [found[k][0] for k in ("stem", "stage1", "stage2", "stage3")] == [4, 4, 2, 1]


def test_auxiliary_heads_cost_only_where_they_are_asked_for():
    model = jaxcnn.create_model("googlenet")
    x = image(224)
    variables = shapes_of(model, x)

    def macs(**call):
        return count_macs(
            lambda v, x: model.apply(v, x, rngs={"dropout": jax.random.key(0)}, **call),
            variables,
            x,
        )

    published = jaxcnn.model_info("googlenet").macs
    assert macs() == macs(train=True) == published
    heads = 16 * (512 + 528) * 128 + 2 * (2048 * 1024 + 1024 * 1000)
    assert macs(train=True, mutable=["endpoints"]) == published + heads


def test_auxiliary_pool_is_the_papers_at_its_size_only():
    # A map that is 1 in the middle 4x4 of 14x14: 5x5/3 windows start at 0, 3, 6 and 9, adaptive
    # ones are [0, 4), [3, 7), [7, 11), [10, 14).
    x = jnp.zeros((1, 14, 14, 1)).at[:, 5:9, 5:9].set(1.0)
    paper, adaptive = np.array([0, 3, 3, 0]) / 5, np.array([0, 2, 2, 0]) / 4
    for shares, option in ((paper, False), (adaptive, True)):
        pooled = aux_pool(x, option)[0, :, :, 0]
        np.testing.assert_allclose(pooled, np.outer(shares, shares), atol=1e-6)
    assert aux_pool(jnp.ones((2, 20, 1, 3)), False).shape == (2, 4, 4, 3)


def test_separable_stem_is_a_7x7_convolution_of_rank_8_per_channel():
    stem = SeparableStem(unit=layers.conv, conv=layers.conv)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, 18, 16, 3)), jnp.float32)
    spatial, mixing = rng.standard_normal((7, 7, 1, 24)), rng.standard_normal((24, 64))
    variables = {
        "params": {
            "depthwise": {"kernel": jnp.asarray(spatial, jnp.float32)},
            "pointwise": {"kernel": jnp.asarray(mixing[None, None], jnp.float32)},
        }
    }
    # Channel c feeds the maps 8c .. 8c+7.
    kernel = np.einsum("hwcm,cmf->hwcf", spatial.reshape(7, 7, 3, 8), mixing.reshape(3, 8, 64))
    dense = layers.conv(64, 7, 2, 3)
    expected = dense.apply({"params": {"kernel": jnp.asarray(kernel, jnp.float32)}}, x)
    np.testing.assert_allclose(stem.apply(variables, x), expected, rtol=2e-4, atol=2e-3)


def test_initial_values_are_caffes():
    unit = GoogLeNet().unit(train=True)(8, (2, 3))
    params = unit.init(jax.random.key(0), jnp.zeros((1, 4, 4, 5)))["params"]["conv"]
    assert 0.31 < np.abs(params["kernel"]).max() <= (3 / (2 * 3 * 5)) ** 0.5  # 0.316
    assert (np.asarray(params["bias"]) == np.float32(0.2)).all()


def test_features_have_neither_classifier_nor_heads():
    model = jaxcnn.create_model("googlenet_bn", num_classes=0)
    x = image(64)
    variables = shapes_of(model, x)
    assert not [key for key in variables["params"] if key == "fc" or "aux" in key]
    assert jax.eval_shape(model.apply, variables, x).shape == (1, 1024)


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="31x40; GoogLeNet needs at least 32x32"):
        shapes_of(jaxcnn.create_model("googlenet"), image((31, 40)))


def test_auxiliary_logits_of_bfloat16_are_not_rounded_to_it():
    model = GoogLeNet(dtype=jnp.bfloat16)
    head = AuxHead(
        num_classes=64,
        adaptive=True,
        unit=model.unit(train=False),
        dtype=jnp.bfloat16,
        kernel_init=caffe_xavier,
        bias_init=nn.initializers.zeros,
        train=False,
    )
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 8), jnp.bfloat16)
    logits, _ = head.init_with_output(jax.random.key(1), x)  # without jit, which may not round
    assert logits.dtype == jnp.float32
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.5
