"""Inception-ResNet.

Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the impact of residual
connections on learning" (arXiv 1602.07261).

`inception_resnet_v1` is the paper's network (5 blocks A, 10 B, 5 C). `inception_resnet_v2` is the
network released in TF-Slim: the stem of Inception-v3 and one mixed module, 10 blocks A, 20 B, and
10 C, the last with scale 1 and without ReLU, and a 1x1 convolution before the classifier. The
figures of the paper show another v2, `inception_resnet_v2_paper`. Its projections have 1152 and
2144 channels where the figures print 1154 and 2048, which do not match what they are added to.

The paper scales residuals by "0.1 to 0.3"; all variants use the release's 0.17, 0.10 and 0.20.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn.models import inception_v3, inception_v4
from jaxcnn.models.inception import Chains, Conv, InceptionNetwork, Pool, ResidualMixed

PAPER = inception_v4.PAPER
YEAR = 2016

_MAX = Pool("max", 2, valid=True)


def block_a(width: int, last: int) -> Chains:
    """Returns the branches of block A (figures 10 and 16).

    Args:
      width: channels of the first 3x3 convolution of the third branch.
      last: channels of the second one.
    """
    return (
        (Conv(32),),
        (Conv(32), Conv(32, 3)),
        (Conv(32), Conv(width, 3), Conv(last, 3)),
    )


def block_b(first: int, width: int, last: int) -> Chains:
    """Returns the branches of block B (figures 11 and 17).

    Args:
      first: channels of the 1x1 branch.
      width: channels of the 1x7 convolution.
      last: channels of the 7x1 convolution.
    """
    return ((Conv(first),), (Conv(128), Conv(width, (1, 7)), Conv(last, (7, 1))))


def block_c(width: int, last: int) -> Chains:
    """Returns the branches of block C (figures 13 and 19).

    Args:
      width: channels of the 1x3 convolution.
      last: channels of the 3x1 convolution.
    """
    return ((Conv(192),), (Conv(192), Conv(width, (1, 3)), Conv(last, (3, 1))))


def reduction_b(second: int, middle: int, last: int) -> Chains:
    """Returns the branches of reduction B, 17x17 to 8x8 (figures 12 and 18).

    The reduction appends 384 + second + last channels to its input.

    Args:
      second: channels of the last convolution of the second branch.
      middle: channels of the second convolution of the third branch.
      last: channels of its last convolution.
    """
    return (
        (Conv(256), Conv(384, 3, 2, valid=True)),
        (Conv(256), Conv(second, 3, 2, valid=True)),
        (Conv(256), Conv(middle, 3), Conv(last, 3, 2, valid=True)),
        (_MAX,),
    )


V1_STEM = (
    Conv(32, 3, 2, valid=True),  # 149x149x32
    Conv(32, 3, valid=True),  # 147x147x32
    Conv(64, 3),  # 147x147x64
    _MAX,  # 73x73x64
    Conv(80),  # 73x73x80
    Conv(192, 3, valid=True),  # 71x71x192
    Conv(256, 3, 2, valid=True),  # 35x35x256
)

V2_STEM = (
    *inception_v3.STEM,  # 35x35x192
    (
        (Conv(96),),
        (Conv(48), Conv(64, 5)),
        (Conv(64), Conv(96, 3), Conv(96, 3)),
        (Pool("avg"), Conv(64)),
    ),  # 35x35x320
)


class InceptionResNet(InceptionNetwork):
    """Stem, three stages of residual Inception blocks, global average pooling and a classifier.

    The images are f32[N,H,W,3], at least 75x75. Inherits the fields of `InceptionNetwork`. The
    defaults are those of the released v2.

    Attributes:
      stem: chain of the stem.
      block_a, block_b, block_c: branches of the blocks.
      reduction_a, reduction_b: branches of the reductions.
      blocks: numbers of blocks A, B and C.
      scales: factors of the residuals of blocks A, B and C.
      linear_end: add one more block C, with scale 1 and without ReLU.
      last_features: channels of the 1x1 convolution before the classifier; 0 for none.
    """

    stem: tuple[Any, ...] = V2_STEM
    block_a: tuple[Any, ...] = block_a(48, 64)
    reduction_a: tuple[Any, ...] = inception_v4.reduction_a(256, 256, 384, 384)
    block_b: tuple[Any, ...] = block_b(192, 160, 192)
    reduction_b: tuple[Any, ...] = reduction_b(288, 288, 320)
    block_c: tuple[Any, ...] = block_c(224, 256)
    blocks: tuple[int, int, int] = (10, 20, 9)
    scales: tuple[float, float, float] = (0.17, 0.10, 0.20)
    linear_end: bool = True
    last_features: int = 1536

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        unit, mixed = self.unit(train), self.mixed(train)
        residual = functools.partial(
            ResidualMixed,
            unit=unit,
            conv=self.conv(kernel_init=layers.he_fan_in),
            count_include_pad=self.count_include_pad,
        )

        def stage(i: int, x: Array) -> Array:
            block = functools.partial(residual, (self.block_a, self.block_b, self.block_c)[i])
            scales = [{"scale": self.scales[i]}] * self.blocks[i]
            if self.linear_end and i == 2:
                scales.append({"scale": 1.0, "act": False})
            names = (f"stage{i + 1}_block{j}" for j in range(1, len(scales) + 1))
            blocks = [functools.partial(block, name=n, **s) for n, s in zip(names, scales)]
            return self.endpoint(f"stage{i + 1}", self.apply_blocks(blocks, x))

        x = self.endpoint("stem", self.entry(self.stem, train)(x))  # 35x35x320
        x = stage(0, x)  # 35x35x320
        x = mixed(self.reduction_a, name="reduction_a")(x)  # 17x17x1088
        x = stage(1, x)  # 17x17x1088
        self.auxiliary(x, train)
        x = mixed(self.reduction_b, name="reduction_b")(x)  # 8x8x2080
        x = stage(2, x)  # 8x8x2080
        if self.last_features:
            x = unit(self.last_features, 1, name="last")(x)  # 8x8x1536
        return self.classify(x, train)


VARIANTS = {
    "inception_resnet_v1": functools.partial(
        InceptionResNet,
        stem=V1_STEM,
        block_a=block_a(32, 32),
        reduction_a=inception_v4.reduction_a(192, 192, 256, 384),  # 17x17x896
        block_b=block_b(128, 128, 128),
        reduction_b=reduction_b(256, 256, 256),  # 8x8x1792
        block_c=block_c(192, 192),
        blocks=(5, 10, 5),
        linear_end=False,
        last_features=0,
    ),
    "inception_resnet_v2": InceptionResNet,
    "inception_resnet_v2_paper": functools.partial(
        InceptionResNet,
        stem=inception_v4.STEM,  # 35x35x384; reductions give 17x17x1152 and 8x8x2144
        blocks=(5, 10, 5),
        linear_end=False,
        last_features=0,
    ),
}
