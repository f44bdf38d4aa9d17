"""VGG.

Simonyan, Zisserman 2015, "Very deep convolutional networks for large-scale image recognition"
(arXiv 1409.1556), table 1.

Deviations from the paper: the kernels are initialized as by He et al. (fan-out; dense layers N(0,
0.01^2)), where the paper draws from N(0, 0.1^2) and initializes the deeper networks with the layers
of net A. With `initializer="glorot"`, the authors report, that is not necessary. The `_bn` variants
are not in the paper: as in torchvision, BatchNorm follows each convolution, which keeps its bias.
`se_vgg_d_bn` is the SE-VGG-16 of Hu et al. 2018 (arXiv 1709.01507), table 2: squeeze-and-
excitation with reduction 16 and biases after the ReLU of each convolution (their section 3.3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import one_of, require
from jaxcnn.models.blocks import response_norm
from jaxcnn.models.heads import FullyConnectedNetwork

PAPER = (
    "Simonyan, Zisserman 2014, Very deep convolutional networks for large-scale image recognition"
)
YEAR = 2014
YEARS = {"se_vgg_d_bn": 2017}

_glorot = nn.initializers.glorot_uniform()
# Initializers of the kernels of (convolutions, dense layers).
INITS = {
    "he": (layers.he_fan_out, nn.initializers.normal(0.01)),
    "glorot": (_glorot, _glorot),
}


class Stage(nn.Module):
    """Convolutions with ReLU, then 2x2 max pooling, f[N,H,W,C] to f[N,H/2,W/2,width].

    The submodules are `conv1`, `bn1`, `se1`, `conv2`, ...

    Attributes:
      width: output channels of the convolutions.
      kernels: kernel size of each convolution.
      conv: constructor of the convolutions, see `jaxcnn.layers.Network`.
      norm_act: constructor of BatchNorm with ReLU; None for ReLU without BatchNorm.
      se: constructor of squeeze-and-excitation after each ReLU, or None.
      lrn: preset of the response normalization after the first convolution, or None.
    """

    width: int
    kernels: tuple[int, ...]
    conv: Callable[..., nn.Module]
    norm_act: Callable[..., nn.Module] | None = None
    se: Callable[..., nn.Module] | None = None
    lrn: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, kernel in enumerate(self.kernels, 1):
            x = self.conv(self.width, kernel, 1, kernel // 2, name=f"conv{i}")(x)
            x = nn.relu(x) if self.norm_act is None else self.norm_act(name=f"bn{i}")(x)
            if self.se is not None:
                x = self.se(name=f"se{i}")(x)
            x = response_norm(x, self.lrn if i == 1 else None)
        return layers.max_pool(x, 2, 2)


class VGG(FullyConnectedNetwork):
    """Five stages of 3x3 convolutions and three fully connected layers.

    The images are f32[N,224,224,3], or larger with `dense=True`. Inherits the fields of
    `FullyConnectedNetwork`.

    Attributes:
      min_size: image size that the fully connected layers fit, at least 32:
        `create_model("vgg16", min_size=32, num_classes=10)` is a network for CIFAR.
      convs: number of convolutions in each stage.
      widths: channels of each stage.
      kernel: size of the convolutions. Section 4 of the paper compares net B with one that has 5x5
        convolutions and half as many layers.
      last_kernel: 1 to make the third convolution of the last three stages 1x1 (net C).
      batch_norm: apply BatchNorm after each convolution.
      se: apply squeeze-and-excitation after the ReLU of each convolution.
      lrn: constants of the response normalization after the first convolution (A-LRN): "paper",
        "caffe", "cuda_convnet" or None.
      initializer: a key of `INITS`: "he" or "glorot".
    """

    min_size: int = 224
    convs: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    kernel: int = 3
    last_kernel: int | None = None
    batch_norm: bool = False
    se: bool = False
    lrn: str | None = None
    initializer: str = "he"

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        require(self.min_size >= 32, "min_size", self.min_size, "at least 32")
        x = self.check_images(images)
        self.check_size(x, self.min_size)
        conv_init, fc_init = INITS[one_of("initializer", self.initializer, INITS)]
        stage = functools.partial(
            self.rematerialize(Stage),
            conv=self.conv(bias=True, kernel_init=conv_init),
            norm_act=self.norm_act(train) if self.batch_norm else None,
            se=functools.partial(layers.SqueezeExcite, dtype=self.dtype) if self.se else None,
        )
        stages = f"one number for each of the {len(self.widths)} stages of widths={self.widths}"
        require(len(self.convs) == len(self.widths), "convs", self.convs, stages)
        for i, (count, width) in enumerate(zip(self.convs, self.widths), 1):
            # 112x112x64, 56x56x128, 28x28x256, 14x14x512, 7x7x512
            last = self.last_kernel if self.last_kernel and i > 2 else self.kernel
            kernels = tuple(last if j == 2 else self.kernel for j in range(count))
            lrn = self.lrn if i == 1 else None
            x = stage(width, kernels, lrn=lrn, name=f"block{i}")(x)
            x = self.endpoint(f"stage{i}", x)
        return self.classify(x, self.min_size // 32, train=train, fc_init=fc_init)


_NETS: dict[str, dict[str, Any]] = {
    "a": {"convs": (1, 1, 2, 2, 2)},
    "b": {"convs": (2, 2, 2, 2, 2)},
    "c": {"convs": (2, 2, 3, 3, 3), "last_kernel": 1},
    "d": {"convs": (2, 2, 3, 3, 3)},
    "e": {"convs": (2, 2, 4, 4, 4)},
}

VARIANTS = {
    **{f"vgg_{net}": functools.partial(VGG, **data) for net, data in _NETS.items()},
    **{
        f"vgg_{net}_bn": functools.partial(VGG, batch_norm=True, **data)
        for net, data in _NETS.items()
    },
    "vgg_a_lrn": functools.partial(VGG, lrn="paper", **_NETS["a"]),
    "se_vgg_d_bn": functools.partial(VGG, batch_norm=True, se=True, **_NETS["d"]),
}
ALIASES = {
    f"vgg{depth}{suffix}": f"vgg_{net}{suffix}"
    for depth, net in ((11, "a"), (13, "b"), (16, "d"), (19, "e"))
    for suffix in ("", "_bn")
}
