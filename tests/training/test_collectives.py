"""What the devices of a data-parallel step exchange: gradients once, and nothing that gathers."""

import collections

import jax
import pytest

from jaxcnn import configs
from jaxcnn.models.costs import count_params, sub_jaxprs
from jaxcnn.training import parallel
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig, read_config
from jaxcnn.training.engine import pure_step
from jaxcnn.training.input import loaders

# One recipe for each family; "smoke" makes the networks narrow.
RECIPES = ("alexnet", "zfnet", "vgg", "googlenet", "inception_v3", "resnet_imagenet",
           "cifar_preact", "cifar_wrn", "cifar_resnext", "senet", "dpn", "mnist_lenet")  # fmt: skip
SUMS = ("psum", "psum_invariant")
GATHERS = ("all_gather", "all_to_all", "ppermute", "reduce_scatter", "pgather")


def communicating(jaxpr, found=None):
    """{primitive: sizes of the arrays that each of its equations communicates} of a jaxpr."""
    found = collections.defaultdict(list) if found is None else found
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in (*SUMS, *GATHERS):
            found[eqn.primitive.name].append([var.aval.size for var in eqn.invars])
        for inner in sub_jaxprs(eqn):
            communicating(inner, found)
    return found


def traced(recipe, bn_sync):
    """(communicating primitives of the recipe's step on four devices, number of parameters)."""
    config = read_config(f"{recipe}:smoke")
    with config.unlocked():
        config.train.update({"devices": 4, "bn_sync": bn_sync, "bn_group": None})
    experiment = build_experiment(TrackedConfig(config))
    call = parallel.parallelize(pure_step(experiment), experiment.mode, experiment.mesh)
    state = parallel.abstract_state(experiment.shapes, experiment.mesh)
    key = parallel.abstract_state(jax.eval_shape(lambda: jax.random.key(0)), experiment.mesh)
    jaxpr = call.trace(state, loaders.abstract_batch(experiment), key).jaxpr.jaxpr
    return communicating(jaxpr), count_params(experiment.shapes.params)


QUICK = ("googlenet", "cifar_preact", "mnist_lenet")


@pytest.mark.parametrize(
    "recipe", [r if r in QUICK else pytest.param(r, marks=pytest.mark.slow) for r in RECIPES]
)
def test_each_family_exchanges_its_gradients_once(recipe):
    assert recipe in configs.names()
    local, params = traced(recipe, "local")
    [name] = local
    assert name in SUMS
    sizes = local[name]
    assert len(sizes) == 1 and sum(sizes[0]) >= params
    synced, _ = traced(recipe, "global")
    assert not set(synced) & set(GATHERS)
