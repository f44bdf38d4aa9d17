"""Building blocks of several families: residual blocks before and after activation with their
shortcuts and drop path, the base of the residual networks, and AlexNet's convolution with ReLU and
response normalization.

A residual block is written for one position of a network. Comments give the shape behind each
line, for the first block of stage 2 of ResNet-18 (basic) or ResNet-50 (bottleneck) at 224x224.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import layers
from jaxcnn._checks import one_of, require

# --- shortcuts ----------------------------------------------------------------------------------

# How a shortcut changes the shape (C: also where the shape stays).
SHORTCUTS = {
    "A": "every second pixel, zeros for the new channels, which follow the old ones",
    "A_symmetric": "the same with half of the zeros before the old channels",
    "B": "1x1 convolution with the stride",
    "C": "as B, and a convolution also where the shape stays",
    "D": "average pooling with the stride, then 1x1 convolution",
    "none": "no shortcut: a plain net",
}


def keeps_shape(x: Array, features: int, stride: int, kind: str) -> bool:
    """Whether a shortcut of this kind is the identity."""
    return stride == 1 and features == x.shape[-1] and kind != "C"


def subsample(x: Array, features: int, stride: int, *, symmetric: bool = False) -> Array:
    """Option A: every `stride`-th pixel, and zeros for the channels that x does not have.

    f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),features]. The zeros follow the channels of x,
    or with `symmetric` half of them come first.
    """
    new = features - x.shape[-1]
    if new < 0:
        kind = "A_symmetric" if symmetric else "A"
        raise ValueError(
            f"shortcut {kind!r} adds channels, but a block takes {x.shape[-1]} to {features}"
        )
    before = new // 2 if symmetric else 0
    x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))  # x[:, ::s, ::s] may gather
    return jnp.pad(x, ((0, 0),) * 3 + ((before, new - before),))


def project(
    x: Array,
    features: int,
    stride: int,
    *,
    kind: str,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module] | None = None,
    kernel: int = 1,
) -> Array:
    """A shortcut that changes the shape: f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),features].

    Called in the scope of a block: its parameters are the block's `proj_conv` and `proj_bn`.
    """
    if kind in ("A", "A_symmetric"):
        return subsample(x, features, stride, symmetric=kind == "A_symmetric")
    if kind == "D" and stride > 1:
        x, stride = layers.avg_pool(x, 2, stride, ceil_mode=True), 1
    x = conv(features, kernel, stride, kernel // 2, name="proj_conv")(x)
    return x if norm is None else norm(name="proj_bn")(x)


# --- residual blocks ----------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """What `BasicBlock` and `Bottleneck` share: the shortcut and the end of a block.

    Attributes:
      width: channels of the block's stage; a bottleneck returns four times as many.
      stride: of the block.
      conv, norm, norm_act: the network's, see `jaxcnn.layers.Network`.
      shortcut: a key of `SHORTCUTS`.
      proj_kernel: kernel size of a projecting shortcut.
      groups, base_width, stride_on, halve_first: of a bottleneck, see `ResNet`.
      se_reduction, se_bias: squeeze-and-excitation on the branch; 0 for none.
      branch_relu: ReLU also after the last convolution's BatchNorm.
      zero_gamma: the scale of the last BatchNorm starts at zero.
      drop_path: probability that an example's branch is dropped while training.
      train: whether the network trains.
      dtype: type of the computation.
    """

    width: int
    stride: int = 1
    conv: Callable[..., nn.Module] = layers.conv
    norm: Callable[..., nn.Module] = layers.BatchNorm
    norm_act: Callable[..., nn.Module] = layers.BatchNormAct
    shortcut: str = "B"
    proj_kernel: int = 1
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    halve_first: bool = False
    se_reduction: int = 0
    se_bias: bool = True
    branch_relu: bool = False
    zero_gamma: bool = False
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    def identity(self, x: Array, features: int) -> Array | None:
        """The shortcut: f[N,H,W,C] to f[N,H/stride,W/stride,features]; None for a plain net."""
        if self.shortcut == "none":
            return None
        if keeps_shape(x, features, self.stride, self.shortcut):
            return x
        return project(
            x,
            features,
            self.stride,
            kind=self.shortcut,
            conv=self.conv,
            norm=self.norm,
            kernel=self.proj_kernel,
        )

    def add(self, y: Array, shortcut: Array | None, *, name: str) -> Array:
        """BatchNorm of the branch, what the options put behind it, plus the shortcut, then ReLU."""
        scale_init = nn.initializers.zeros if self.zero_gamma else nn.initializers.ones
        if not (self.se_reduction or self.branch_relu or self.drop_path):
            return self.norm_act(scale_init=scale_init, name=name)(y, shortcut)
        norm = self.norm_act if self.branch_relu else self.norm
        y = norm(scale_init=scale_init, name=name)(y)
        if self.se_reduction:
            y = layers.SqueezeExcite(self.se_reduction, self.se_bias, self.dtype, name="se")(y)
        if shortcut is None:
            return nn.relu(y)
        return nn.relu(shortcut + drop_path(y, self.drop_path, self.train))


class BasicBlock(ResidualBlock):
    """3x3, 3x3 (He et al. 2015, figure 5, left). f[N,H,W,C] to f[N,H/stride,W/stride,width]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x64
        shortcut = self.identity(x, self.width)  # 28x28x128
        y = self.conv(self.width, 3, self.stride, 1, name="conv1")(x)  # 28x28x128
        y = self.norm_act(name="bn1")(y)  # 28x28x128
        y = self.conv(self.width, 3, 1, 1, name="conv2")(y)  # 28x28x128
        return self.add(y, shortcut, name="bn2")  # 28x28x128


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 (He et al. 2015, figure 5, right), the 3x3 in groups for ResNeXt.

    f[N,H,W,C] to f[N,H/stride,W/stride,4*width].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x256
        out, mid = 4 * self.width, bottleneck_width(self)  # 512, 128
        first = mid // 2 if self.halve_first else mid
        stride1, stride2 = bottleneck_strides(self)
        shortcut = self.identity(x, out)  # 28x28x512
        y = self.conv(first, 1, stride1, name="conv1")(x)  # 56x56x128
        y = self.norm_act(name="bn1")(y)  # 56x56x128
        y = self.conv(mid, 3, stride2, 1, groups=self.groups, name="conv2")(y)  # 28x28x128
        y = self.norm_act(name="bn2")(y)  # 28x28x128
        y = self.conv(out, 1, name="conv3")(y)  # 28x28x512
        return self.add(y, shortcut, name="bn3")  # 28x28x512


def drop_path(y: Array, rate: float, train: bool) -> Array:
    """Stochastic depth (Huang et al. 2016): zero for some examples, scaled up for the others.

    f[N,H,W,C] to the same; needs the random stream "dropout" while training.
    """
    drop = nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name="drop_path")
    return drop(y)


class PreActBlock(nn.Module):
    """What `PreActBasicBlock` and `PreActBottleneck` share: the shortcut.

    Attributes:
      width: channels of the block's stage; a bottleneck returns four times as many.
      stride: of the block.
      conv, norm_act: the network's, see `jaxcnn.layers.Network`.
      shortcut: a key of `SHORTCUTS`.
      groups, base_width, stride_on: of a bottleneck, see `ResNet`.
      first_norm: BatchNorm and ReLU before the first convolution, too.
      dropout: share of the values that is dropped before the last convolution while training.
      train: whether the network trains.
    """

    width: int
    stride: int = 1
    conv: Callable[..., nn.Module] = layers.conv
    norm_act: Callable[..., nn.Module] = layers.BatchNormAct
    shortcut: str = "B"
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    first_norm: bool = True
    dropout: float = 0.0
    train: bool = False

    def activate(self, x: Array) -> Array:
        """The first BatchNorm and ReLU, unless the stem has them."""
        return self.norm_act(name="bn1")(x) if self.first_norm else x

    def drop(self, y: Array) -> Array:
        """Dropout."""
        return nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)

    def add(self, y: Array, x: Array, activated: Array) -> Array:
        """The branch y plus the shortcut, which is x where x has the shape of y.

        Where it has not, the shortcut begins behind the first BatchNorm and ReLU, at `activated`,
        and projects without BatchNorm.
        """
        features = y.shape[-1]
        if self.shortcut == "none":
            return y
        if keeps_shape(x, features, self.stride, self.shortcut):
            return y + x
        return y + project(activated, features, self.stride, kind=self.shortcut, conv=self.conv)


class PreActBasicBlock(PreActBlock):
    """BatchNorm, ReLU, 3x3, twice (He et al. 2016, figure 1b).

    f[N,H,W,C] to f[N,H/stride,W/stride,width].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x64
        activated = self.activate(x)  # 56x56x64
        y = self.conv(self.width, 3, self.stride, 1, name="conv1")(activated)  # 28x28x128
        y = self.norm_act(name="bn2")(y)  # 28x28x128
        y = self.conv(self.width, 3, 1, 1, name="conv2")(self.drop(y))  # 28x28x128
        return self.add(y, x, activated)  # 28x28x128


class PreActBottleneck(PreActBlock):
    """BatchNorm and ReLU before each of 1x1, 3x3, 1x1 (He et al. 2016, appendix).

    f[N,H,W,C] to f[N,H/stride,W/stride,4*width].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x256
        out, mid = 4 * self.width, bottleneck_width(self)  # 512, 128
        stride1, stride2 = bottleneck_strides(self)
        activated = self.activate(x)  # 56x56x256
        y = self.conv(mid, 1, stride1, name="conv1")(activated)  # 56x56x128
        y = self.norm_act(name="bn2")(y)  # 56x56x128
        y = self.conv(mid, 3, stride2, 1, groups=self.groups, name="conv2")(y)  # 28x28x128
        y = self.norm_act(name="bn3")(y)  # 28x28x128
        y = self.conv(out, 1, name="conv3")(self.drop(y))  # 28x28x512
        return self.add(y, x, activated)  # 28x28x512


# By name, as a configuration has them.
BLOCKS = {b.__name__: b for b in (BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck)}


def bottleneck_width(block: ResidualBlock | PreActBlock) -> int:
    """Channels of a bottleneck's 3x3 convolution: `groups` groups of width * base_width / 64."""
    return block.width * block.base_width // 64 * block.groups


def bottleneck_strides(block: ResidualBlock | PreActBlock) -> tuple[int, int]:
    """Strides of a bottleneck's first 1x1 and of its 3x3 convolution."""
    strides = {"1x1": (block.stride, 1), "3x3": (1, block.stride)}
    return strides[one_of("stride_on", block.stride_on, strides)]


# --- residual networks --------------------------------------------------------------------------

# Blocks per stage by depth. Bottlenecks from 50 layers on.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# fb.resnet.torch leaves the classifier at Torch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
fc_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResidualNetwork(layers.Network):
    """Base of `ResNet` and `ResNetV2`: stages of residual blocks behind a stem.

    Stages double the channels; all but the first halve height and width. ImageNet nets have four,
    CIFAR nets three.

    Inherits the fields of `Network`. Defaults are ResNet-50.

    Attributes:
      blocks: number of blocks in each stage.
      width: channels of stage 1; bottlenecks return four times as many.
      groups, base_width: a bottleneck's 3x3 convolution has `groups` groups, and in a stage of
        width w groups * floor(w * base_width / 64) channels.
      stride_on: the convolution of a bottleneck that has the stride, "1x1" or "3x3".
      small_images: for CIFAR: the stem is one 3x3 convolution with stride 1, without pooling.
      shortcut: a key of `SHORTCUTS`.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    small_images: bool = False
    shortcut: str = "B"

    def block_options(self, train: bool) -> dict[str, Any]:
        """The fields that are the same for every block of the network."""
        one_of("shortcut", self.shortcut, SHORTCUTS)
        return {
            "norm_act": self.norm_act(train),
            "shortcut": self.shortcut,
            "groups": self.groups,
            "base_width": self.base_width,
            "stride_on": self.stride_on,
            "train": train,
        }

    def stem_convs(self, x: Array, channels: tuple[int, ...], conv: Any, norm_act: Any) -> Array:
        """The convolutions before the pooling, each with BatchNorm and ReLU unless that is None.

        Parameters are `stem_conv` and `stem_bn`, numbered from 1 where there are three.
        """
        require(len(channels) in (1, 3), "stem", channels, "the channels of 1 convolution or of 3")
        kernel = 7 if len(channels) == 1 and not self.small_images else 3
        for i, features in enumerate(channels):
            number = "" if len(channels) == 1 else i + 1
            stride = 2 if i == 0 and not self.small_images else 1
            x = conv(features, kernel, stride, kernel // 2, name=f"stem_conv{number}")(x)
            if norm_act is not None:
                x = norm_act(name=f"stem_bn{number}")(x)
        return x


# --- AlexNet, ZFNet, VGG, GoogLeNet -------------------------------------------------------------

# The formula as printed (k 2, alpha 1e-4), Caffe's (k 1, alpha / n) and that of the authors' own
# cuda-convnet (k 2, alpha / n).
LRN: dict[str, dict[str, Any]] = {
    "paper": {},
    "caffe": {"k": 1.0, "alpha_div_n": True},
    "cuda_convnet": {"alpha_div_n": True},
}


def response_norm(x: Array, preset: str | None) -> Array:
    """Local response normalization by a preset of `LRN`; None leaves x as it is."""
    if preset is None:
        return x
    return layers.local_response_norm(x, **LRN[one_of("lrn", preset, LRN)])


class ConvRelu(nn.Module):
    """Convolution, ReLU and what follows: parameters are in `conv`. f[N,H,W,C] to f[N,h,w,c].

    Attributes:
      features, kernel, stride, padding, groups, bias_init: of the convolution, see `layers.conv`.
      conv: the network's, see `jaxcnn.layers.Network`.
      then: applied to the ReLU's result, such as a pooling; None for nothing.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: Any = 0
    groups: int = 1
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    conv: Callable[..., nn.Module] = layers.conv
    then: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = self.conv(
            self.features,
            self.kernel,
            self.stride,
            self.padding,
            groups=self.groups,
            bias_init=self.bias_init,
            name="conv",
        )
        x = nn.relu(conv(x))
        return x if self.then is None else self.then(x)
