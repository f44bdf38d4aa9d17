"""Pre-activation ResNet.

He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks" (arXiv 1603.05027), figure
1b and the appendix.

BatchNorm and ReLU come before each convolution, and nothing follows the addition. In a block that
changes the shape, the shortcut starts after the first BatchNorm and ReLU and projects without
BatchNorm.

The position of the network's first BatchNorm and ReLU is an option (`stem_norm`). In the paper they
follow the first convolution, so that the first shortcut starts after them, as in the CIFAR networks
here. The ImageNet networks end the stem in the convolution and start the first block with BatchNorm
and ReLU, as the published weights in timm's layout (`resnetv2_50`, ...) do.
`create_model("resnet18_v2", stem_norm=True)` is the paper's network and has as many parameters.
From 50 layers on the two compute the same function in evaluation unless a scale of that BatchNorm
is negative; in `resnet18_v2` and `resnet34_v2` the first shortcut differs.

The stride is on the 3x3 convolution; in the CIFAR bottlenecks it is on the first 1x1 convolution,
as in the authors' code.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import one_of, require
from jaxcnn.models.blocks import (
    DEPTHS,
    PreActBasicBlock,
    PreActBlock,
    PreActBottleneck,
    ResidualNetwork,
    torch_default,
)

PAPER = "He, Zhang, Ren, Sun 2016, Identity mappings in deep residual networks"
YEAR = 2016

# He et al. 2015 allow either; Wide ResNet's code uses the fan-in.
FANS = {"out": layers.he_fan_out, "in": layers.he_fan_in}


class ResNetV2(ResidualNetwork):
    """Stem, stages of pre-activation blocks, BatchNorm, ReLU, global average pooling, classifier.

    The images are f32[N,H,W,3]. Inherits the fields of `ResidualNetwork`. The defaults are those of
    ResNet-50.

    Attributes:
      block: class of the blocks: `PreActBasicBlock`, `PreActBottleneck` or your own class with
        their fields.
      stem: output channels of the stem's convolution, 7x7 with stride 2.
      stem_norm: apply the first BatchNorm and ReLU in the stem instead of in the first block.
      dropout: dropout rate before each block's last convolution.
      fan: scale the initial kernels by the fan-"out" or the fan-"in".
      keras: compute what Keras' ResNetV2 does: the last block of a stage has the stride, and its
        shortcut keeps every second pixel; the convolutions whose outputs are added (stem, last of a
        block, projections) have biases; the stem's pooling is padded with zeros.
      ceil_pool: let the stem's pooling round up without padding; with `keras`, this is TF-Slim's
        network.
    """

    block: type[PreActBlock] = PreActBottleneck
    stem: int = 64
    stem_norm: bool = False
    dropout: float = 0.0
    fan: str = "out"
    keras: bool = False
    ceil_pool: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        conv = self.conv(kernel_init=FANS[one_of("fan", self.fan, FANS)])
        norm_act = self.norm_act(train)
        block = functools.partial(
            self.block,
            conv=conv,
            dropout=self.dropout,
            bias=self.keras,
            **self.block_options(train),
        )
        stem_norm = norm_act if self.stem_norm else None
        stem_conv = functools.partial(conv, bias=self.keras)
        x = self.stem_convs(x, (self.stem,), stem_conv, stem_norm)  # 112x112x64
        if self.small_images:
            pass
        elif self.ceil_pool:
            x = layers.max_pool(x, 3, 2, ceil_mode=True)
        elif self.keras:
            x = layers.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        else:
            x = layers.max_pool(x, 3, 2, 1)
        x = self.endpoint("stem", x)  # 56x56x64
        for i, count in enumerate(self.blocks):  # 56x56x256, 28x28x512, 14x14x1024, 7x7x2048
            stage = []
            for j in range(count):
                ends_stage = j == count - 1 and i + 1 < len(self.blocks)
                stage.append(functools.partial(
                    block,
                    width=self.width * 2**i,
                    stride=2 if (ends_stage if self.keras else i and not j) else 1,
                    first_norm=not self.stem_norm or i + j > 0,
                    name=f"stage{i + 1}_block{j + 1}",
                ))  # fmt: skip
            x = self.apply_blocks(stage, x)
            self.endpoint(f"stage{i + 1}", x)
        x = norm_act(name="final_bn")(x)  # 7x7x2048
        return self.logits(layers.global_avg_pool(x), name="fc", kernel_init=torch_default)


def imagenet(depth: int) -> functools.partial[ResNetV2]:
    """Returns the ImageNet variant of a depth.

    Args:
      depth: a key of `jaxcnn.models.blocks.DEPTHS`.

    Raises:
      ValueError: there is no such depth.
    """
    require(depth in DEPTHS, "depth", depth, f"one of {', '.join(map(str, DEPTHS))}")
    block = PreActBasicBlock if depth < 50 else PreActBottleneck
    return functools.partial(ResNetV2, block=block, blocks=DEPTHS[depth])


def cifar(blocks: int, **options: Any) -> functools.partial[ResNetV2]:
    """Returns a CIFAR variant: a 3x3 convolution of 16 channels and three stages of blocks.

    Args:
      blocks: number of blocks in each stage.
      **options: fields of `ResNetV2`.
    """
    defaults = {"width": 16, "stem": 16, "small_images": True, "num_classes": 10, "min_size": 8}
    return functools.partial(ResNetV2, blocks=(blocks,) * 3, **{**defaults, **options})


VARIANTS = {
    **{f"resnet{depth}_v2": imagenet(depth) for depth in DEPTHS},
    "resnet110_v2_cifar": cifar(18, block=PreActBasicBlock, shortcut="A", stem_norm=True),
    "resnet164_v2_cifar": cifar(18, stride_on="1x1", stem_norm=True),
    "resnet1001_v2_cifar": cifar(111, stride_on="1x1", stem_norm=True),
}
