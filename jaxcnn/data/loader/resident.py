"""Batches of small datasets that are kept on the device: example indices as a function of the step.

The order of each epoch is drawn from (seed, epoch) with NumPy's legacy generator, whose results do
not change between versions. There is no state: a run can continue at any step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np


def batch_indices(seed: int, step: int, size: int, batch: int) -> np.ndarray:
    """Computes the indices of the examples of a batch.

    Epochs follow each other without gaps. Slot j of step s has position p = s * batch + j in the
    run, and contains the example order(seed, p // size)[p % size]. Every epoch has each example
    exactly once, even if a batch spans the end of one epoch and the start of the next.

    Args:
      seed: seed of the run, 0 to 2**32 - 1.
      step: number of the step, from 0.
      size: number of examples in the dataset.
      batch: number of examples in a batch.

    Returns:
      i32[batch].

      >>> second_epoch = [batch_indices(0, step, size=6, batch=3) for step in (2, 3)]
      >>> sorted(np.concatenate(second_epoch).tolist())
      [0, 1, 2, 3, 4, 5]
    """
    if min(size, batch) < 1 or step < 0:
        raise ValueError(f"step {step} of batch size {batch} over {size} examples makes no batch")
    position = step * batch + np.arange(batch, dtype=np.int64)
    epoch, within = position // size, position % size
    index = np.empty(batch, np.int32)
    for e in range(epoch[0], epoch[-1] + 1):
        in_epoch = epoch == e
        index[in_epoch] = _order(seed, e, size)[within[in_epoch]]
    return index


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    order = np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


def eval_batches(size: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches that contain every example once, in order.

    Args:
      size: number of examples in the dataset.
      batch: number of examples in a batch.

    Yields:
      {"index": i32[batch], "mask": f32[batch]}. The last batch is padded with example 0, with a
      mask of 0.
    """
    for start in range(0, size, batch):
        index = np.arange(start, start + batch, dtype=np.int32)
        mask = index < size
        yield {"index": np.where(mask, index, np.int32(0)), "mask": mask.astype(np.float32)}
