"""Beginning a run with the trunk of a network that is trained already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.training.optimizers import parameter_path
from jaxcnn.training.state import TrainState
from jaxcnn.weights import load_pretrained


def with_trunk(
    state: TrainState, weights: str, model: str, options: Mapping[str, Any]
) -> TrainState:
    """The state before the first step with all but the classifiers taken from stored weights.

    Args:
      state: of `create_state`; its classifiers stay.
      weights: published weights or a file, see `jaxcnn.load_pretrained`.
      model: id or alias of the network.
      options: fields of its module.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the weights cannot be had or read, or are another network's.
    """
    options = {k: v for k, v in options.items() if k != "box_head"}  # classifiers have none
    _, trunk = load_pretrained(weights, model=model, num_classes=0, **options)
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    left = {parameter_path(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(trunk)}

    def pick(path, leaf):
        found = left.pop(parameter_path(path), leaf)
        if found.shape != leaf.shape:
            raise ValueError(
                f"{weights!r} has {parameter_path(path)} of shape {found.shape}; "
                f"{model!r} takes {leaf.shape}"
            )
        return jnp.asarray(found, leaf.dtype)

    merged = jax.tree_util.tree_map_with_path(pick, fresh)
    if left:
        raise ValueError(f"{weights!r} has {next(iter(left))}, which {model!r} has not")
    return dataclasses.replace(state, **merged, ema=merged if state.ema is not None else None)
