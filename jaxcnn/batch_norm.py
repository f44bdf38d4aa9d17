"""BatchNorm in the form that suits the platform, and over groups of examples.

Large batches are normalised in small groups for accuracy ("ghost batches", Hoffer et al. 2017,
arXiv 1705.08741; 32 an accelerator in Goyal et al. 2017, arXiv 1706.02677, section 3). Where that
group is what happens to lie on a device, the number of devices is part of the recipe. Here it is
stated: with groups of 32, a batch of 256 gives the same on one device and on eight.
"""

from __future__ import annotations

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import lax

# Without Flax's wrapper, which would enter the module's scope a second time.
_by_flax = inspect.unwrap(nn.BatchNorm.__call__)


class BatchNorm(nn.BatchNorm):
    """`nn.BatchNorm`, f[N,H,W,C] to f[N,H,W,C], with the same variables and values.

    On a CPU it takes the images as N*H*W rows: XLA adds up rows about three times as fast as it
    adds up over three axes, here and in the gradient.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.use_running_average or jax.default_backend() != "cpu":
            return _by_flax(self, x)
        return _by_flax(self, x.reshape(-1, x.shape[-1])).reshape(x.shape)


class GroupedBatchNorm(nn.BatchNorm):
    """`nn.BatchNorm`, with statistics of `group` neighbouring examples in training.

    f[N,...,C] to f[N,...,C]. The running statistics take the mean of the groups'. A device's share
    of the batch holds whole groups, or a group whole shares; then `axis_name` names the devices.

    Raises:
      ValueError: neither is so.
    """

    group: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        features = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", self.scale_init, features) if self.use_scale else None
        bias = self.param("bias", self.bias_init, features) if self.use_bias else None
        if self.use_running_average:
            means, variances = mean.value[None], var.value[None]
        elif self.is_initializing():
            means, variances = jnp.zeros((1, *features)), jnp.ones((1, *features))
        else:
            means, variances = self._statistics(x)
            for running, found in ((mean, means), (var, variances)):
                kept = self.momentum * running.value
                running.value = kept + (1 - self.momentum) * found.mean(0)
        # As flax does it: in float32, (x - mean) * (scale / deviation) + bias.
        y = x.reshape(len(means), -1, *x.shape[1:])
        over = tuple(range(1, y.ndim - 1))
        factor = lax.rsqrt(variances + self.epsilon)
        factor = factor if scale is None else factor * scale[None]
        y = (y - jnp.expand_dims(means, over)) * jnp.expand_dims(factor, over)
        y = y if bias is None else y + bias.reshape(*(1 for _ in y.shape[1:]), -1)
        dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        return y.reshape(x.shape).astype(dtype)

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means and variances of the groups of a device, f32[groups,C] each."""
        share, features = len(x), x.shape[-1]
        if share % self.group and self.group % share:
            raise ValueError(f"{share} examples do not fit groups of {self.group}")
        groups = max(1, share // self.group)
        y = x.reshape(groups, -1, features).astype(jnp.float32)
        means, squares = y.mean(1), lax.square(y).mean(1)
        if self.group > share:
            devices = self.group // share
            present = jax.lax.psum(1, self.axis_name)
            blocks = [list(range(i, i + devices)) for i in range(0, present, devices)]
            means, squares = lax.pmean((means, squares), self.axis_name, axis_index_groups=blocks)
        return means, jnp.maximum(0.0, squares - lax.square(means))
