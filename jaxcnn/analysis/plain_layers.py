"""Plain implementations of every kind of layer: indices, sums and products, as in the papers.

They share no code with the networks and are not fast. In float64 they are the reference of
`jaxcnn.analysis.selfcheck`. Each function takes the parameters of a layer by name and images
f64[N,H,W,C].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Params = Mapping[str, Any]
Sides = tuple[int, int]  # padding before and after, of both axes


def _windows(x: Array, window: int, stride: int, sides: Sides, fill: float) -> Array:
    """The elements of each window, row by row: f64[N,h,w,window*window,C]."""
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=fill)
    rows, columns = (
        np.arange((n - window) // stride + 1)[:, None] * stride + np.arange(window)[None]
        for n in x.shape[1:3]
    )
    elements = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return elements.reshape(*elements.shape[:3], window * window, x.shape[-1])


def conv(params: Params, x: Array, *, stride: int, padding: int, groups: int = 1) -> Array:
    """Computes a convolution: the sum of products over the elements of a window, per group."""
    kernel = params["kernel"]
    size, _, channels, features = kernel.shape
    windows = _windows(x, size, stride, (padding, padding), 0.0)
    windows = windows.reshape(*windows.shape[:-1], groups, channels)
    kernel = kernel.reshape(size * size, channels, groups, features // groups)
    y = jnp.einsum("nhwtgc,tcgf->nhwgf", windows, kernel)
    y = y.reshape(*y.shape[:3], features)
    return y + params["bias"][None, None, None] if "bias" in params else y


def max_pool(params: Params, x: Array, *, window: int, stride: int, sides: Sides) -> Array:
    """Computes max pooling: the first of a window's largest elements."""
    windows = _windows(x, window, stride, sides, -jnp.inf)
    first = jnp.argmax(windows, 3)[:, :, :, None]
    return jnp.take_along_axis(windows, first, 3)[:, :, :, 0]


def avg_pool(
    params: Params, x: Array, *, window: int, stride: int, padding: int, count_padding: bool
) -> Array:
    """Computes average pooling: the sum of a window's elements over their number."""
    sides = (padding, padding)
    total = _windows(x, window, stride, sides, 0.0).sum(3)
    if count_padding:
        return total / window**2
    return total / _windows(jnp.ones_like(x), window, stride, sides, 0.0).sum(3)


def adaptive_avg_pool(params: Params, x: Array, *, size: int) -> Array:
    """Computes adaptive average pooling to size x size cells.

    Cell i is the mean of the elements floor(i n / size) to ceil((i + 1) n / size), exclusive, of n.
    """
    height, width = x.shape[1:3]

    def cell(i: int, n: int) -> slice:
        return slice(i * n // size, -(-(i + 1) * n // size))

    rows = [
        [x[:, cell(i, height), cell(j, width)].mean((1, 2)) for j in range(size)]
        for i in range(size)
    ]
    return jnp.stack([jnp.stack(row, 1) for row in rows], 1)


def local_response_norm(params: Params, x: Array, *, n: int, k: float, alpha: float) -> Array:
    """Computes local response normalization (Krizhevsky et al. 2012, section 3.3), beta 0.75."""
    channels = x.shape[-1]
    normalized = []
    for c in range(channels):
        near = x[..., max(0, c - n // 2) : c + n // 2 + 1]
        normalized.append(x[..., c] / (k + alpha * (near**2).sum(-1)) ** 0.75)
    return jnp.stack(normalized, -1)


def batch_norm(params: Params, x: Array, *, epsilon: float) -> Array:
    """Computes BatchNorm with the batch's mean and biased variance."""
    centered, variance = _centered(x)
    scaled = centered / jnp.sqrt(variance + epsilon)
    return scaled * params["scale"][None, None, None] + params["bias"][None, None, None]


def running_statistics(params: Params, x: Array, *, momentum: float) -> Params:
    """Computes the running statistics after one step from mean 0 and variance 1."""
    kept = momentum * jnp.ones(x.shape[-1])
    _, variance = _centered(x)
    mean = (1 - momentum) * x.mean((0, 1, 2))
    return {"mean": mean, "var": kept + (1 - momentum) * variance[0, 0, 0]}


def stage(
    params: Params, x: Array, *, epsilon: float, window: int, stride: int, sides: Sides
) -> Array:
    """Computes a 3x3 convolution, BatchNorm, ReLU and max pooling."""
    y = conv(params["conv"], x, stride=1, padding=1)
    y = jnp.maximum(batch_norm(params["bn"], y, epsilon=epsilon), 0)
    return max_pool({}, y, window=window, stride=stride, sides=sides)


def statistics_of_stage(params: Params, x: Array, *, momentum: float) -> Params:
    """Computes the running statistics of the BatchNorm in `stage`."""
    y = conv(params["conv"], x, stride=1, padding=1)
    return {"bn": running_statistics({}, y, momentum=momentum)}


def _centered(x: Array) -> tuple[Array, Array]:
    centered = x - x.mean((0, 1, 2), keepdims=True)
    return centered, (centered**2).mean((0, 1, 2), keepdims=True)


def dense(params: Params, x: Array) -> Array:
    """Computes a dense layer, f64[N,C] to f64[N,F]."""
    return jnp.einsum("nc,cf->nf", x, params["kernel"]) + params["bias"][None]


def squeeze_excite(params: Params, x: Array) -> Array:
    """Computes squeeze-and-excitation (Hu et al. 2018, section 3)."""
    hidden = dense(params["fc1"], x.sum((1, 2)) / (x.shape[1] * x.shape[2]))
    gate = 1 / (1 + jnp.exp(-dense(params["fc2"], jnp.where(hidden > 0, hidden, 0.0))))
    return jnp.einsum("nhwc,nc->nhwc", x, gate)


def cross_entropy(logits: Array, labels: Array, label_smoothing: float) -> Array:
    """Computes the mean cross-entropy of a batch.

    Args:
      logits: f64[N,K].
      labels: i32[N].
      label_smoothing: fraction of the target that is uniform over the classes.

    Returns:
      f64[].
    """
    top = lax.stop_gradient(logits.max(-1, keepdims=True))
    log_total = jnp.log(jnp.exp(logits - top).sum(-1)) + top[:, 0]
    classes = logits.shape[-1]
    hits = labels[:, None] == jnp.arange(classes)[None]
    target = jnp.where(hits, 1 - label_smoothing, 0.0) + label_smoothing / classes
    return (log_total - (target * logits).sum(-1)).mean()
