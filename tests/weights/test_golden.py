"""Networks against torchvision's and timm's answers for the same weights and images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import weights

import jaxcnn
from jaxcnn.weights import from_torch, to_torch

# golden file -> our id, where they differ
IDS = {
    "alexnet": "alexnet_owt",
    "googlenet": "googlenet_bn",
    "legacy_senet154": "senet154",
    "legacy_seresnet18": "se_resnet18",
    "legacy_seresnet50": "se_resnet50",
    "legacy_seresnet152": "se_resnet152",
    "legacy_seresnext50_32x4d": "se_resnext50_32x4d",
    "resnetv2_18": "resnet18_v2",
    "resnetv2_50": "resnet50_v2",
    "seresnet50": "se_resnet50_v1_5",
}
QUICK = ("legacy_seresnet18", "googlenet", "dpn68", "alexnet", "inception_v3")
FILES = sorted(path.stem for path in weights.HERE.glob("*.npz"))
FLOAT64 = ("resnet18", "resnetv2_18", "legacy_seresnet18", "googlenet", "dpn68")


def marked(names, quick):
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def answers(model, variables, images):
    """{logits, aux1, ...} in evaluation mode."""

    @jax.jit
    def run(variables, images):
        logits, state = model.apply(variables, images, mutable=["endpoints"])
        aux = {k: v for k, v in state["endpoints"].items() if k.startswith("aux")}
        return {"logits": logits, **aux}

    return jax.device_get(run(variables, images))


def check(got, arrays, suffix, tolerance):
    expected = {k: arrays[k + suffix] for k in ("logits", "aux", "aux1", "aux2") if k in arrays}
    if "aux" in expected:  # Inception-v3 has one head only
        expected["aux1"] = expected.pop("aux")
    assert set(got) == set(expected)
    for name, values in expected.items():
        worst = np.abs(got[name] - values).max() / np.abs(values).max()
        assert worst <= tolerance, f"{name} is off by {worst:.1e} of the largest"


@pytest.mark.parametrize("golden", marked(FILES, QUICK))
def test_logits_are_the_peers(golden):
    arrays, meta = weights.load(golden)
    state = weights.state_dict(meta)
    name = IDS.get(golden, golden)
    variables = from_torch(name, state)
    got = answers(jaxcnn.create_model(name), variables, jnp.asarray(weights.images(meta)))
    check(got, arrays, "", meta["tolerance"]["float32"])

    back = to_torch(name, variables)
    assert {k: (v.dtype, v.shape) for k, v in back.items()} == {
        k: (v.dtype, v.shape) for k, v in state.items()
    }
    assert all(back[key].tobytes() == state[key].tobytes() for key in state)


@pytest.mark.parametrize("golden", marked(FLOAT64, ("resnet18", "resnetv2_18")))
def test_logits_in_float64(golden, float64):
    arrays, meta = weights.load(golden)
    name = IDS.get(golden, golden)
    model = jaxcnn.create_model(name, dtype=jnp.float64)
    variables = from_torch(name, weights.state_dict(meta))
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
    got = answers(model, variables, jnp.asarray(weights.images(meta), jnp.float64))
    assert got["logits"].dtype == np.float64
    check(got, arrays, "_f64", meta["tolerance"]["float64"])


@pytest.mark.parametrize("golden", ["resnet18", "dpn68b"])
def test_the_rule_makes_the_recorded_weights(golden):
    _, meta = weights.load(golden)
    arrays = weights.state_dict(meta).values()
    total = sum(float(np.abs(array).sum(dtype=np.float64)) for array in arrays)
    assert total == pytest.approx(meta["weights_abs_sum"], rel=1e-6)


# Others of the same families, with fewer blocks, have the same rules.
DEEP = {
    "dpn92", "dpn107", "legacy_senet154", "legacy_seresnet152", "resnet34", "resnet101",
    "resnext101_32x8d", "wide_resnet50_2", "resnet50s", "vgg16", "vgg19",
}  # fmt: skip


@pytest.mark.parametrize("golden", marked(FILES, set(FILES) - DEEP))
def test_all_keys_and_shapes_are_the_peers_and_a_wrong_one_is_named(golden):
    _, meta = weights.load(golden)
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in meta["state_dict"]}
    key = next(k for k in state if k.endswith("weight"))
    state["planted.weight"] = state.pop(key)
    with pytest.raises(ValueError, match="do not fit") as error:
        from_torch(IDS.get(golden, golden), state)
    # Nothing but the planted key is wrong: all others are used, with their shapes.
    assert "1 missing (-), 1 surplus (+)\n" in str(error.value)
    assert f"- {key} " in str(error.value) and "+ planted.weight " in str(error.value)
