"""A running average of the weights, to be evaluated beside the weights themselves.

It holds BatchNorm's running statistics too: those of the raw weights do not fit averaged ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.training.state import TrainState


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
