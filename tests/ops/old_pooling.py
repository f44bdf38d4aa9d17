"""The gradient of max pooling as it once was, a fault to be planted: it asks where `x == y`.

Under `jit` XLA may compute x anew in the fusion that asks, rounded differently, and then no element
of the window equals its maximum. It does behind Flax's BatchNorm, not behind
`ops.BatchNorm` (with jax 0.10): so Flax's way to normalize is planted with it. With jax 0.12 XLA
does not do so any more.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.ops import normalization, pooling, reference
from jaxcnn.ops.windows import spread, window_slice

where_it_fails = pytest.mark.skipif(
    jax.__version_info__ >= (0, 12), reason="this XLA computes the maximum and x alike"
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x, window, stride, padding):
    return reference.max_pool(x, window=window, stride=stride, padding=padding)


def _forward(x, window, stride, padding):
    y = max_pool(x, window, stride, padding)
    return y, (x, y)


def to_first_equal(window, stride, padding, residuals, g):
    x, y = residuals
    (top, _), (left, _) = padding
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    out = y.shape[1:3]
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]
    hits = [window_slice(x, *place, out, stride) == y for place in places]
    if window == stride and x.shape[1:3] == (out[0] * window[0], out[1] * window[1]):
        taken = jnp.zeros(y.shape, bool)
        for n, hit in enumerate(hits):
            hits[n], taken = hit & ~taken, taken | hit
        rows = [jnp.stack(hits[i * window[1] : (i + 1) * window[1]], 3) for i in range(window[0])]
        dx = jnp.where(jnp.stack(rows, 2), g[:, :, None, :, None, :], 0).reshape(x.shape)
    else:
        first = jnp.full(y.shape, len(places), jnp.int8)
        for n in reversed(range(len(places))):
            first = jnp.where(hits[n], jnp.int8(n), first)
        first = jax.lax.optimization_barrier(first)
        dx = jnp.zeros(x.shape, g.dtype)
        for n, place in enumerate(places):
            dx += spread(jnp.where(first == n, g, 0), *place, x.shape[1:3], stride)
    return (dx[:, top : top + height, left : left + width],)


max_pool.defvjp(_forward, to_first_equal)


def moments(x, guess, axes):
    """Mean and variance as Flax has them: E[x] and E[x^2] - E[x]^2."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, square = (a.mean(axes, keepdims=True) for a in (x, x * x))
    return mean, jnp.maximum(0.0, square - mean * mean)


def plant(monkeypatch):
    """Puts it into the place of the one in use, behind Flax's way to normalize."""
    monkeypatch.setattr(pooling, "_max_pool", max_pool)
    monkeypatch.setattr(normalization, "moments", moments)
    monkeypatch.setattr(normalization, "normalize", reference.normalize)
