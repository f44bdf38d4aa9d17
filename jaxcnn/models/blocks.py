"""Building blocks that several families share.

Residual blocks (original and pre-activation) with their shortcuts and stochastic depth, the base
class of the residual networks, and AlexNet's convolution with ReLU and response normalization.

The comments in a residual block give the shape after each line, for the first block of stage 2 of
ResNet-18 (basic) or ResNet-50 (bottleneck) on a 224x224 image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import layers
from jaxcnn._checks import one_of, require

# --- shortcuts ----------------------------------------------------------------------------------

# How a shortcut matches the shape of its block's output (He et al. 2015, section 4.1; D: He et al.
# 2019, figure 2c).
SHORTCUTS = {
    "A": "every second pixel, and zeros for the new channels, after the old ones",
    "A_symmetric": "as A, with half of the zeros before the old channels",
    "B": "1x1 convolution with the stride where the number of channels changes; every second pixel "
    "where only height and width do",
    "C": "1x1 convolution in every block",
    "D": "as B, with average pooling in place of the convolution's stride",
    "none": "no shortcut: a plain network",
}


def is_identity(x: Array, features: int, stride: int, kind: str) -> bool:
    """Returns whether the shortcut of a block is the identity.

    Args:
      x: input of the block, f[N,H,W,C].
      features: channels of the block's output.
      stride: of the block.
      kind: a key of `SHORTCUTS`.
    """
    return stride == 1 and features == x.shape[-1] and kind != "C"


def subsample(x: Array, features: int, stride: int, *, symmetric: bool = False) -> Array:
    """Subsamples the pixels and pads the channels with zeros: shortcut option A.

    Args:
      x: f[N,H,W,C].
      features: number of output channels, at least C.
      stride: keep every `stride`-th row and column.
      symmetric: put half of the zeros before the channels of x instead of all after them.

    Returns:
      f[N,ceil(H/stride),ceil(W/stride),features].

    Raises:
      ValueError: `features` is less than C.
    """
    new = features - x.shape[-1]
    if new < 0:
        kind = "A_symmetric" if symmetric else "A"
        raise ValueError(
            f"shortcut {kind!r} can only add channels, but a block has {x.shape[-1]} input "
            f"channels and {features} output channels"
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
    """Applies a shortcut that changes the shape.

    It must be called within a block, whose submodules `proj_conv` and `proj_bn` it creates.

    Args:
      x: input of the block, f[N,H,W,C].
      features: channels of the block's output.
      stride: of the block.
      kind: a key of `SHORTCUTS`.
      conv: creates the convolution, see `jaxcnn.layers.Network.conv`.
      norm: creates the BatchNorm after the convolution; None for no BatchNorm.
      kernel: size of the convolution.

    Returns:
      f[N,ceil(H/stride),ceil(W/stride),features].
    """
    if kind in ("A", "A_symmetric"):
        return subsample(x, features, stride, symmetric=kind == "A_symmetric")
    if kind == "D" and stride > 1:
        x, stride = layers.avg_pool(x, 2, stride, ceil_mode=True), 1
    x = conv(features, kernel, stride, kernel // 2, name="proj_conv")(x)
    return x if norm is None else norm(name="proj_bn")(x)


# --- residual blocks ----------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Base class of `BasicBlock` and `Bottleneck`: the shortcut and the addition.

    Attributes:
      width: width of the block's stage in channels; a bottleneck returns four times as many.
      stride: of the block.
      conv, norm, norm_act: constructors of the layers, see `jaxcnn.layers.Network`.
      shortcut: a key of `SHORTCUTS`.
      proj_kernel: kernel size of a projection shortcut.
      groups, base_width, stride_on, halve_first: of a bottleneck, see `ResNet`.
      se_reduction, se_bias: reduction and biases of squeeze-and-excitation on the residual branch;
        a reduction of 0 leaves it out.
      branch_relu: apply ReLU after the last BatchNorm of the branch as well.
      zero_gamma: initialize the scale of the last BatchNorm to zero.
      drop_path: probability of dropping the branch for an example during training.
      train: whether the network is training.
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
        """Applies the shortcut.

        It keeps every second pixel where only height and width change.

        Args:
          x: input of the block, f[N,H,W,C].
          features: channels of the block's output.

        Returns:
          f[N,ceil(H/stride),ceil(W/stride),features]; None in a plain network.
        """
        if self.shortcut == "none":
            return None
        if is_identity(x, features, self.stride, self.shortcut):
            return x
        if features == x.shape[-1] and self.shortcut == "B":
            return subsample(x, features, self.stride)
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
        """Normalizes the residual branch, adds the shortcut and applies ReLU.

        Squeeze-and-excitation and stochastic depth, where enabled, come before the addition.

        Args:
          y: output of the branch's last convolution, f[N,h,w,C].
          shortcut: f[N,h,w,C], or None.
          name: of the BatchNorm.

        Returns:
          f[N,h,w,C].
        """
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
    """Two 3x3 convolutions (He et al. 2015, figure 5, left).

    Maps f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),width].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x64
        shortcut = self.identity(x, self.width)  # 28x28x128
        y = self.conv(self.width, 3, self.stride, 1, name="conv1")(x)  # 28x28x128
        y = self.norm_act(name="bn1")(y)  # 28x28x128
        y = self.conv(self.width, 3, 1, 1, name="conv2")(y)  # 28x28x128
        return self.add(y, shortcut, name="bn2")  # 28x28x128


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2015, figure 5, right).

    Maps f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),4*width]. In ResNeXt the 3x3 convolution is
    grouped.
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
    """Applies stochastic depth (Huang et al. 2016) to a residual branch.

    During training the branch is set to zero for random examples and divided by 1 - `rate` for the
    others, which needs the random stream "dropout".

    Args:
      y: output of the branch, f[N,H,W,C].
      rate: probability of dropping the branch.
      train: whether the network is training.

    Returns:
      f[N,H,W,C].
    """
    drop = nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name="drop_path")
    return drop(y)


class PreActBlock(nn.Module):
    """Base class of `PreActBasicBlock` and `PreActBottleneck`: the shortcut and the addition.

    Attributes:
      width: width of the block's stage in channels; a bottleneck returns four times as many.
      stride: of the block.
      conv, norm_act: constructors of the layers, see `jaxcnn.layers.Network`.
      shortcut: a key of `SHORTCUTS`.
      groups, base_width, stride_on: of a bottleneck, see `ResNet`.
      first_norm: apply BatchNorm and ReLU before the first convolution.
      dropout: dropout rate before the last convolution.
      bias: give biases to the last convolution and the projection.
      train: whether the network is training.
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
    bias: bool = False
    train: bool = False

    def activate(self, x: Array) -> Array:
        """Applies the first BatchNorm and ReLU, unless the stem ends in them."""
        return self.norm_act(name="bn1")(x) if self.first_norm else x

    def drop(self, y: Array) -> Array:
        """Applies dropout before the last convolution."""
        return nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)

    def add(self, y: Array, x: Array, activated: Array) -> Array:
        """Adds the shortcut to the residual branch.

        The shortcut is the identity where the shape stays, and keeps every second pixel where only
        height and width change. Where the channels change, it starts after the first BatchNorm and
        ReLU and projects without BatchNorm.

        Args:
          y: output of the branch, f[N,h,w,features].
          x: input of the block, f[N,H,W,C].
          activated: x after the first BatchNorm and ReLU, f[N,H,W,C].

        Returns:
          f[N,h,w,features].
        """
        features = y.shape[-1]
        if self.shortcut == "none":
            return y
        if is_identity(x, features, self.stride, self.shortcut):
            return y + x
        if features == x.shape[-1] and self.shortcut == "B":
            return y + subsample(x, features, self.stride)
        conv = functools.partial(self.conv, bias=self.bias)
        return y + project(activated, features, self.stride, kind=self.shortcut, conv=conv)


class PreActBasicBlock(PreActBlock):
    """BatchNorm, ReLU and 3x3 convolution, twice (He et al. 2016, figure 1b).

    Maps f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),width].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:  # 56x56x64
        activated = self.activate(x)  # 56x56x64
        y = self.conv(self.width, 3, self.stride, 1, name="conv1")(activated)  # 28x28x128
        y = self.norm_act(name="bn2")(y)  # 28x28x128
        y = self.conv(self.width, 3, 1, 1, bias=self.bias, name="conv2")(self.drop(y))  # 28x28x128
        return self.add(y, x, activated)  # 28x28x128


class PreActBottleneck(PreActBlock):
    """1x1, 3x3 and 1x1 convolutions, each after BatchNorm and ReLU (He et al. 2016, appendix).

    Maps f[N,H,W,C] to f[N,ceil(H/stride),ceil(W/stride),4*width].
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
        y = self.conv(out, 1, bias=self.bias, name="conv3")(self.drop(y))  # 28x28x512
        return self.add(y, x, activated)  # 28x28x512


# The names under which a configuration selects them.
BLOCKS = {b.__name__: b for b in (BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck)}


def bottleneck_width(block: ResidualBlock | PreActBlock) -> int:
    """Returns the channels of a bottleneck's 3x3 convolution: groups * (width * base_width // 64).

    Args:
      block: with the fields `width`, `base_width` and `groups`.

    Raises:
      ValueError: a group would have no channel.
    """
    channels = block.width * block.base_width // 64
    if channels < 1:
        raise ValueError(
            f"a stage of width {block.width} with base_width {block.base_width} leaves no channel "
            "for a group; width * base_width must be at least 64"
        )
    return channels * block.groups


def bottleneck_strides(block: ResidualBlock | PreActBlock) -> tuple[int, int]:
    """Returns the strides of a bottleneck's first 1x1 convolution and of its 3x3 convolution.

    Args:
      block: with the fields `stride` and `stride_on`.

    Raises:
      ValueError: `stride_on` is neither "1x1" nor "3x3".
    """
    strides = {"1x1": (block.stride, 1), "3x3": (1, block.stride)}
    return strides[one_of("stride_on", block.stride_on, strides)]


# --- residual networks --------------------------------------------------------------------------

# Blocks per stage by depth (He et al. 2015, table 1; 200: He et al. 2016). From 50 layers on, the
# blocks are bottlenecks.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# The default of Torch's layers, U(-1/sqrt(fan_in), 1/sqrt(fan_in)); fb.resnet.torch leaves the
# classifier at it.
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


# Options without effect on basic blocks, and their defaults.
_OF_BOTTLENECKS = {"groups": 1, "base_width": 64, "stride_on": "3x3", "halve_first": False}


class ResidualNetwork(layers.Network):
    """Base class of `ResNet` and `ResNetV2`: a stem and stages of residual blocks.

    Each stage has twice the channels of the stage before; all but the first halve height and width.
    Networks for ImageNet have four stages, those for CIFAR three.

    Inherits the fields of `Network`. The defaults are those of ResNet-50.

    Attributes:
      block: class of the blocks.
      blocks: number of blocks in each stage.
      width: channels of stage 1; bottlenecks return four times as many.
      groups, base_width: a bottleneck's 3x3 convolution has `groups` groups and, in a stage of
        width w, groups * floor(w * base_width / 64) channels.
      stride_on: which convolution of a bottleneck has the stride, "1x1" or "3x3".
      small_images: use a stem for CIFAR: one 3x3 convolution with stride 1 and no pooling.
      shortcut: a key of `SHORTCUTS`.
    """

    block: type[ResidualBlock] | type[PreActBlock] = Bottleneck
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    small_images: bool = False
    shortcut: str = "B"

    def block_options(self, train: bool) -> dict[str, Any]:
        """Returns the fields that all blocks of the network have in common.

        Args:
          train: whether the network is training.

        Raises:
          ValueError: `shortcut` or `stride_on` is unknown, or an option of bottlenecks is set for
            basic blocks.
        """
        one_of("shortcut", self.shortcut, SHORTCUTS)
        one_of("stride_on", self.stride_on, ("1x1", "3x3"))
        if self.block in (BasicBlock, PreActBasicBlock):
            for option, default in _OF_BOTTLENECKS.items():
                value = getattr(self, option, default)
                require(value == default, option, value, f"{default} for {self.block.__name__}")
        return {
            "norm_act": self.norm_act(train),
            "shortcut": self.shortcut,
            "groups": self.groups,
            "base_width": self.base_width,
            "stride_on": self.stride_on,
            "train": train,
        }

    def stem_convs(self, x: Array, channels: tuple[int, ...], conv: Any, norm_act: Any) -> Array:
        """Applies the convolutions of the stem, each followed by BatchNorm and ReLU.

        The submodules are `stem_conv` and `stem_bn`, numbered from 1 where there are three.

        Args:
          x: images f[N,H,W,C].
          channels: output channels of one or of three convolutions.
          conv: constructor of the convolutions.
          norm_act: constructor of BatchNorm with ReLU; None for neither.

        Returns:
          f[N,h,w,channels[-1]].

        Raises:
          ValueError: there are neither one nor three convolutions.
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

# Constants of local response normalization: as printed in the paper (k = 2, alpha = 1e-4), Caffe's
# (k = 1, alpha / n), and those of the authors' cuda-convnet (k = 2, alpha / n).
LRN: dict[str, dict[str, Any]] = {
    "paper": {},
    "caffe": {"k": 1.0, "alpha_div_n": True},
    "cuda_convnet": {"alpha_div_n": True},
}


def response_norm(x: Array, preset: str | None) -> Array:
    """Applies local response normalization with a preset's constants.

    Args:
      x: f[N,H,W,C].
      preset: a key of `LRN`; None returns x unchanged.

    Returns:
      f[N,H,W,C].

    Raises:
      ValueError: the preset is unknown.
    """
    if preset is None:
        return x
    return layers.local_response_norm(x, **LRN[one_of("lrn", preset, LRN)])


class ConvRelu(nn.Module):
    """Convolution and ReLU, optionally followed by another function; f[N,H,W,C] to f[N,h,w,c].

    The submodule is `conv`.

    Attributes:
      features, kernel, stride, padding, groups, bias_init: of the convolution, see `layers.conv`.
      conv: constructor of the convolution, see `jaxcnn.layers.Network`.
      then: function applied after the ReLU, such as pooling; None for nothing.
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
