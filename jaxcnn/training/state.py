"""The training state, and its initialization."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.runtime.initialization import run_by_array


@flax.struct.dataclass
class TrainState:
    """Everything that a training step updates.

    The state holds no key: the key of a step is a function of the step number.

    Attributes:
      step: i32[], number of completed updates.
      params: f32 parameters.
      batch_stats: f32 running statistics of BatchNorm; {} without BatchNorm.
      opt_state: the state of the optimizer, including that of a plateau schedule.
      ema: {"params", "batch_stats"}, running averages of both (see `follow`), or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None


def init_variables(model: nn.Module, key: jax.Array, images_shape: Sequence[int]) -> Mapping:
    """Initializes a model.

    Args:
      model: the network.
      key: key of the initialization.
      images_shape: (N, H, W, C) of the images; N may be 1.

    Returns:
      {"params", "batch_stats"}.
    """
    return run_by_array(lambda key: _init(model, key, images_shape))(key)


def abstract_variables(model: nn.Module, images_shape: Sequence[int]) -> Mapping:
    """Shapes and dtypes of `init_variables`, without computation: for decay masks and restoring."""
    return jax.eval_shape(lambda key: _init(model, key, images_shape), jax.random.key(0))


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> TrainState:
    """Creates the state before the first step.

    Args:
      model: the network.
      optimizer: the optax transform.
      key: key of the initialization.
      images_shape: (N, H, W, C) of the images; N may be 1.
      ema: whether the state has a running average, which starts from the initial weights.

    Returns:
      The state.
    """
    return initializer(model, optimizer, images_shape, ema=ema)(key)


def initializer(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> Callable[[jax.Array], TrainState]:
    """Makes `create_state` as a function of the key."""
    return run_by_array(lambda key: _create(model, optimizer, key, images_shape, ema))


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> TrainState:
    """Shapes and dtypes of `create_state`, without computation: the target of a restore."""
    return jax.eval_shape(
        lambda key: _create(model, optimizer, key, images_shape, ema), jax.random.key(0)
    )


def decay_at(step: Any, decay: float) -> jax.Array:
    """Decay of the running average at update number `step` (from 1), f32[].

    It is min(decay, (1 + step) / (10 + step)), the warm-up of TensorFlow: without it, the random
    initial weights would stay in the average for 1 / (1 - decay) steps.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def follow(state: TrainState, decay: float) -> TrainState:
    """Updates the running average of the weights; `state.step` already counts this update."""
    rate = decay_at(state.step, decay)
    current = {"params": state.params, "batch_stats": state.batch_stats}
    ema = jax.tree.map(lambda old, new: new + rate * (old - new), state.ema, current)
    return dataclasses.replace(state, ema=ema)


def averaged(state: TrainState) -> TrainState:
    """Replaces the weights of a state by their running average; the structure stays the same."""
    return dataclasses.replace(
        state, params=state.ema["params"], batch_stats=state.ema["batch_stats"]
    )


def _init(model, key, images_shape):
    variables = model.init(key, jnp.zeros(tuple(images_shape), jnp.float32))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def _create(model, optimizer, key, images_shape, ema):
    variables = _init(model, key, images_shape)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        opt_state=optimizer.init(variables["params"]),
        ema=dict(variables) if ema else None,
        **variables,
    )
