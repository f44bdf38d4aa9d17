"""Building blocks of the Inception families: modules described as data, and their base network.

A chain is a tuple of layers: `Conv` (a convolution with BatchNorm and ReLU, unless the network
defines another unit), `Pool`, or a tuple of chains, which run in parallel and are concatenated
along channels. A module thus reads like its row in the paper's table:

    ((Conv(64),), (Conv(48), Conv(64, 5)), (Pool("avg"), Conv(32)))
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcnn import layers
from jaxcnn.ops.windows import Pair, Pairs, same_padding

# TF-Slim's initial values: truncated N(0, 2 / fan_in).
slim_init = nn.initializers.he_normal()

Chains = tuple[tuple[Any, ...], ...]  # parallel chains of `Conv`, `Pool` and `Chains`


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution of a chain.

    Attributes:
      features: number of output channels.
      kernel: size, one number or (height, width).
      stride: of the convolution.
      valid: do not pad; otherwise (kernel - 1) / 2 zeros are added on every side.
      same: pad as TensorFlow does, with a stride mostly at the bottom and on the right.
    """

    features: int
    kernel: Pair = 1
    stride: int = 1
    valid: bool = False
    same: bool = False

    def padding(self, size: Sequence[int]) -> Pairs | tuple[int, int]:
        """Returns the padding in pixels, as `jaxcnn.layers.conv` takes it.

        Args:
          size: height and width of the input.
        """
        if self.same:
            return same_padding(size, self.kernel, self.stride)
        height, width = layers.pair(self.kernel)
        return (0, 0) if self.valid else ((height - 1) // 2, (width - 1) // 2)


@dataclasses.dataclass(frozen=True)
class Pool:
    """A 3x3 pooling of a chain, f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),C].

    With stride 2 an even size is padded at the bottom and on the right only, as in Caffe's ceil
    mode.

    Attributes:
      kind: "max" or "avg".
      stride: of the windows.
      valid: do not pad.
    """

    kind: str
    stride: int = 1
    valid: bool = False

    def __call__(self, x: Array, count_include_pad: bool = False) -> Array:
        """Pools f[N,H,W,C]; average pooling counts the padding if `count_include_pad`."""
        low = [1 if self.stride == 1 else n % 2 for n in x.shape[1:3]]
        padding = 0 if self.valid else ((low[0], 1), (low[1], 1))
        if self.kind == "max":
            return layers.max_pool(x, 3, self.stride, padding)
        return layers.avg_pool(x, 3, self.stride, padding, count_include_pad=count_include_pad)


class Chain(nn.Module):
    """Applies the layers of a chain in turn, f[N,H,W,C] to f[N,h,w,c].

    The submodules are `conv1`, `conv2`, ... for convolutions and `mixed1`, ... for parallel chains.

    Attributes:
      steps: the layers.
      unit: constructor of a convolution with BatchNorm and ReLU, see `InceptionNetwork.unit`.
      count_include_pad: whether average pooling counts the padding.
    """

    steps: tuple[Any, ...]
    unit: Callable[..., nn.Module]
    count_include_pad: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _run(self, x, self.steps, "")


class Mixed(nn.Module):
    """Applies chains in parallel and concatenates their outputs, f[N,H,W,C] to f[N,h,w,c].

    The submodules are `branch1_conv1`, ...

    Attributes:
      branches: the chains.
      unit: constructor of a convolution with BatchNorm and ReLU, see `InceptionNetwork.unit`.
      count_include_pad: whether average pooling counts the padding.
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


def _run(
    module: Chain | Mixed | ResidualMixed, x: Array, steps: tuple[Any, ...], prefix: str
) -> Array:
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
                step.padding(x.shape[1:3]),
                name=f"{prefix}conv{convs}",
            )
            x = unit(x)
        else:
            mixed += 1
            name = f"{prefix}mixed{mixed}"
            x = Mixed(step, module.unit, module.count_include_pad, name=name)(x)
    return x


class ResidualMixed(nn.Module):
    """Adds `scale` times a projection of parallel chains to x, f[N,H,W,C] to f[N,H,W,C].

    The projection is a 1x1 convolution with bias, without BatchNorm and activation: the submodule
    `expand` (Szegedy et al. 2016, section 3.3).

    Attributes:
      branches: the chains.
      scale: factor of the residual.
      unit: constructor of a convolution with BatchNorm and ReLU, see `InceptionNetwork.unit`.
      conv: constructor of the projection.
      act: apply ReLU to the sum.
      count_include_pad: whether average pooling counts the padding.
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
    """Separable 7x7 convolution with stride 2, f[N,H,W,3] to f[N,H/2,W/2,64].

    The first layer of BN-Inception (Ioffe and Szegedy 2015, section 4.2): a depthwise convolution
    with depth multiplier 8, followed without an activation by a 1x1 convolution.

    Attributes:
      unit: constructor of the 1x1 convolution with BatchNorm and ReLU.
      conv: constructor of the depthwise convolution.
      same: pad as TensorFlow does.
    """

    unit: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    same: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        padding = Conv(8, 7, 2, same=self.same).padding(x.shape[1:3])
        x = self.conv(8 * x.shape[-1], 7, 2, padding, groups=x.shape[-1], name="depthwise")(x)
        return self.unit(64, 1, name="pointwise")(x)


class AuxHead(nn.Module):
    """Auxiliary classifier of Inception-v3 and later networks, f[N,17,17,C] to f32[N,num_classes].

    5x5 average pooling with stride 3, 1x1 convolution of 128 channels, 5x5 convolution of 768
    channels, dense layer. A map smaller than 17x17 is pooled adaptively to 5x5; on a larger one the
    outputs of the 5x5 convolution are averaged.

    Attributes:
      num_classes: width of the dense layer.
      unit, wide_unit: constructors of the 1x1 and of the 5x5 convolution.
      dtype: type of the computation.
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
        head = layers.classifier(self.num_classes, self.dtype, kernel_init=init, name="fc")
        return layers.as_output(head(layers.global_avg_pool(x)))


class InceptionNetwork(layers.Network):
    """Base class of the batch-normalized Inception networks.

    TF-Slim's networks train with `bn_momentum=0.9997`. Inherits the fields of `Network`.

    Attributes:
      gamma: whether BatchNorm learns a scale. TF-Slim's networks do not, since a ReLU follows.
      aux_heads: add the auxiliary classifier (endpoint `aux1`). It is computed at initialization
        and when endpoints are requested.
      dropout: dropout rate before the classifier.
      count_include_pad: whether average pooling inside modules divides by 9 at the border as well
        (Caffe, torchvision) or by the number of pixels in the window (TensorFlow).
      mean, std: channel mean and standard deviation of RGB in [0, 1].
    """

    min_size: int = 75
    bn_epsilon: float = 1e-3
    gamma: bool = True
    aux_heads: bool = False
    dropout: float = 0.2
    count_include_pad: bool = False
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def unit(
        self, train: bool, kernel_init: nn.initializers.Initializer = slim_init
    ) -> Callable[..., nn.Module]:
        """Returns a constructor of convolutions with BatchNorm and ReLU.

        Use it as `unit(features, kernel, stride, padding, name=...)(x)`.

        Args:
          train: whether the network is training.
          kernel_init: initializer of the kernels.
        """
        return functools.partial(
            layers.ConvBNAct,
            conv=self.conv(kernel_init=kernel_init),
            norm_act=functools.partial(self.norm_act(train), use_scale=self.gamma),
        )

    def mixed(self, train: bool) -> Callable[..., nn.Module]:
        """Returns a constructor of Inception modules: `mixed(branches, name=...)(x)`.

        Args:
          train: whether the network is training.
        """
        return functools.partial(
            self.rematerialize(Mixed),
            unit=self.unit(train),
            count_include_pad=self.count_include_pad,
        )

    def entry(self, steps: tuple[Any, ...], train: bool) -> nn.Module:
        """Creates the stem, f[N,H,W,C] to f[N,h,w,c], with the name `entry`.

        Args:
          steps: see `Chain`.
          train: whether the network is training.
        """
        chain = self.rematerialize(Chain)
        return chain(steps, self.unit(train), self.count_include_pad, name="entry")

    def auxiliary(self, x: Array, train: bool) -> None:
        """Computes the auxiliary logits and records them as the endpoint `aux1`, if requested.

        Args:
          x: feature map f[N,H,W,C].
          train: whether the network is training.
        """
        if self.aux_heads and self.num_classes and self.wants_endpoints():
            wide = self.unit(train, nn.initializers.truncated_normal(0.01))
            head = AuxHead(self.num_classes, self.unit(train), wide, self.dtype, name="aux1_head")
            self.endpoint("aux1", head(x))

    def classify(self, x: Array, train: bool) -> Array:
        """Applies global average pooling, dropout and the classifier.

        Args:
          x: feature map f[N,H,W,C].
          train: whether the network is training.

        Returns:
          Logits f32[N,num_classes].
        """
        x = layers.global_avg_pool(x)
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return self.logits(x, kernel_init=slim_init)
