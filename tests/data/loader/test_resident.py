"""Which examples a step's batch holds, and what an evaluation counts."""

import subprocess
import sys

import numpy as np
import pytest

from jaxcnn.data.loader import resident

# The first six examples of seed 0 in a set of 1,437: they must not change with versions.
FIRST = [667, 775, 1397, 1220, 725, 1160]


def run_of(seed, size, batch, epochs):
    """All indices of so many epochs, and a batch more, in order."""
    steps = -(-size * epochs // batch)
    return np.concatenate([resident.batch_indices(seed, s, size, batch) for s in range(steps)])


@pytest.mark.parametrize(("size", "batch"), [(1797, 128), (50, 50), (48, 16), (7, 20), (1, 3)])
def test_every_epoch_has_every_example_once(size, batch):
    """Also where the batch does not divide the set, or is larger than it."""
    index = run_of(3, size, batch, epochs=4)
    assert index.dtype == np.int32
    for epoch in index[: 4 * size].reshape(4, size):
        assert np.array_equal(np.sort(epoch), np.arange(size))


def test_epochs_and_seeds_differ():
    orders = [*run_of(0, 500, 100, 3)[:1500].reshape(3, 500), run_of(1, 500, 100, 1)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.mean(one == other) < 0.02


def test_first_places_are_drawn_evenly():
    """Over many epochs each example comes first about equally often: chi-squared, 9 degrees."""
    first = [resident.batch_indices(11, 10 * e, 10, 1)[0] for e in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert np.sum((counts - 200) ** 2 / 200) < 27.9  # exceeded once in a thousand


def test_a_batch_depends_on_seed_and_step_only():
    """Asked in another order and in another process; and the values that have been trained with."""
    later = resident.batch_indices(5, 1000, 1437, 64)
    run_of(6, 1437, 64, 2)
    assert np.array_equal(resident.batch_indices(5, 1000, 1437, 64), later)
    code = (
        "from jaxcnn.data.loader import resident\n"
        "print(resident.batch_indices(5, 1000, 1437, 64).sum())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == later.sum()
    assert resident.batch_indices(0, 0, 1437, 6).tolist() == FIRST


def test_orders_cannot_be_spoilt():
    batch = resident.batch_indices(0, 0, 10, 10)
    before = batch.copy()
    batch[:] = 0
    assert np.array_equal(resident.batch_indices(0, 0, 10, 10), before)


@pytest.mark.parametrize(("step", "size", "batch"), [(-1, 5, 2), (0, 0, 2), (0, 5, 0)])
def test_no_batch(step, size, batch):
    with pytest.raises(ValueError, match="makes no batch"):
        resident.batch_indices(0, step, size, batch)


@pytest.mark.parametrize(("size", "batch"), [(1797, 128), (256, 128), (5, 128), (1, 1)])
def test_evaluation_counts_each_once(size, batch):
    batches = list(resident.eval_batches(size, batch))
    assert len(batches) == -(-size // batch)
    assert all(b["index"].shape == b["mask"].shape == (batch,) for b in batches)
    index, mask = (np.concatenate([b[k] for b in batches]) for k in ("index", "mask"))
    assert mask.sum() == size and mask.dtype == np.float32 and index.dtype == np.int32
    assert np.array_equal(index[mask > 0], np.arange(size))
    assert index.max() < size
