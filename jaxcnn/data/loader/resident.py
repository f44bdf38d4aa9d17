"""Small sets that live on the device: which examples a batch holds, as a function of the step.

An order is drawn for each epoch from (seed, epoch) by a generator whose draws NumPy has frozen.
Nothing is stored: to go on at a step, ask for that step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np


def batch_indices(seed: int, step: int, size: int, batch: int) -> np.ndarray:
    """The examples of a step's batch, i32[batch].

    The epochs' orders follow one another without a gap: place j of step s is place
    p = s * batch + j of the whole run, which is example order(seed, p // size)[p % size]. Each
    epoch has every example exactly once, also where a batch holds the end of one and the beginning
    of the next.

    Args:
      seed: of the run, 0 to 2**32 - 1.
      step: number of the step, from 0.
      size: examples in the set.
      batch: examples in a batch.

      >>> second_epoch = [batch_indices(0, step, size=6, batch=3) for step in (2, 3)]
      >>> sorted(np.concatenate(second_epoch).tolist())
      [0, 1, 2, 3, 4, 5]
    """
    if min(size, batch) < 1 or step < 0:
        raise ValueError(f"step {step} of batch size {batch} over {size} examples makes no batch")
    place = step * batch + np.arange(batch, dtype=np.int64)
    epoch, within = place // size, place % size
    index = np.empty(batch, np.int32)
    for e in range(epoch[0], epoch[-1] + 1):
        here = epoch == e
        index[here] = _order(seed, e, size)[within[here]]
    return index


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    order = np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


def eval_batches(size: int, batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Every example once, in order: {"index": i32[batch], "mask": f32[batch]}.

    The last batch is filled up with example 0 under mask 0.
    """
    for start in range(0, size, batch):
        index = np.arange(start, start + batch, dtype=np.int32)
        mask = index < size
        yield {"index": np.where(mask, index, np.int32(0)), "mask": mask.astype(np.float32)}
