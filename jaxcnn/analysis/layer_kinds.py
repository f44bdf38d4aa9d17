"""The kinds of layers that `jaxcnn.analysis.selfcheck` checks.

Each is defined twice: as the networks use it, and by the formulas of
`jaxcnn.analysis.plain_layers`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import layers
from jaxcnn.analysis import plain_layers as plain
from jaxcnn.ops import BatchNorm, BatchNormAct

CLASSES = 5
# Tolerances (on a CPU, elsewhere). Faults cause errors of a tenth or more; the errors of float32 on
# a CPU were at most 2e-6.
EXACT = 1e-4, 1e-4
BFLOAT16 = 5e-2, 5e-2  # rounding errors were at most 2.5e-2, in the gradient of a bias
MATRIX_UNITS = EXACT[0], BFLOAT16[1]  # matrix units round their inputs to TF32 or bfloat16


class Operation(nn.Module):
    """A layer without parameters.

    Attributes:
      fn: function of the images.
    """

    fn: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fn(x)


class Joined(BatchNormAct):
    """BatchNorm, a shortcut and ReLU; the shortcut is the images with reversed channels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        return inspect.unwrap(BatchNormAct.__call__)(self, x, x[..., ::-1])


class Stage(nn.Module):
    """Convolution, BatchNorm, ReLU and max pooling, which a compiler may fuse.

    Attributes:
      features: channels of the convolution.
      window, stride, padding: of the pooling.
    """

    features: int
    window: int
    stride: int
    padding: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = layers.conv(self.features, 3, 1, 1, name="conv")(x)
        norm = BatchNormAct(use_running_average=False, momentum=0.9, name="bn")
        return layers.max_pool(norm(x), self.window, self.stride, self.padding)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of layer and its reference.

    Attributes:
      name: of the kind.
      layer: the layer as the networks use it, f32[N,...] to f[N,...].
      plain: reference from `plain_layers`: (parameters, images) to the same output.
      shape: of the images.
      plain_statistics: reference of the running statistics after the step, as a function of
        (parameters, images); None if there are none.
      ties: use images of multiples of 1/4, so that windows have several maxima.
      tolerance: of the errors, see `selfcheck.Row`: on a CPU, and on other devices.
    """

    name: str
    layer: nn.Module
    plain: Callable[[Any, jax.Array], jax.Array]
    shape: tuple[int, ...] = (4, 9, 9, 8)
    plain_statistics: Callable[[Any, jax.Array], Any] | None = None
    ties: bool = False
    tolerance: tuple[float, float] = EXACT


def _conv(name: str, features: int, kernel: int, stride: int, padding: int, **other: Any) -> Kind:
    groups, bias = other.get("groups", 1), other.get("bias", False)
    dtype, shape = other.get("dtype", jnp.float32), other.get("shape", (4, 9, 9, 8))
    return Kind(
        name,
        layers.conv(features, kernel, stride, padding, groups=groups, bias=bias, dtype=dtype),
        functools.partial(plain.conv, stride=stride, padding=padding, groups=groups),
        shape,
        tolerance=BFLOAT16 if dtype == jnp.bfloat16 else MATRIX_UNITS,
    )


def _max_pool(name: str, window: int, stride: int, padding: int, size: int, below: int = 0) -> Kind:
    """A max pooling; rounding up adds padding `below` at the bottom and on the right."""
    ours = functools.partial(
        layers.max_pool, window=window, stride=stride, padding=padding, ceil_mode=below > 0
    )
    sides = (padding, padding + below)
    reference = functools.partial(plain.max_pool, window=window, stride=stride, sides=sides)
    return Kind(name, Operation(ours), reference, (4, size, size, 8), ties=True)


def _avg_pool(name: str, window: int, stride: int, padding: int, count_padding: bool) -> Kind:
    options: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    ours = functools.partial(layers.avg_pool, **options, count_include_pad=count_padding)
    reference = functools.partial(plain.avg_pool, **options, count_padding=count_padding)
    return Kind(name, Operation(ours), reference)


def _stage(name: str, window: int, stride: int, padding: int) -> Kind:
    pool: dict[str, Any] = {"window": window, "stride": stride}
    return Kind(
        name,
        Stage(512, padding=padding, **pool),  # enough channels that the compiler splits the work
        functools.partial(plain.stage, epsilon=1e-5, sides=(padding, padding), **pool),
        (2, 14, 14, 8),
        plain_statistics=functools.partial(plain.statistics_of_stage, momentum=0.9),
        tolerance=MATRIX_UNITS,
    )


def _dense() -> nn.Module:
    return nn.Sequential([nn.Dense(12), nn.Dropout(0.5, deterministic=True)])


_LRN: dict[str, Any] = {"n": 5, "k": 2.0, "alpha": 0.1}

KINDS: tuple[Kind, ...] = (
    _conv("convolution 3x3", 12, 3, 1, 1, bias=True),
    _conv("convolution 3x3, stride 2", 24, 3, 2, 1, shape=(4, 12, 12, 16)),
    _conv("convolution 1x1, stride 2", 12, 1, 2, 0),
    _conv("convolution 7x7, stride 2, of color images", 8, 7, 2, 3, shape=(4, 20, 20, 3)),
    _conv("convolution 11x11, stride 4", 8, 11, 4, 2, bias=True, shape=(4, 23, 23, 3)),
    _conv("convolution 5x5, of gray images", 6, 5, 1, 0, bias=True, shape=(4, 14, 14, 1)),
    _conv("convolution 3x3 in 2 groups", 12, 3, 1, 1, groups=2, bias=True),
    _conv("convolution 3x3 in 8 groups, stride 2", 16, 3, 2, 1, groups=8, shape=(4, 9, 9, 16)),
    _conv("convolution 3x3, bfloat16", 12, 3, 1, 1, dtype=jnp.bfloat16),
    _max_pool("max pooling 2x2", 2, 2, 0, 8),
    _max_pool("max pooling 3x3, stride 2, overlapping", 3, 2, 1, 9),
    _max_pool("max pooling 3x3, stride 2, rounded up", 3, 2, 0, 8, below=1),
    _avg_pool("average pooling 2x2", 2, 2, 0, True),
    _avg_pool("average pooling 3x3, padding not counted", 3, 1, 1, False),
    Kind(
        "adaptive average pooling",
        Operation(functools.partial(layers.adaptive_avg_pool, size=4)),
        functools.partial(plain.adaptive_avg_pool, size=4),
    ),
    Kind(
        "local response normalization",
        Operation(functools.partial(layers.local_response_norm, **_LRN)),
        functools.partial(plain.local_response_norm, **_LRN),
    ),
    Kind(
        "BatchNorm",
        BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5),
        functools.partial(plain.batch_norm, epsilon=1e-5),
        plain_statistics=functools.partial(plain.running_statistics, momentum=0.9),
    ),
    Kind(
        "BatchNorm, ReLU",
        BatchNormAct(use_running_average=False, momentum=0.9, epsilon=1e-5),
        lambda params, x: jnp.maximum(plain.batch_norm(params, x, epsilon=1e-5), 0),
        plain_statistics=functools.partial(plain.running_statistics, momentum=0.9),
    ),
    Kind(
        "BatchNorm, shortcut, ReLU",
        Joined(use_running_average=False, momentum=0.9, epsilon=1e-5),
        lambda params, x: jnp.maximum(plain.batch_norm(params, x, epsilon=1e-5) + x[..., ::-1], 0),
        plain_statistics=functools.partial(plain.running_statistics, momentum=0.9),
    ),
    _stage("convolution, BatchNorm, ReLU, max pooling 2x2", 2, 2, 0),
    _stage("convolution, BatchNorm, ReLU, max pooling 3x3, stride 2", 3, 2, 1),
    _stage("convolution, BatchNorm, ReLU, max pooling 3x3", 3, 1, 1),
    Kind(
        "dense, dropout off",
        _dense(),
        lambda params, x: plain.dense(params["layers_0"], x),
        (4, 40),
        tolerance=MATRIX_UNITS,
    ),
    Kind(
        "squeeze-and-excitation",
        layers.SqueezeExcite(reduction=2),
        plain.squeeze_excite,
        tolerance=MATRIX_UNITS,
    ),
    Kind("cross-entropy", Operation(lambda x: 20 * x), lambda params, x: 20 * x, (16, CLASSES)),
)
