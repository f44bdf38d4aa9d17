"""From a batch of indices to what the network takes, on the device: the `prepare` of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxcnn.data import augment
from jaxcnn.data.dataset import Dataset
from jaxcnn.training.step import Prepare, gather


def make_prepare(dataset: Dataset, steps: Sequence[tuple[str, Any]]) -> Prepare:
    """Makes `prepare(batch, keys) -> {"image": f32[N,H,W,C], "label": i32[N]}`.

    With keys, in training, images are augmented and normalised, without only normalised.

    Args:
      dataset: whose mean and standard deviation the images are normalised with.
      steps: pairs of name and amount, see `jaxcnn.data.augment.make_prepare`.

    Raises:
      ValueError: an augmentation is unknown.
    """
    for pair in steps:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                f"config.data.augment has {pair!r}; it must be pairs of name and amount, such as "
                "('pad_crop', 4)"
            )
    images = augment.make_prepare(steps, dataset.mean, dataset.std)

    def prepare(batch: Mapping[str, jax.Array], keys: jax.Array | None = None):
        ready = gather(batch)
        return {"image": images(ready["image"], keys), "label": ready["label"]}

    return prepare
