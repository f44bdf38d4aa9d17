"""What the Inception families share: modules written down as data, and the form of their networks.

A chain is a tuple of steps: `Conv` (the network's unit, convolution - BatchNorm - ReLU unless it
says otherwise), `Pool`, or a tuple of chains, which run side by side and are concatenated. So a
module reads as its row in the paper's table:

    ((Conv(64),), (Conv(48), Conv(64, 5)), (Pool("avg"), Conv(32)))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcnn import layers

# TF-Slim's initial values: truncated N(0, 2 / fan_in).
slim_init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class Conv:
    """A unit that pads (kernel - 1) / 2 on every side, or nothing if `valid`."""

    features: int
    kernel: layers.Pair = 1
    stride: int = 1
    valid: bool = False

    def padding(self) -> tuple[int, int]:
        height, width = layers.pair(self.kernel)
        return (0, 0) if self.valid else ((height - 1) // 2, (width - 1) // 2)


@dataclasses.dataclass(frozen=True)
class Pool:
    """A 3x3 pool ("max" or "avg"); the size is divided by `stride` and rounded up unless `valid`.

    On an even size a stride of 2 pads below and to the right only, as Caffe's ceil mode does.
    """

    kind: str
    stride: int = 1
    valid: bool = False

    def __call__(self, x: Array, count_include_pad: bool = False) -> Array:
        low = [1 if self.stride == 1 else n % 2 for n in x.shape[1:3]]
        padding = 0 if self.valid else ((low[0], 1), (low[1], 1))
        if self.kind == "max":
            return layers.max_pool(x, 3, self.stride, padding)
        return layers.avg_pool(x, 3, self.stride, padding, count_include_pad=count_include_pad)


class Chain(nn.Module):
    """Steps one after the other: units `conv1`, `conv2`, ..., side by side `mixed1`, ...

    [N,H,W,C] to [N,h,w,c].
    """

    steps: tuple[Any, ...]
    unit: Callable[..., nn.Module]
    count_include_pad: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _run(self, x, self.steps, "")


class Mixed(nn.Module):
    """Chains side by side, concatenated along channels: units `branch1_conv1`, ...

    [N,H,W,C] to [N,h,w,c].
    """

    branches: tuple[Any, ...]
    unit: Callable[..., nn.Module]
    count_include_pad: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.concatenate(list(_run_branches(self, x)), axis=-1)


def _run_branches(module: Mixed | ResidualMixed, x: Array) -> Iterator[Array]:
    for i, steps in enumerate(module.branches, 1):
        yield _run(module, x, steps, f"branch{i}_")


def _run(module, x: Array, steps: tuple[Any, ...], prefix: str) -> Array:
    convs = mixed = 0
    for step in steps:
        if isinstance(step, Pool):
            x = step(x, module.count_include_pad)
        elif isinstance(step, Conv):
            convs += 1
            unit = module.unit(
                step.features,
                step.kernel,
                step.stride,
                step.padding(),
                name=f"{prefix}conv{convs}",
            )
            x = unit(x)
        else:
            mixed += 1
            name = f"{prefix}mixed{mixed}"
            x = Mixed(step, module.unit, module.count_include_pad, name=name)(x)
    return x


class ResidualMixed(nn.Module):
    """x + scale * expansion(branches(x)), then ReLU if `act`. [N,H,W,C] to the same.

    The expansion is a 1x1 convolution with bias, without BatchNorm and activation: `expand`.
    """

    branches: tuple[Any, ...]
    scale: float
    unit: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    act: bool = True
    count_include_pad: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = jnp.concatenate(list(_run_branches(self, x)), axis=-1)
        y = self.conv(x.shape[-1], 1, bias=True, name="expand")(y)
        x = x + self.scale * y
        return nn.relu(x) if self.act else x


class SeparableStem(nn.Module):
    """7x7/2 with depth multiplier 8, then a 1x1 unit: [N,H,W,3] to [N,H/2,W/2,64].

    As the first layer of BN-Inception (Ioffe and Szegedy 2015, section 4.2): each input channel
    has its own filters, and no activation stands between the two.
    """

    unit: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.conv(8 * x.shape[-1], 7, 2, 3, groups=x.shape[-1], name="depthwise")(x)
        return self.unit(64, 1, name="pointwise")(x)


class AuxHead(nn.Module):
    """Auxiliary classifier of Inception-v3 and later: [N,17,17,C] to f32[N,num_classes].

    5x5/3 average, 1x1 128, 5x5 768, linear. On a map below 17x17 the average is over a 5x5 grid of
    windows instead; on a larger one the 5x5 convolution's outputs are averaged.
    """

    num_classes: int
    unit: Callable[..., nn.Module]
    wide_unit: Callable[..., nn.Module]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if min(x.shape[1:3]) < 17:
            x = layers.adaptive_avg_pool(x, 5)
        else:
            x = layers.avg_pool(x, 5, 3)  # 5x5
        x = self.unit(128, 1, name="conv1")(x)
        x = self.wide_unit(768, 5, name="conv2")(x)  # 1x1x768
        init = nn.initializers.truncated_normal(0.001)
        x = nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name="fc")(
            layers.global_avg_pool(x)
        )
        return layers.as_output(x)


class InceptionNetwork(layers.Network):
    """Base of the batch-normalized Inception networks. TF-Slim's keep 0.9997 of the statistics.

    Inherits the fields of `Network`.

    Attributes:
      gamma: learn BatchNorm's scale. TF-Slim's networks have none, since a ReLU follows.
      aux_heads: have the auxiliary classifier (endpoint `aux1`), which is computed at
        initialization and where endpoints are requested.
      dropout: share of the features that are dropped before the classifier while training.
      count_include_pad: whether average pools inside blocks divide by 9 at the border too
        (Caffe, torchvision) or by the number of pixels there (TensorFlow).
      mean, std: normalization of RGB in [0, 1].
    """

    min_size: int = 75
    bn_epsilon: float = 1e-3
    gamma: bool = True
    aux_heads: bool = False
    dropout: float = 0.2
    count_include_pad: bool = False
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def unit(self, train: bool, kernel_init=slim_init) -> Callable[..., nn.Module]:
        """Convolution - BatchNorm - ReLU: `unit(features, kernel, stride, padding, name=...)`."""
        return functools.partial(
            layers.ConvBNAct,
            conv=self.conv(kernel_init=kernel_init),
            norm_act=functools.partial(self.norm_act(train), use_scale=self.gamma),
        )

    def mixed(self, train: bool) -> Callable[..., nn.Module]:
        """A module of branches: `mixed(branches, name=...)`."""
        return functools.partial(
            self.rematerialize(Mixed),
            unit=self.unit(train),
            count_include_pad=self.count_include_pad,
        )

    def auxiliary(self, x: Array, train: bool) -> None:
        """Names the auxiliary logits `aux1` where they are wanted."""
        if self.aux_heads and self.num_classes and self.wants_endpoints():
            wide = self.unit(train, nn.initializers.truncated_normal(0.01))
            head = AuxHead(self.num_classes, self.unit(train), wide, self.dtype, name="aux1_head")
            self.endpoint("aux1", head(x))

    def classify(self, x: Array, train: bool) -> Array:
        """Global average, dropout, classifier: [N,H,W,C] to f32[N,num_classes]."""
        x = layers.global_avg_pool(x)
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return self.logits(x, kernel_init=slim_init)
