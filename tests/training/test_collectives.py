"""What the devices of a data-parallel step exchange: gradients once, and nothing that gathers."""

import collections
import itertools
import math

import jax
import numpy as np
import pytest
from tiny import SHAPE, Tiny, begin

from jaxcnn import configs
from jaxcnn.models.costs import sub_jaxprs
from jaxcnn.training import parallel
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig, read_config
from jaxcnn.training.engine import pure_step
from jaxcnn.training.input import loaders
from jaxcnn.training.step import make_train_step

# One recipe for each family; "smoke" makes the networks narrow.
RECIPES = ("alexnet", "zfnet", "vgg", "googlenet", "inception_v3", "resnet_imagenet",
           "cifar_preact", "cifar_wrn", "cifar_resnext", "senet", "dpn", "mnist_lenet")  # fmt: skip
SUMS = ("psum", "psum_invariant")
GATHERS = ("all_gather", "all_to_all", "ppermute", "reduce_scatter", "pgather")


def communicating(jaxpr, found=None):
    """{primitive: shapes and types that each of its equations communicates} of a jaxpr."""
    found = collections.defaultdict(list) if found is None else found
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in (*SUMS, *GATHERS):
            found[eqn.primitive.name].append([var.aval for var in eqn.invars])
        for inner in sub_jaxprs(eqn):
            communicating(inner, found)
    return found


def traced(recipe, bn_sync):
    """(what the devices of the recipe's step communicate, sizes of parameters and statistics)."""
    config = read_config(f"{recipe}:smoke")
    with config.unlocked():
        config.train.update({"devices": 4, "bn_sync": bn_sync, "bn_group": None})
    experiment = build_experiment(TrackedConfig(config))
    call = parallel.parallelize(pure_step(experiment), experiment.mode, experiment.mesh)
    state = parallel.abstract_state(experiment.shapes, experiment.mesh)
    key = parallel.abstract_state(jax.eval_shape(lambda: jax.random.key(0)), experiment.mesh)
    jaxpr = call.trace(state, loaders.abstract_batch(experiment), key).jaxpr.jaxpr
    shapes = experiment.shapes
    leaves = jax.tree.leaves((shapes.params, shapes.batch_stats))
    return communicating(jaxpr), [math.prod(leaf.shape) for leaf in leaves]


def sent_types(dtype):
    """The types of the large arrays that the step of four devices adds up."""
    model = Tiny()
    optimizer, start = begin(model)
    one = make_train_step(model, optimizer, axis_name=parallel.AXIS, reduce_dtype=dtype)
    mesh = parallel.make_mesh(4)
    batch = {"image": np.zeros((16, *SHAPE), np.float32), "label": np.zeros(16, np.int32)}
    args = start, parallel.place_batch(batch, mesh), jax.random.key(0)
    jaxpr = parallel.parallelize(one, "shard_map", mesh).trace(*args).jaxpr.jaxpr
    kernels = {leaf.shape for leaf in jax.tree.leaves(start.params) if leaf.ndim > 1}

    equations = itertools.chain.from_iterable(communicating(jaxpr).values())
    sums = itertools.chain.from_iterable(equations)
    return {str(array.dtype) for array in sums if array.shape in kernels}


def test_gradients_are_sent_in_the_type_that_was_asked_for():
    assert sent_types(None) == {"float32"} and sent_types("bfloat16") == {"bfloat16"}


QUICK = ("cifar_preact", "mnist_lenet")


@pytest.mark.parametrize(
    "recipe", [r if r in QUICK else pytest.param(r, marks=pytest.mark.slow) for r in RECIPES]
)
def test_each_family_exchanges_its_gradients_once(recipe):
    assert recipe in configs.names()
    local, exchanged = traced(recipe, "local")
    [name] = local
    assert name in SUMS
    sizes = sorted(array.size for arrays in local[name] for array in arrays)
    rest = collections.Counter(sizes) - collections.Counter(exchanged)
    # beside gradients and statistics: the loss, and the sum and count of each metric
    assert len(sizes) == len(exchanged) + sum(rest.values()) and set(rest) <= {1}
    assert sum(rest.values()) <= 9
    synced, _ = traced(recipe, "global")
    assert not set(synced) & set(GATHERS)
