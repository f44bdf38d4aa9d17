"""What a run carries from step to step, and how it begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.runtime import compilation


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; nothing random, since a step's key follows from its number.

    Fields:
      step: i32[], number of updates made.
      params: f32 parameters.
      batch_stats: f32 running statistics of BatchNorm; {} where there are none.
      opt_state: the optimizer's own state, the plateau schedule's included.
      ema: {"params", "batch_stats"}, running averages of both (see `follow`), or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None


def init_variables(model: nn.Module, key: jax.Array, images_shape: Sequence[int]) -> Mapping:
    """Initial {"params", "batch_stats"} of a model for images f32[images_shape] (N, H, W, C)."""
    return compilation.compile_init(lambda key: _init(model, key, images_shape))(key)


def abstract_variables(model: nn.Module, images_shape: Sequence[int]) -> Mapping:
    """Shapes and types of `init_variables`, without computing: for decay masks and restoring."""
    return jax.eval_shape(lambda key: _init(model, key, images_shape), jax.random.key(0))


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> TrainState:
    """The state before the first step. `images_shape` is (N, H, W, C); N may be 1.

    With `ema` it has a running average, which begins with the initial weights.
    """
    return initializer(model, optimizer, images_shape, ema=ema)(key)


def initializer(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> Callable[[jax.Array], TrainState]:
    """`create_state` as a function of the key, compiled once for any number of keys."""
    return compilation.compile_init(lambda key: _create(model, optimizer, key, images_shape, ema))


def abstract_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> TrainState:
    """Shapes and types of `create_state`, without computing: what a checkpoint is restored into."""
    return jax.eval_shape(
        lambda key: _create(model, optimizer, key, images_shape, ema), jax.random.key(0)
    )


def decay_at(step: Any, decay: float) -> jax.Array:
    """The share of the old average that update number `step` (from 1) keeps, f32[].

    min(decay, (1 + step) / (10 + step)): TensorFlow's warm-up, so that the random initial weights
    do not stay in the average for 1 / (1 - decay) steps.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def follow(state: TrainState, decay: float) -> TrainState:
    """The state with its average moved towards its weights; `state.step` counts this update."""
    keep = decay_at(state.step, decay)
    now = {"params": state.params, "batch_stats": state.batch_stats}
    ema = jax.tree.map(lambda old, new: new + keep * (old - new), state.ema, now)
    return dataclasses.replace(state, ema=ema)


def averaged(state: TrainState) -> TrainState:
    """The state with the average in place of the weights, of the same structure."""
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
