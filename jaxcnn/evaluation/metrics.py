"""Metrics as (sum, count) pairs, so that shares of a data set combine exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Pairs = Mapping[str, tuple[Any, Any]]


def pair(values: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """(sum, count) of f32[N] over the examples where f32[N] `mask` is 1, by default all."""
    values = values.astype(jnp.float32)
    if mask is None:
        return values.sum(), jnp.float32(values.size)
    # where, not a product: a padding example's NaN must not reach the sum
    return jnp.where(mask > 0, values, 0).sum(), (mask > 0).sum(dtype=jnp.float32)


def of_label(values: Array, labels: Array) -> Array:
    """Each example's value of its own class: [N,K] and i32[N] to [N]; NaN for no such class."""
    outside = (labels < 0) | (labels >= values.shape[-1])
    picked = jnp.take_along_axis(values, labels[:, None], axis=-1, mode="clip")[:, 0]
    return jnp.where(outside, jnp.nan, picked)


def top_k_error(logits: Array, labels: Array, k: int) -> Array:
    """1 where the label is not among the k largest logits, else 0: f32[N,K], i32[N] to f32[N].

    Of equal logits the lower class comes first. A NaN ranks above every number, so that a broken
    network is never right.
    """
    own = of_label(logits, labels)[:, None]
    classes = jnp.arange(logits.shape[-1])[None]
    before = ~(logits <= own) | ((logits == own) & (classes < labels[:, None]))
    return (before.sum(-1) >= k).astype(jnp.float32)


def classification(
    logits: Array, labels: Array, losses: Array, mask: Array | None = None
) -> dict[str, tuple[Array, Array]]:
    """Pairs `loss`, `top1_error` and `top5_error` of a batch.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      losses: f32[N], each example's loss.
      mask: f32[N], 1 for an example and 0 for padding; None counts all.
    """
    return {
        "loss": pair(losses, mask),
        "top1_error": pair(top_k_error(logits, labels, 1), mask),
        "top5_error": pair(top_k_error(logits, labels, 5), mask),
    }


def combine(batches: Sequence[Pairs]) -> dict[str, tuple[float, float]]:
    """Sums the pairs of several batches on the host, in float64.

    Fetches all of them at once. A batch may hold several steps (arrays instead of scalars).
    """
    totals: dict[str, tuple[float, float]] = {}
    for pairs in jax.device_get(list(batches)):
        for name, (value, count) in pairs.items():
            value_so_far, count_so_far = totals.get(name, (0.0, 0.0))
            totals[name] = (
                value_so_far + float(np.sum(value, dtype=np.float64)),
                count_so_far + float(np.sum(count, dtype=np.float64)),
            )
    return totals


def finalise(totals: Pairs, *, expected: int | None = None) -> dict[str, float]:
    """Means of combined pairs.

    Args:
      totals: what `combine` returned.
      expected: number of examples that every metric must have counted; None to accept any.

    Raises:
      ValueError: a metric counted nothing, or another number of examples than expected.
    """
    means = {}
    for name, (value, count) in totals.items():
        if expected is not None and count != expected:
            raise ValueError(f"{name} counted {count:g} examples of {expected}")
        if not count:
            raise ValueError(f"{name} counted no example")
        means[name] = float(value) / float(count)
    return means
