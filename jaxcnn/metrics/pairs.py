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
