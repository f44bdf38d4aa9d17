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


class BatchNorm(nn.Module):
    """BatchNorm, f[N,...,C] to f[N,...,C] of `dtype`, and the ReLU and the shortcut behind it.

    Variables and values of a step are those of `nn.BatchNorm` with its defaults. `norm(x, skip)`
    adds a shortcut, f[N,...,C] too, before the ReLU. Reverse-mode only on a GPU, whose form the
    backend picks while the layer is traced; running statistics have no gradient there.

    Fields:
      use_running_average: normalise by the running statistics; nothing is updated.
      momentum: share of the running statistics that a step keeps.
      epsilon: added to the variance.
      dtype: of the result; None for that of x and the parameters. Statistics take float32 at least.
      use_scale, use_bias, scale_init, bias_init: of the parameters, f32[C].
      axis_name: mesh axis that shares the batch, whose statistics are averaged.
      relu: the result's `nn.relu`.
      group: in training the statistics are those of so many neighbouring examples, the running
        ones the means of the groups'; None for the whole batch. A device's share of the batch holds
        whole groups, or a group whole shares; then `axis_name` names the devices.

    Raises:
      ValueError: a group fits neither, or a shortcut is given without `relu`.
    """

    use_running_average: bool
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Any = None
    use_scale: bool = True
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    axis_name: str | None = None
    relu: bool = False
    group: int | None = None

    @nn.compact
    def __call__(self, x: Array, skip: Array | None = None) -> Array:
        features = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = bias = None
        if self.use_scale:
            scale = self.param("scale", self.scale_init, features, jnp.float32)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, features, jnp.float32)
        dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        scale = jnp.ones(features, jnp.float32) if scale is None else scale
        bias = jnp.zeros(features, jnp.float32) if bias is None else bias
        if skip is not None and not self.relu:
            raise ValueError("a shortcut is added before the ReLU, but relu is False")
        if self.use_running_average or self.is_initializing():
            inverse = lax.rsqrt(var.value + self.epsilon)
            return self._end(_affine(x, mean.value, inverse, scale, bias, dtype), skip)
        if self.group is None and jax.default_backend() == "gpu":
            form = functools.partial(_in_two_passes, self.epsilon, self.relu, dtype, self.axis_name)
            y, means, variances = form(x, scale, bias, skip)
        else:
            y, means, variances = self._statistics(x)
            inverse = lax.rsqrt(variances + self.epsilon)
            y = _affine(y, means, inverse, scale, bias, dtype).reshape(x.shape)
            y = self._end(y, skip)
        for running, found in ((mean, means), (var, variances)):
            kept = self.momentum * running.value
            running.value = kept + (1 - self.momentum) * found.reshape(-1, *features).mean(0)
        return y

    def _end(self, y: Array, skip: Array | None) -> Array:
        y = y if skip is None else skip + y
        return nn.relu(y) if self.relu else y

    def _statistics(self, x: Array) -> tuple[Array, Array, Array]:
        """x in the shape that is added up, and means and variances, f[C], or f[G,1,C] of groups.

        Groups are f[G,n,C]. On a CPU images are rows of pixels, f[n,C]: XLA adds up rows about
        three times as fast as it adds up over three axes, here and in the gradient.
        """
        share, features = len(x), x.shape[-1]
        grouped = self.group is not None
        if self.group is not None:
            several = self.group > share  # devices hold one
            if (self.group if several else share) % (share if several else self.group):
                raise ValueError(f"{share} examples do not fit groups of {self.group}")
            if several and self.axis_name is None:
                raise ValueError(f"a group is {self.group} examples, but there are {share}")
            x = x.reshape(max(1, share // self.group), -1, features)
        elif jax.default_backend() == "cpu":
            x = x.reshape(-1, features)
        over = (1,) if grouped else tuple(range(x.ndim - 1))
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        means, squares = (z.mean(over, keepdims=grouped) for z in (y, lax.square(y)))
        if self.axis_name is not None and (self.group is None or self.group > share):
            blocks = None
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _in_two_passes(
    epsilon: float, relu: bool, dtype: Any, axis_name: str | None,
    x: Array, scale: Array, bias: Array, skip: Array | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Normalised by its own statistics: f[N,...,C] as `dtype`, means and variances f32[C].

    For a GPU, where passes over memory are what it costs. The gradient is written out: one pass
    adds up g and g * (x - mean), a second one makes the result. What is derived from the expression
    takes three, and keeps the g behind the ReLU between them. Where there is a shortcut, the ReLU's
    sign is kept, a byte each; else it is found again.
    """
    return _in_two_passes_fwd(epsilon, relu, dtype, axis_name, x, scale, bias, skip)[0]


def _in_two_passes_fwd(epsilon, relu, dtype, axis_name, x, scale, bias, skip):
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, square = _means(y, lax.square(y), axis_name)
    var = jnp.maximum(0.0, square - lax.square(mean))
    inverse = lax.rsqrt(var + epsilon)
    y = _affine(x, mean, inverse, scale, bias, dtype)
    shortcut = None
    if skip is not None:
        y = skip + y
        shortcut = lax.optimization_barrier(y > 0), jnp.zeros((0,), skip.dtype)
    y = nn.relu(y) if relu else y
    return (y, mean, var), (x, mean, inverse, scale, bias, shortcut)


def _in_two_passes_bwd(epsilon, relu, dtype, axis_name, residuals, cotangents):
    x, mean, inverse, scale, bias, shortcut = residuals
    g, _, _ = cotangents
    positive, like_skip = shortcut or (None, None)

    def behind_relu(x, g, positive):
        if relu and positive is None:
            positive = _affine(x, mean, inverse, scale, bias, dtype) > 0
        return jnp.where(positive, g, 0) if relu else g

    # The barriers keep the passes apart: else the first writes for the second what is cheaper to
    # find again.
    x = lax.optimization_barrier(x)
    masked = behind_relu(x, g, positive).astype(mean.dtype)
    (centre,) = _wide(x, mean)
    own = _means(masked, masked * (x - centre))  # of this device's share
    mean_g, mean_gx = own if axis_name is None else lax.pmean(own, axis_name)
    x, g, positive, mean_g, mean_gx = lax.optimization_barrier((x, g, positive, mean_g, mean_gx))
    masked = behind_relu(x, g, positive)
    level, slope, factor = _wide(x, mean_g, lax.square(inverse) * mean_gx, inverse * scale)
    dx = (masked - level - (x - centre) * slope) * factor
    sum_g, sum_gx = (x.size // x.shape[-1] * value for value in own)
    return (
        dx.astype(x.dtype),
        (sum_gx * inverse).astype(scale.dtype),
        sum_g.astype(bias.dtype),
        None if like_skip is None else masked.astype(like_skip.dtype),
    )


_in_two_passes.defvjp(_in_two_passes_fwd, _in_two_passes_bwd)


def _means(a: Array, b: Array, axis_name: str | None = None) -> tuple[Array, Array]:
    """Means of both over all axes but the last, and over devices, added up in one pass."""

    def add(one, other):
        return one[0] + other[0], one[1] + other[1]

    zero = jnp.zeros((), a.dtype)
    sums = lax.reduce((a, b), (zero, zero), add, tuple(range(a.ndim - 1)))
    count = a.size // a.shape[-1]
    means = sums[0] / count, sums[1] / count
    return means if axis_name is None else lax.pmean(means, axis_name)
