"""BatchNorm, with the ReLU behind it, in the form that suits the platform, and over groups.

Large batches are normalised in small groups for accuracy ("ghost batches", Hoffer et al. 2017,
arXiv 1705.08741; 32 an accelerator in Goyal et al. 2017, arXiv 1706.02677, section 3). Where that
group is what happens to lie on a device, the number of devices is part of the recipe. Here it is
stated: with groups of 32, a batch of 256 gives the same on one device and on eight.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import Array, lax


class BatchNorm(nn.BatchNorm):
    """`nn.BatchNorm`, f[N,...,C] to f[N,...,C], with the same variables and values.

    `norm(x, skip)` adds a shortcut, f[N,...,C] too, to the result; then comes the ReLU.

    Fields (besides those of `nn.BatchNorm`):
      relu: the result's `nn.relu`.
      group: in training the statistics are those of so many neighbouring examples, the running
        ones the means of the groups'; None for the whole batch. A device's share of the batch holds
        whole groups, or a group whole shares; then `axis_name` names the devices.

    Raises:
      ValueError: neither is so, or a shortcut is given without `relu`.
    """

    relu: bool = False
    group: int | None = None

    @nn.compact
    def __call__(self, x: Array, skip: Array | None = None) -> Array:  # type: ignore[override]
        features = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", self.scale_init, features) if self.use_scale else None
        bias = self.param("bias", self.bias_init, features) if self.use_bias else None
        dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        scale = jnp.ones(features) if scale is None else scale
        bias = jnp.zeros(features) if bias is None else bias
        if skip is not None and not self.relu:
            raise ValueError("a shortcut is added before the ReLU, but relu is False")
        if self.use_running_average or self.is_initializing():
            inverse = lax.rsqrt(var.value + self.epsilon)
            return self._end(_affine(x, mean.value, inverse, scale, bias, dtype), skip)
        if self.group is None and self.axis_name is None and jax.default_backend() == "gpu":
            form = functools.partial(_in_two_passes, self.epsilon, self.relu, dtype)
            y, means, variances = form(x, scale, bias, skip)
        else:
            rows, means, variances = self._by_rows(x)
            inverse = lax.rsqrt(variances + self.epsilon)
            y = _affine(rows, means, inverse, scale, bias, dtype).reshape(x.shape)
            y = self._end(y, skip)
        for running, found in ((mean, means), (var, variances)):
            kept = self.momentum * running.value
            running.value = kept + (1 - self.momentum) * found.reshape(-1, *features).mean(0)
        return y

    def _end(self, y: Array, skip: Array | None) -> Array:
        y = y if skip is None else skip + y
        return nn.relu(y) if self.relu else y

    def _by_rows(self, x: Array) -> tuple[Array, Array, Array]:
        """x as its form takes it, and means and variances that fit it.

        On a CPU images are rows of pixels: XLA adds up rows about three times as fast as it adds up
        over three axes, here and in the gradient.
        """
        share, features = len(x), x.shape[-1]
        if jax.default_backend() == "cpu":
            x = x.reshape(-1, features)
        over, blocks = tuple(range(x.ndim - 1)), None
        if self.group is not None:
            if share % self.group and self.group % share:
                raise ValueError(f"{share} examples do not fit groups of {self.group}")
            x = x.reshape(max(1, share // self.group), -1, features)
            over = (1,)
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        keep = self.group is not None
        means, squares = (z.mean(over, keepdims=keep) for z in (y, lax.square(y)))
        if self.axis_name is not None and (self.group is None or self.group > share):
            if self.group is not None:
                devices = self.group // share
                present = lax.psum(1, self.axis_name)
                blocks = [list(range(i, i + devices)) for i in range(0, present, devices)]
            means, squares = lax.pmean((means, squares), self.axis_name, axis_index_groups=blocks)
        return x, means, jnp.maximum(0.0, squares - lax.square(means))


def _affine(x: Array, mean: Array, inverse: Array, scale: Array, bias: Array, dtype: Any) -> Array:
    """(x - mean) * (inverse * scale) + bias, in float32 at least, as `dtype`."""
    mean, inverse, scale, bias = _wide(x, mean, inverse, scale, bias)
    return jnp.asarray((x - mean) * (inverse * scale) + bias, dtype)


def _wide(x: Array, *values: Array) -> Iterator[Array]:
    """Values of the channels with as many axes as x has."""
    return (v.reshape((1,) * (x.ndim - v.ndim) + v.shape) for v in values)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _in_two_passes(epsilon, relu, dtype, x, scale, bias, skip):
    """Normalised by its own statistics: f[N,...,C] as `dtype`, means and variances f32[C].

    For a GPU, where passes over memory are what it costs. The gradient is written out: one pass
    adds up g and g * (x - mean), a second one makes the result. What is derived from the expression
    takes three, and keeps the g behind the ReLU between them. Where there is a shortcut, the ReLU's
    sign is kept, a byte each; else it is found again. Means and variances have no gradient.
    Reverse-mode only.
    """
    return _in_two_passes_fwd(epsilon, relu, dtype, x, scale, bias, skip)[0]


def _in_two_passes_fwd(epsilon, relu, dtype, x, scale, bias, skip):
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, square = _means(y, lax.square(y))
    var = jnp.maximum(0.0, square - lax.square(mean))
    inverse = lax.rsqrt(var + epsilon)
    y = _affine(x, mean, inverse, scale, bias, dtype)
    positive = None
    if skip is not None:
        y = skip + y
        positive = lax.optimization_barrier(y > 0)
    y = nn.relu(y) if relu else y
    return (y, mean, var), (x, mean, inverse, scale, bias, positive)


def _in_two_passes_bwd(epsilon, relu, dtype, residuals, cotangents):
    x, mean, inverse, scale, bias, positive = residuals
    g, _, _ = cotangents

    def behind_relu(x, g, positive):
        if relu and positive is None:
            positive = _affine(x, mean, inverse, scale, bias, dtype) > 0
        return jnp.where(positive, g, 0) if relu else g

    # The barriers keep the passes apart: else the first writes for the second what is cheaper to
    # find again.
    x = lax.optimization_barrier(x)
    masked = behind_relu(x, g, positive).astype(mean.dtype)
    (centre,) = _wide(x, mean)
    mean_g, mean_gx = _means(masked, masked * (x - centre))
    x, g, positive, mean_g, mean_gx = lax.optimization_barrier((x, g, positive, mean_g, mean_gx))
    masked = behind_relu(x, g, positive)
    level, slope, factor = _wide(x, mean_g, lax.square(inverse) * mean_gx, inverse * scale)
    dx = ((masked - level - (x - centre) * slope) * factor).astype(x.dtype)
    count = x.size // x.shape[-1]
    return dx, count * mean_gx * inverse, count * mean_g, None if positive is None else masked


_in_two_passes.defvjp(_in_two_passes_fwd, _in_two_passes_bwd)


def _means(a: Array, b: Array) -> tuple[Array, Array]:
    """Means of both over all axes but the last, in one pass."""

    def add(one, other):
        return one[0] + other[0], one[1] + other[1]

    zero = jnp.zeros((), a.dtype)
    sums = lax.reduce((a, b), (zero, zero), add, tuple(range(a.ndim - 1)))
    count = a.size // a.shape[-1]
    return sums[0] / count, sums[1] / count
