"""What a run carries from step to step, and how it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.training import compiling


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; nothing random, since a step's key follows from its number.

    Fields:
      step: i32[], number of updates made.
      params: f32 parameters.
      batch_stats: f32 running statistics of BatchNorm; {} where there are none.
      opt_state: the optimizer's own state, the plateau schedule's included.
      ema: {"params", "batch_stats"}, running averages of both (see `averaging`), or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None


def init_variables(model: nn.Module, key: jax.Array, images_shape: Sequence[int]) -> Mapping:
    """Initial {"params", "batch_stats"} of a model for images f32[images_shape] (N, H, W, C)."""
    return compiling.compile_init(lambda key: _init(model, key, images_shape))(key)


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
    return initialiser(model, optimizer, images_shape, ema=ema)(key)


def initialiser(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images_shape: Sequence[int],
    *,
    ema: bool = False,
) -> Callable[[jax.Array], TrainState]:
    """`create_state` as a function of the key, compiled once for any number of keys."""
    return compiling.compile_init(lambda key: _create(model, optimizer, key, images_shape, ema))


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
