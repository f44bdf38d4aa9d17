"""Configurations of runs of a second: the tiny network of `tiny.py` on synthetic images."""

import contextlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny import Tiny

from jaxcnn import models
from jaxcnn.training import train
from jaxcnn.training.config import default_config, set_duration
from jaxcnn.training.output import checkpoints


@contextlib.contextmanager
def registered(name, module_class, **facts):
    """The network has a name for a while."""
    models.register(name, module_class, **facts)
    try:
        yield
    finally:
        models.unregister(name)


@pytest.fixture(scope="module")
def tiny_network():
    """Makes `model.name = "tiny"` known."""
    with registered("tiny", Tiny):
        yield


def small_config(*, steps=12, batch_size=48, model="tiny"):
    config = default_config()
    config.model.name = model
    config.data.source = "synthetic"
    config.data.train_split, config.data.test_split = "train[:200]", "test[:70]"
    config.train.batch_size, config.train.devices = batch_size, 1
    config.eval.batch_size = 32
    config.log.every_steps = 3
    set_duration(config.train, "length", steps=steps)
    set_duration(config.eval, "every", steps=4)
    set_duration(config.checkpoint, "every", steps=4)
    return config


def run(config, directory, **options):
    """All reports of a run."""
    return list(train(config, directory, **options))


def last_checkpoint(directory):
    """(step, {path: array}, numbers) of the newest checkpoint, as it was saved."""
    store = checkpoints.Checkpoints(directory / "checkpoints", 3)
    with store:
        step = store.steps()[-1]
        args, held = store._args, jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with ocp.StandardCheckpointer() as reader:
            saved = reader.metadata(store.directory / str(step) / "state").item_metadata.tree
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=held), saved
        )
        item = args.Composite(state=args.StandardRestore(like), meta=args.JsonRestore())
        restored = store._manager.restore(step, args=item)
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return step, {jax.tree_util.keystr(p): np.asarray(v) for p, v in leaves}, restored.meta


def assert_same_run(one, other):
    """The newest checkpoints are equal bit for bit, and the files but for the speed."""
    (step, state, meta), (other_step, other_state, other_meta) = map(last_checkpoint, (one, other))
    assert step == other_step and meta == other_meta and state.keys() == other_state.keys()
    for path, value in state.items():
        np.testing.assert_array_equal(value, other_state[path], err_msg=path)
    assert without_speed(one) == without_speed(other)


def without_speed(directory):
    import csv

    from jaxcnn.training.output.metrics_files import CSV, read_rows

    timed = ("images_per_second", "data_wait_ms", "step_ms", "eval_seconds", "checkpoint_seconds")
    rows = [{k: v for k, v in r.items() if k not in timed} for r in read_rows(directory)]
    with open(directory / CSV, newline="") as file:
        table = [{k: v for k, v in r.items() if k not in timed} for r in csv.DictReader(file)]
    return rows, table
