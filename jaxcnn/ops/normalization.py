"""BatchNorm, optionally fused with a shortcut and ReLU, and local response normalization.

Large batches are normalized in small groups for accuracy ("ghost batches", Hoffer et al. 2017,
arXiv 1705.08741; 32 per accelerator in Goyal et al. 2017, arXiv 1706.02677, section 3). If each
group is the shard of a device, results depend on the number of devices. Here the group size is
explicit: with groups of 32, a batch of 256 gives the same result on one device and on eight.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from jaxcnn.ops import reference
from jaxcnn.ops.dispatch import by_platform, linear_pair, reference_requested

# The name under which a rematerialization policy may save the means and variances of a batch.
STATISTICS = "batch_statistics"


def local_response_norm(
    x: Array,
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_div_n: bool = False,
) -> Array:
    """Computes x / (k + alpha * sum of squares over n adjacent channels) ** beta.

    The defaults are those of Krizhevsky et al. 2012, section 3.3.

    Args:
      x: f[N,H,W,C].
      n: number of adjacent channels.
      k: additive constant.
      alpha: factor of the sum.
      beta: exponent.
      alpha_div_n: divide alpha by n, as Caffe (with k=1) and the authors' code (with k=2) do.

    Returns:
      f[N,H,W,C].
    """
    alpha = alpha / n if alpha_div_n else alpha
    if reference_requested(x) or beta != 0.75:
        return reference.local_response_norm(x, n=n, k=k, alpha=alpha, beta=beta)
    reduced = functools.partial(reference.channel_window_sum, n=n)
    shifted = functools.partial(_sum_of_shifted_channels, n=n)
    root = lax.rsqrt(k + alpha * by_platform(shifted, x * x, cpu=reduced, gpu=reduced))
    return x * root * jnp.sqrt(root)


def _sum_of_shifted_channels(x: Array, *, n: int) -> Array:
    """Computes `reference.channel_window_sum` on a TPU, where XLA fuses it with its operand."""
    channels, half = x.shape[-1], n // 2
    x = lax.pad(x, x.dtype.type(0), [(0, 0, 0)] * 3 + [(half, n - 1 - half, 0)])
    total = x[..., :channels]
    for i in range(1, n):
        total += x[..., i : i + channels]
    return total


class BatchNorm(nn.Module):
    """BatchNorm, f[N,...,C] to f[N,...,C] of `dtype`.

    Variables and results are those of `nn.BatchNorm` with its defaults.

    Attributes:
      use_running_average: normalize with the running statistics, without updating them.
      momentum: decay of the running statistics: the fraction that a training step keeps. The
        networks of this package use 0.9, see `jaxcnn.layers.Network`.
      epsilon: added to the variance.
      dtype: of the result; by default that of x and the parameters. Statistics use at least
        float32.
      use_scale, use_bias: whether there are parameters `scale` and `bias`, f32[C].
      scale_init, bias_init: their initializers.
      axis_name: mesh axis over which the batch is sharded and statistics are averaged.
      group: number of neighboring examples over which statistics are computed in training; None for
        the whole batch. The running statistics are updated with the mean over groups. Either the
        shard of a device consists of whole groups, or a group consists of whole shards, which
        requires `axis_name`.

    Raises:
      ValueError: neither holds.
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
    group: int | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalizes x, f[N,...,C]."""
        return _batch_norm(self, x, None, relu=False)


class BatchNormAct(BatchNorm):
    """BatchNorm, the optional addition of a shortcut, and ReLU, as one operation.

    Attributes and variables are those of `BatchNorm`. `norm_act(x, shortcut)` equals
    `nn.relu(norm(x) + shortcut)`.
    """

    @nn.compact
    def __call__(self, x: Array, shortcut: Array | None = None) -> Array:
        """Computes relu(norm(x) + shortcut), for x and shortcut f[N,...,C]."""
        return _batch_norm(self, x, shortcut, relu=True)


def _batch_norm(module: BatchNorm, x: Array, skip: Array | None, *, relu: bool) -> Array:
    """Implements both modules, with the variables of `module`."""
    shape, features = x.shape, x.shape[-1:]
    mean = module.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
    var = module.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
    scale = bias = None
    if module.use_scale:
        scale = module.param("scale", module.scale_init, features, jnp.float32)
    if module.use_bias:
        bias = module.param("bias", module.bias_init, features, jnp.float32)
    dtype = dtypes.canonicalize_dtype(x, scale, bias, dtype=module.dtype)
    scale = jnp.ones(features, jnp.float32) if scale is None else scale
    bias = jnp.zeros(features, jnp.float32) if bias is None else bias
    if module.use_running_average or module.is_initializing():
        means, variances = (_like(x, value.value) for value in (mean, var))
    else:
        groups, devices = _groups(x.shape[0], module.group, module.axis_name)
        if groups is not None:  # f[G,n,C]
            x = x.reshape(groups, -1, *features)
            skip = None if skip is None else skip.reshape(x.shape)
        axes = tuple(range(x.ndim - 1)) if groups is None else (1,)
        axis_name = module.axis_name if groups is None or devices else None
        means, variances = batch_statistics(x, axes, axis_name, devices, mean.value)
        for running, current in ((mean, means), (var, variances)):
            kept = module.momentum * running.value
            running.value = kept + (1 - module.momentum) * current.reshape(-1, *features).mean(0)
    factor = lax.rsqrt(variances + module.epsilon) * _like(x, scale)
    y = normalize(x, means, factor, _like(x, bias), skip, relu=relu, dtype=dtype)
    return y.reshape(shape)


def _groups(examples: int, group: int | None, axis_name: str | None) -> tuple[int | None, int]:
    """(number of groups, or None without groups; number of devices per group, or 0)."""
    if group is None:
        return None, 0
    larger, smaller = max(group, examples), min(group, examples)
    if larger % smaller:
        raise ValueError(f"{examples} examples do not fit groups of {group}")
    if group <= examples:
        return examples // group, 0
    if axis_name is None:
        raise ValueError(f"a group is {group} examples, but there are {examples}")
    return 1, group // examples


def _like(x: Array, value: Array) -> Array:
    """Reshapes f[C] to the rank of x."""
    return value.reshape((1,) * (x.ndim - 1) + value.shape)


# --- statistics ---------------------------------------------------------------------------------


def batch_statistics(
    x: Array, axes: tuple[int, ...], axis_name: str | None, devices: int, guess: Array
) -> tuple[Array, Array]:
    """Computes the mean and biased variance over axes and devices.

    Args:
      x: f[...,C].
      axes: the axes to reduce, which keep size 1.
      axis_name: mesh axis over which the batch is sharded, or None.
      devices: number of neighboring devices that share a group; 0 for all of them.
      guess: f[C], an estimate of the mean, which must be the same on all devices.

    Returns:
      Mean and variance, of at least float32.
    """
    # Squares are relative to an estimate of the mean, since those relative to zero lose precision.
    guess = lax.stop_gradient(_wide(_like(x, guess)))
    plain = reference_requested(x)
    mean, var = reference.moments(x, axes) if plain else moments(x, guess, axes)
    if axis_name is None:
        return mean, var
    neighbors = None
    if devices:
        count = lax.psum(1, axis_name)
        neighbors = [list(range(i, i + devices)) for i in range(0, count, devices)]
    first = mean - guess
    second = var + lax.square(first)
    first, second = lax.pmean((first, second), axis_name, axis_index_groups=neighbors)
    mean, var = guess + first, jnp.maximum(0.0, second - lax.square(first))
    return checkpoint_name(mean, STATISTICS), checkpoint_name(var, STATISTICS)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def moments(x: Array, guess: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Computes the mean and biased variance in one pass over x.

    An estimate of the mean is subtracted first. Without it, float32 loses precision if the
    variance is small compared to the squared mean (at a mean of 1,000 standard deviations, all of
    it). The estimate is the mean of a few elements. On a TPU, where that would be another pass over
    memory, it is `guess`.

    Args:
      x: f[...,C].
      guess: f[...,C] of the same rank, with size 1 in all axes but the last; the result does not
        depend on it but for rounding.
      axes: the axes to reduce, which keep size 1.

    Returns:
      Mean and variance, of at least float32.
    """

    def two_reductions(x, shift, axes=axes):
        y = _wide(x) - shift
        return y.mean(axes, keepdims=True), lax.square(y).mean(axes, keepdims=True)

    def rows(x, shift):
        # XLA reduces rows of pixels about three times as fast as three axes.
        if shift.size != x.shape[-1]:
            return two_reductions(x, shift)
        first, second = two_reductions(x.reshape(-1, x.shape[-1]), shift.reshape(1, -1), (0,))
        return first.reshape(shift.shape), second.reshape(shift.shape)

    def one_reduction(x, shift):
        y = _wide(x) - shift
        return _mean_of_both(y, lax.square(y), axes)

    def around(reduce, x, shift):
        first, second = reduce(x, shift)
        return shift + first, jnp.maximum(0.0, second - lax.square(first))

    def around_sample(reduce, x, guess):
        del guess
        sample = _wide(_sample(x, axes)).mean(axes, keepdims=True)
        return around(reduce, x, lax.optimization_barrier(sample))

    cpu, gpu = (functools.partial(around_sample, reduce) for reduce in (rows, one_reduction))
    return by_platform(functools.partial(around, two_reductions), x, guess, cpu=cpu, gpu=gpu)


@moments.defjvp
def _moments_jvp(axes, primals, tangents):
    x, guess = primals
    mean, var = (checkpoint_name(a, STATISTICS) for a in moments(x, guess, axes))
    return (mean, var), _moments_tangent(tangents[0], x, mean, axes=axes)


def _moments_change(t, x, mean, *, axes):
    t = _wide(t)
    return t.mean(axes, keepdims=True), (2 * (x - mean) * t).mean(axes, keepdims=True)


def _moments_gradient(g_mean, g_var, x, mean, *, axes):
    count = x.size // mean.size
    return ((g_mean / count + (2 / count) * g_var * (x - mean)).astype(x.dtype),)


_moments_tangent = linear_pair("moments_tangent", _moments_change, _moments_gradient, counts=(1, 2))


def _sample(x: Array, axes: tuple[int, ...]) -> Array:
    """Selects a few elements: a 4x4 grid of the first example, or 16 elements of each group."""
    steps = [slice(None)] * x.ndim
    for axis in axes:
        if axis == 0:  # may be symbolic
            steps[0] = slice(0, 1)
        else:
            steps[axis] = slice(None, None, max(1, x.shape[axis] // (16 if axes == (1,) else 4)))
    return x[tuple(steps)]


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _mean_of_both(a: Array, b: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Computes the means of both arrays over the axes, which keep size 1, in one pass."""
    zero = jnp.zeros((), a.dtype)
    sums = lax.reduce((a, b), (zero, zero), lambda p, q: (p[0] + q[0], p[1] + q[1]), axes)
    shape = [1 if axis in axes else n for axis, n in enumerate(a.shape)]
    count = math.prod(a.shape[axis] for axis in axes)
    return sums[0].reshape(shape) / count, sums[1].reshape(shape) / count


# --- normalization, shortcut and ReLU ------------------------------------------------------------


def normalize(
    x: Array, mean: Array, factor: Array, bias: Array, skip: Array | None, *, relu: bool, dtype: Any
) -> Array:
    """Computes (x - mean) * factor + bias, optionally adds a shortcut, and applies ReLU.

    Args:
      x: f[...,C].
      mean: array of the same rank as x, which broadcasts to its shape.
      factor: likewise.
      bias: likewise.
      skip: the shortcut f[...,C], or None.
      relu: apply `nn.relu`.
      dtype: of the result.

    Returns:
      f[...,C].
    """
    skip = None if skip is None else skip.astype(dtype)
    if reference_requested(x):
        return reference.normalize(x, mean, factor, bias, skip, relu=relu, dtype=dtype)
    return _normalize((relu, jnp.dtype(dtype)), x, mean, factor, bias, skip)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize(options, x, mean, factor, bias, skip):
    relu, dtype = options
    return reference.normalize(x, mean, factor, bias, skip, relu=relu, dtype=dtype)


@_normalize.defjvp
def _normalize_jvp(options, primals, tangents):
    relu, dtype = options
    x, mean, factor, bias, skip = primals
    y = _normalize(options, *primals)
    # XLA may store the sign or recompute it. With a shortcut that would need the shortcut as well,
    # except on a TPU, where XLA keeps y, so that elsewhere it is stored, one byte per element.
    positive = y > 0
    if skip is not None:
        stored = lax.optimization_barrier
        positive = by_platform(lambda positive: positive, positive, cpu=stored, gpu=stored)
    linear = [t for t in tangents if t is not None]
    (t,) = (_tangent if skip is None else _tangent_with_skip)(
        *linear, x, mean, factor, bias, positive, relu=relu, dtype=dtype
    )
    return y, t


def _change(tx, t_mean, t_factor, t_bias, *rest, relu, dtype):
    *t_skip, x, mean, factor, _, positive = rest
    t = ((tx - t_mean) * factor + (x - mean) * t_factor + t_bias).astype(dtype)
    for shortcut in t_skip:
        t = shortcut + t
    return (jnp.where(positive, t, 0) if relu else t,)


def _gradient(g, x, mean, factor, bias, positive, *, relu, dtype, skip=False):
    masked = jnp.where(positive, g, 0) if relu else g
    wide = masked.astype(factor.dtype)
    sums = _sum_to(mean, wide), _sum_to(mean, wide * (x - mean))
    return _gradients(x, factor, bias, masked, *sums, skip)


def _gradients(x, factor, bias, masked, sum_g, sum_gx, skip):
    """Gradients of x, mean, factor, bias and shortcut, from the sums of the masked gradient."""
    dx = (masked.astype(factor.dtype) * factor).astype(x.dtype)
    of_bias = _sum_to(bias, sum_g).astype(bias.dtype)
    return dx, -factor * sum_g, sum_gx, of_bias, *([masked] if skip else [])


def _gradient_by_rows(g, x, mean, factor, bias, positive, **options):
    """Computes `_gradient` on a CPU, over rows of pixels."""
    channels = x.shape[-1]
    if mean.size != channels:
        return _gradient(g, x, mean, factor, bias, positive, **options)
    flat = (a.reshape(-1, channels) for a in (g, x, mean, factor, bias, positive))
    shapes = [a.shape for a in (x, mean, factor, bias, x)]
    return tuple(a.reshape(s) for a, s in zip(_gradient(*flat, **options), shapes))


def _gradient_in_two_passes(
    g, x, mean, factor, bias, positive, *, relu, dtype, skip=False
):  # fmt: skip
    """Computes `_gradient` on a GPU, where the cost is that of the passes over memory.

    The first pass computes the sums, the second one the result. The barriers separate the passes;
    otherwise the first pass stores values that the second one can recompute at lower cost.
    """

    def behind_relu(x, g, positive):
        if relu and not skip:
            positive = ((x - mean) * factor + bias).astype(dtype) > 0
        return jnp.where(positive, g, 0) if relu else g

    x = lax.optimization_barrier(x)
    wide = behind_relu(x, g, positive).astype(factor.dtype)
    axes = tuple(axis for axis, n in enumerate(mean.shape[:-1]) if n == 1)
    count = x.size // mean.size
    means = _mean_of_both(wide, wide * (x - mean), axes)
    x, g, positive, means = lax.optimization_barrier((x, g, positive, means))
    masked = behind_relu(x, g, positive)
    return _gradients(x, factor, bias, masked, count * means[0], count * means[1], skip)


def _sum_to(like: Array, a: Array) -> Array:
    """Sums over the axes in which `like` has size 1."""
    axes = tuple(axis for axis, n in enumerate(like.shape) if n == 1)
    return a.sum(axes, keepdims=True)


def _pair(name: str, skip: bool):
    backward, cpu, gpu = (
        functools.partial(f, skip=skip)
        for f in (_gradient, _gradient_by_rows, _gradient_in_two_passes)
    )
    return linear_pair(name, _change, backward, counts=(5 if skip else 4, 1), cpu=cpu, gpu=gpu)


_tangent = _pair("normalize_tangent", skip=False)
_tangent_with_skip = _pair("normalize_add_tangent", skip=True)
