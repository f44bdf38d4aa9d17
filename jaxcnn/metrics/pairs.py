"""Metrics of a batch as (sum, count) pairs, so that batches and shards combine exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Pairs = Mapping[str, tuple[Any, Any]]


def pair(values: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Sums and counts the values of a batch.

    Args:
      values: [N].
      mask: f32[N], 1 for an example and 0 for padding; None to count all.

    Returns:
      (sum, count), each f32[].
    """
    values = values.astype(jnp.float32)
    if mask is None:
        return values.sum(), jnp.float32(values.size)
    # `where` instead of a product: NaN in a padding example must not reach the sum.
    return jnp.where(mask > 0, values, 0).sum(), (mask > 0).sum(dtype=jnp.float32)


def take_label(values: Array, labels: Array) -> Array:
    """Selects each example's value for its label.

    Args:
      values: f[N,K].
      labels: i32[N].

    Returns:
      f[N]; NaN where a label is not one of the K classes.
    """
    outside = (labels < 0) | (labels >= values.shape[-1])
    picked = jnp.take_along_axis(values, labels[:, None], axis=-1, mode="clip")[:, 0]
    return jnp.where(outside, jnp.nan, picked)


def top_k_error(logits: Array, labels: Array, k: int) -> Array:
    """Computes the top-k error of each example.

    Among equal logits the class with the lower index ranks first. NaN ranks above every number, so
    that a diverged network never counts as correct.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      k: number of classes that may contain the label.

    Returns:
      f32[N], 1 where the label is not among the k largest logits, else 0.
    """
    target = take_label(logits, labels)[:, None]
    classes = jnp.arange(logits.shape[-1])[None]
    before = ~(logits <= target) | ((logits == target) & (classes < labels[:, None]))
    return ((before.sum(-1) >= k) | jnp.isnan(target[:, 0])).astype(jnp.float32)


def classification_pairs(
    logits: Array, labels: Array, losses: Array, mask: Array | None = None
) -> dict[str, tuple[Array, Array]]:
    """Computes the pairs `loss`, `top1_error` and `top5_error` of a batch.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      losses: f32[N], the loss of each example.
      mask: f32[N], 1 for an example and 0 for padding; None to count all.

    Returns:
      {name: (sum, count)}.
    """
    return {
        "loss": pair(losses, mask),
        "top1_error": pair(top_k_error(logits, labels, 1), mask),
        "top5_error": pair(top_k_error(logits, labels, 5), mask),
    }


def combine(batches: Sequence[Pairs]) -> dict[str, tuple[float, float]]:
    """Adds up the pairs of several batches on the host, in float64.

    Args:
      batches: pairs by name, fetched from the device together. The pairs of several steps may be
        stacked in arrays.

    Returns:
      {name: (sum, count)}.
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


def finalize(totals: Pairs, *, expected: int | None = None) -> dict[str, float]:
    """Computes the means of combined pairs.

    Args:
      totals: pairs by name, see `combine`.
      expected: number of examples that every metric must have counted; None to accept any number.

    Returns:
      {name: mean}.

    Raises:
      ValueError: a metric counted no example, or a different number than expected.
    """
    means = {}
    for name, (value, count) in totals.items():
        if expected is not None and count != expected:
            raise ValueError(f"{name} counted {count:g} of {expected} examples")
        if not count:
            raise ValueError(f"{name} counted no example")
        means[name] = float(value) / float(count)
    return means
