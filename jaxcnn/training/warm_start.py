"""Initializes a run with the weights of a trained network: its backbone, or some layers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.tree_util import keystr

from jaxcnn._checks import note
from jaxcnn._files import any_path
from jaxcnn.models.registry import resolve
from jaxcnn.training.output.records import MANIFEST
from jaxcnn.training.output.trained import load_run
from jaxcnn.training.state import TrainState
from jaxcnn.weights import layout, loading


def with_backbone(
    state: TrainState,
    weights: loading.Opened,
    model: str,
    options: Mapping[str, Any],
    std: Sequence[float] = (),
) -> TrainState:
    """Replaces everything but the classifiers of an initial state by stored weights.

    Args:
      state: of `create_state`; its classifiers are kept.
      weights: opened for this network.
      model: id or alias of the network.
      options: fields of its module.
      std: by which images are divided; a note says if the weights had a very different one.

    Returns:
      The state with the stored weights.

    Raises:
      ValueError: the weights do not fit the network.
    """
    options = {k: v for k, v in options.items() if k != "box_head"}  # classifiers have none
    _note_scale(weights, std)
    _, backbone = loading.build(weights, 0, **options)
    origin = weights.origin
    initial = {"params": state.params, "batch_stats": state.batch_stats}
    unused = flatten_dict(backbone, sep="/")

    def pick(path, leaf):
        name = keystr(path, simple=True, separator="/")
        stored = unused.pop(name, leaf)
        if stored.shape != leaf.shape:
            raise ValueError(
                f"{origin!r} has {name} of shape {stored.shape}; {model!r} takes {leaf.shape}"
            )
        return jnp.asarray(stored, leaf.dtype)

    merged = jax.tree_util.tree_map_with_path(pick, initial)
    if unused:
        raise ValueError(f"{origin!r} has {next(iter(unused))}, which {model!r} does not have")
    return dataclasses.replace(state, **merged, ema=merged if state.ema is not None else None)


def with_layers(
    state: TrainState, weights: loading.Opened, only: str, std: Sequence[float] = ()
) -> TrainState:
    """Replaces some layers of an initial state by stored weights, perhaps of another network.

    Args:
      state: of `create_state`.
      weights: opened, of any network.
      only: regular expression for the paths of the layers, such as "block1/conv1|fc8".
      std: as in `with_backbone`.

    Returns:
      The state with the stored weights.

    Raises:
      ValueError: no path matches, or a matching layer is missing in the stored weights or has a
        different shape there.
    """
    _note_scale(weights, std)
    model, variables = loading.build(weights)
    origin = weights.origin
    flat = flatten_dict(variables, sep="/")
    pattern = re.compile(only)
    replaced = []

    def pick(path, leaf):
        name = keystr(path, simple=True, separator="/")
        layer = name.partition("/")[2].rpartition("/")[0]
        if not pattern.fullmatch(layer):
            return leaf
        stored = flat.get(name)
        if stored is None or stored.shape != leaf.shape:
            has = "is not" if stored is None else f"has shape {stored.shape} and not {leaf.shape}"
            raise ValueError(f"{name} {has} in {origin!r}, the weights of {type(model).__name__}")
        replaced.append(name)
        return jnp.asarray(stored, leaf.dtype)

    initial = {"params": state.params, "batch_stats": state.batch_stats}
    merged = jax.tree_util.tree_map_with_path(pick, initial)
    if not replaced:
        raise ValueError(f"config.model.weights_only is {only!r}; no layer has such a path")
    return dataclasses.replace(state, **merged, ema=merged if state.ema is not None else None)


def _note_scale(opened: loading.Opened, std: Sequence[float]) -> None:
    theirs = opened.preprocessing.std
    if std and not 0.5 < np.mean(theirs) / np.mean(std) < 2:
        note(
            f"{opened.origin} was trained on images divided by {tuple(theirs)}, and this run "
            f"divides by {tuple(std)}"
        )


def open_weights(weights: str, model: str | None = None) -> loading.Opened:
    """Opens the weights of a warm start.

    Args:
      weights: a run directory, published weights or a file, see `jaxcnn.load_pretrained`.
      model: id or alias of the network; None for that of the weights.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the weights cannot be downloaded or read, or belong to a different network.
    """
    if not (any_path(weights) / MANIFEST).is_file():
        return loading.open_weights(weights, model)
    run = load_run(weights)
    if model is not None and resolve(model) != resolve(run.model):
        raise ValueError(f"{weights!r} is a run of {run.model!r}, not of {model!r}")
    names = layout.in_own_names(layout.describe(run.model, **layout.frozen(run.options)))
    arrays = layout.write(names, run.variables)
    return loading.Opened(
        weights, arrays, "jaxcnn", run.model, run.options, run.preprocessing, run.class_names
    )
