"""Parameters and multiply-adds of every network, from shapes and jaxprs: nothing is computed."""

import re

import jax
import jax.numpy as jnp
import pytest

import jaxcnn
from jaxcnn import ops
from jaxcnn.analysis.layer_rows import layer_rows
from jaxcnn.models import registry
from jaxcnn.models.blocks import BasicBlock, PreActBasicBlock
from jaxcnn.models.costs import count_params, jaxpr_depth, jaxpr_macs

# Published results of several networks together, and networks that no publication describes fully.
NOT_BUILT = {
    "inception_v2_table1",  # its table prints no filter counts
    "se_inception_resnet_v2",  # a re-implementation that was never released
}


# Deep networks take a while to trace; shallower ones of the same kind have the same blocks.
DEEP = re.compile(
    r"(?!resnet164|resnet110_v2).*(resnet|resnext|plain)(1\d\d|200|1001|1202)(\D.*)?|dpn(98|107|131)"
)
SLOW = {
    "bn_inception_608", "bn_inception_dense_stem", "dpn68b", "dpn92", "googlenet_bn_5x5",
    "googlenet_separable_stem", "inception_resnet_v1", "inception_resnet_v2",
    "inception_resnet_v2_paper", "inception_v4", "resnet110_v2_cifar", "resnet164_v2_cifar",
    "se_bn_inception", "senet154",
}  # fmt: skip
CASES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW or bool(DEEP.fullmatch(name))))
    for name in jaxcnn.list_models()
]


@pytest.mark.parametrize("name", CASES)
def test_counts(name):
    facts = registry.published()[name]
    # Auxiliary heads that are published are counted, also where they are off by default.
    options = {"aux_heads": True} if "params_with_aux" in facts else {}
    model = jaxcnn.create_model(name, **options)
    images = jax.ShapeDtypeStruct((1, *facts["input_size"]), jnp.float32)
    trace = jax.make_jaxpr(model.init_with_output, return_shape=True)
    with ops.use("reference"):  # plain operations only, which readers of a jaxpr know
        closed, (logits, variables) = trace(jax.random.key(0), images)
    assert logits.shape == (1, facts["num_classes"])
    assert logits.dtype == jnp.float32

    params = variables["params"]
    with_aux = count_params(params)
    aux = count_params([child for key, child in params.items() if key.startswith("aux")])
    assert with_aux - aux == facts["params"]
    assert facts.get("params_with_aux") == (with_aux if aux else None)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))

    depths = jaxpr_depth(closed.jaxpr, [None, 0])
    assert depths[0] == facts["depth"]

    # The summary's rows cover parameters and multiply-adds, and nothing twice.
    rows = layer_rows(closed.jaxpr, params)
    assert jaxpr_macs(closed.jaxpr) == sum(row.macs for row in rows)
    main = [row for row in rows if not row.name.startswith("aux")]
    assert sum(row.macs for row in main) == facts["macs"]
    assert sum(row.params for row in main) == facts["params"]
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("name", [n for n in jaxcnn.list_models() if DEEP.fullmatch(n)])
def test_the_blocks_of_deep_networks_make_their_depth(name):
    """A basic block has two convolutions and a bottleneck three; the stem and fc are two more."""
    model = jaxcnn.create_model(name)
    basic = getattr(model, "block", None) in (BasicBlock, PreActBasicBlock)
    depth = int(re.search(r"\d+", name)[0])
    assert (2 if basic else 3) * sum(model.blocks) + 2 == depth


def test_every_published_network_can_be_built():
    ensembles = {name for name in registry.published() if "ensemble" in name}
    assert set(registry.published()) - ensembles - NOT_BUILT == set(jaxcnn.list_models())


def test_info_of_every_network():
    for name in jaxcnn.list_models():
        info = jaxcnn.model_info(name)
        assert info.min_size <= info.input_size[0]
        assert info.year > 1980 and info.paper
        assert len(info.mean) == len(info.std) == info.input_size[2]


def test_aliases_resolve_and_collide_with_nothing():
    names = set(jaxcnn.list_models())
    aliases = registry.list_aliases()
    assert not names & set(aliases)
    for alias, name in aliases.items():
        assert registry.resolve(alias) == name
        assert alias in jaxcnn.model_info(alias).aliases
        assert name in jaxcnn.list_models(alias)


def test_no_two_families_share_an_id():
    ids = [name for module in registry._families().values() for name in module.VARIANTS]
    assert len(ids) == len(set(ids))


def test_unknown_names_and_options_suggest_near_ones():
    with pytest.raises(ValueError, match="unknown model 'lenet6'; did you mean 'lenet5'"):
        jaxcnn.create_model("lenet6")
    with pytest.raises(ValueError, match=r"'num_class'.*did you mean 'num_classes'"):
        jaxcnn.create_model("lenet5", num_class=3)
