"""Conversion to and from torch's layout: every family both ways, and weights that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_like import equal, state_dict

import jaxcnn
from jaxcnn.models import registry
from jaxcnn.weights import from_torch, layout, to_torch

SMALL = {  # of each family one, made small
    "lenet5_modern": {},
    "lenet5_1998": {},
    "alexnet_2gpu": {"fc_width": 8},
    "zfnet_512": {"fc_width": 8},
    "vgg_a_bn": {"fc_width": 8},
    "googlenet": {},
    "bn_inception": {},
    "inception_v3": {},
    "inception_v4": {},
    "inception_resnet_v2": {},
    "resnet20_cifar": {},
    "resnet110_v2_cifar": {},
    "wrn16_8_cifar": {},
    "resnext29_8x64d_cifar": {},
    "se_resnet18": {},
    "dpn68": {},
}


def test_every_family_is_here():
    assert {registry.model_info(name).family for name in SMALL} == set(registry.FAMILIES)


@pytest.mark.parametrize("name", SMALL)
def test_a_mapping_comes_back_bit_for_bit(name):
    state = state_dict(name, **SMALL[name])
    back = to_torch(name, from_torch(name, state, **SMALL[name]), **SMALL[name])
    assert sorted(back) == sorted(state)
    assert all(back[key].dtype == state[key].dtype for key in state)
    assert all(back[key].tobytes() == state[key].tobytes() for key in state)
    assert all(back[key].flags.c_contiguous for key in state)


def test_variables_are_those_of_init():
    model = jaxcnn.create_model("resnet20_cifar")
    wanted = jax.eval_shape(lambda k: model.init(k, jnp.zeros((1, 32, 32, 3))), jax.random.key(0))
    got = from_torch("resnet20_cifar", state_dict("resnet20_cifar"))
    wanted = {k: wanted[k] for k in ("params", "batch_stats")}
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    shapes = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), got, wanted)
    assert jax.tree.all(shapes)
    assert "batch_stats" not in from_torch("lenet5", state_dict("lenet5"))


def test_a_dense_layer_after_a_map_reads_channels_last():
    """fc6 of a torch net sees (channel, row, column), ours (row, column, channel)."""
    state = state_dict("vgg_a", fc_width=8)
    kernel = from_torch("vgg_a", state, fc_width=8)["params"]["fc6"]["kernel"]
    x = np.random.default_rng(1).random((7, 7, 512), np.float32)
    expected = state["classifier.0.weight"] @ x.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(x.reshape(-1) @ kernel, expected, rtol=1e-4)


def test_a_net_made_for_smaller_images():
    options = {"fc_width": 8, "min_size": 32}
    state = state_dict("vgg_a", 10, **options)
    assert state["classifier.0.weight"].shape == (8, 512)
    variables = from_torch("vgg_a", state, **options)
    assert variables["params"]["fc6"]["kernel"].shape == (512, 8)


def test_timms_vgg_is_torchvisions():
    state = state_dict("vgg_a", fc_width=8)
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2"}
    names["classifier.6"] = "head.fc"
    timm = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        timm[f"{names.get(module, module)}.{leaf}"] = value
    timm["pre_logits.fc1.weight"] = timm["pre_logits.fc1.weight"].reshape(8, 512, 7, 7)
    timm["pre_logits.fc2.weight"] = timm["pre_logits.fc2.weight"].reshape(8, 8, 1, 1)
    variables = from_torch("vgg_a", timm, fc_width=8)
    assert equal(variables, from_torch("vgg_a", state, fc_width=8))


def test_the_mapping_says_the_number_of_classes_unless_the_caller_does():
    state = state_dict("resnet20_cifar", 7)
    assert from_torch("resnet20_cifar", state)["params"]["fc"]["bias"].shape == (7,)
    with pytest.raises(ValueError, match=r"fc.weight is \[7, 64\], not \[10, 64\]"):
        from_torch("resnet20_cifar", state, num_classes=10)
    assert "fc" not in from_torch("resnet20_cifar", state, num_classes=0)["params"]


@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_auxiliary_heads_come_if_the_mapping_has_them(name):
    whole, bare = state_dict(name), state_dict(name, auxiliary=False)
    assert any(k.startswith("aux") for k in from_torch(name, whole)["params"])
    variables = from_torch(name, bare)
    assert not any(k.startswith("aux") for k in variables["params"])
    assert sorted(to_torch(name, variables)) == sorted(bare)
    without = from_torch(name, whole, aux_heads=False)
    assert equal(without, from_torch(name, {k: v for k, v in whole.items() if k in bare}))
    first = next(k for k in whole if k.lower().startswith("aux"))
    with pytest.raises(ValueError, match=f"1 missing.*\n  - {first} "):
        from_torch(name, {k: v for k, v in whole.items() if k != first})


def test_what_does_not_fit_is_listed_with_signs():
    state = state_dict("resnet20_cifar")
    state["layer1.0.conv9.weight"] = state.pop("layer1.0.conv1.weight")
    state["fc.bias"] = np.zeros((10, 1), np.float32)
    with pytest.raises(ValueError) as error:
        from_torch("resnet20_cifar", state)
    assert str(error.value).splitlines() == [
        "these weights do not fit resnet20_cifar: 1 missing (-), 1 surplus (+), 1 of another shape",
        "  - layer1.0.conv1.weight [16, 16, 3, 3]",
        "  + layer1.0.conv9.weight [16, 16, 3, 3]",
        "  fc.bias is [10, 1], not [10]",
    ]


def test_another_family_is_named_and_the_list_is_bounded():
    zeros = {
        leaf.key: np.broadcast_to(np.float32(0), leaf.stored_shape(1000))
        for leaf in layout.describe("vgg_d").leaves
    }
    with pytest.raises(ValueError) as error:
        from_torch("resnet50", zeros)
    text = str(error.value)
    assert len(text.splitlines()) < 25 and "more missing (-)" in text
    assert text.splitlines()[-1] == "they have as many parameters as vgg_d"


def test_variables_of_another_network_are_refused():
    variables = from_torch("lenet5", state_dict("lenet5"))
    with pytest.raises(ValueError, match=r"do not fit lenet_caffe: 2 surplus \(\+\)"):
        to_torch("lenet_caffe", variables)


def test_values_have_to_be_numbers():
    state = state_dict("lenet5")
    state["fc3.bias"] = np.array([None] * 10)
    with pytest.raises(ValueError, match=r"1 not of real numbers\n  fc3\.bias holds object"):
        from_torch("lenet5", state)


def test_half_precision_becomes_float32():
    state = state_dict("lenet5")
    half = {key: value.astype(np.float16) for key, value in state.items()}
    single = {key: value.astype(np.float32) for key, value in half.items()}
    assert equal(from_torch("lenet5", half), from_torch("lenet5", single))


def test_the_result_is_a_copy():
    state = state_dict("lenet5")
    variables = from_torch("lenet5", state)
    before = np.array(variables["params"]["conv1"]["bias"])
    state["conv1.bias"][:] = 9
    assert np.array_equal(variables["params"]["conv1"]["bias"], before)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="did you mean 'lenet5'"):
        from_torch("lenet6", {})
    with pytest.raises(ValueError, match="unknown option 'depth'"):
        from_torch("lenet5", {}, depth=3)
