"""Beginning a run with the weights of a trained network: its backbone, or some layers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.tree_util import keystr

from jaxcnn._files import local_path
from jaxcnn.models.registry import resolve
from jaxcnn.training.output.records import MANIFEST
from jaxcnn.training.output.trained import load_run
from jaxcnn.training.state import TrainState
from jaxcnn.weights import layout, loading


def with_backbone(
    state: TrainState, weights: str, model: str, options: Mapping[str, Any]
) -> TrainState:
    """The state before the first step with all but the classifiers taken from stored weights.

    Args:
      state: of `create_state`; its classifiers stay.
      weights: a run's directory, or published weights or a file, see `jaxcnn.load_pretrained`.
      model: id or alias of the network.
      options: fields of its module.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the weights cannot be had or read, or are another network's.
    """
    options = {k: v for k, v in options.items() if k != "box_head"}  # classifiers have none
    _, backbone = loading.build(_open(weights, model), 0, **options)
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    left = flatten_dict(backbone, sep="/")

    def pick(path, leaf):
        name = keystr(path, simple=True, separator="/")
        found = left.pop(name, leaf)
        if found.shape != leaf.shape:
            raise ValueError(
                f"{weights!r} has {name} of shape {found.shape}; {model!r} takes {leaf.shape}"
            )
        return jnp.asarray(found, leaf.dtype)

    merged = jax.tree_util.tree_map_with_path(pick, fresh)
    if left:
        raise ValueError(f"{weights!r} has {next(iter(left))}, which {model!r} has not")
    return dataclasses.replace(state, **merged, ema=merged if state.ema is not None else None)


def with_layers(state: TrainState, weights: str, only: str) -> TrainState:
    """The state before the first step with some layers taken from weights of another network.

    Args:
      state: of `create_state`.
      weights: a run's directory, or published weights or a file that knows its network.
      only: regular expression of the layers' paths, such as "block1/conv1|fc8".

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the weights cannot be read, a layer is not in both networks, or has another shape,
        or no layer is meant.
    """
    model, stored = loading.build(_open(weights))
    there = flatten_dict(stored, sep="/")
    wanted = re.compile(f"(params|batch_stats)/({only})/[^/]+")
    taken = []

    def pick(path, leaf):
        name = keystr(path, simple=True, separator="/")
        if not wanted.fullmatch(name):
            return leaf
        found = there.get(name)
        if found is None or found.shape != leaf.shape:
            has = "is not" if found is None else f"has shape {found.shape} and not {leaf.shape}"
            raise ValueError(f"{name} {has} in {weights!r}, the weights of {type(model).__name__}")
        taken.append(name)
        return jnp.asarray(found, leaf.dtype)

    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    merged = jax.tree_util.tree_map_with_path(pick, fresh)
    if not taken:
        raise ValueError(f"config.model.weights_only is {only!r}; no layer has such a path")
    return dataclasses.replace(state, **merged, ema=merged if state.ema is not None else None)


def _open(weights: str, model: str | None = None) -> loading.Opened:
    """The weights of a run's best checkpoint, or what `loading.open_weights` opens."""
    if not (local_path(weights) / MANIFEST).is_file():
        return loading.open_weights(weights, model)
    run = load_run(weights)
    if model is not None and resolve(model) != resolve(run.model):
        raise ValueError(f"{weights!r} is a run of {run.model!r}, not of {model!r}")
    names = layout.in_own_names(layout.describe(run.model, **layout.frozen(run.options)))
    arrays = layout.write(names, run.variables)
    return loading.Opened(
        weights, arrays, "jaxcnn", run.model, run.options, run.preprocessing, run.class_names
    )
