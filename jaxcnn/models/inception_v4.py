"""Inception-v4.

Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the impact of residual
connections on learning" (arXiv 1602.07261), as released in TF-Slim.

The order of the factorized convolutions in the long branches of blocks B (7x1 first) and C (3x1
first) is the release's. Its auxiliary classifier, which the paper does not have, is an option:
`aux_heads=True`.
"""

from __future__ import annotations

import flax.linen as nn
from jax import Array

from jaxcnn.models.inception import Chains, Conv, InceptionNetwork, Pool

PAPER = (
    "Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet and the impact of "
    "residual connections on learning"
)
YEAR = 2016

_MAX = Pool("max", 2, valid=True)

STEM = (
    Conv(32, 3, 2, valid=True),  # 149x149x32
    Conv(32, 3, valid=True),  # 147x147x32
    Conv(64, 3),  # 147x147x64
    ((_MAX,), (Conv(96, 3, 2, valid=True),)),  # 73x73x160
    (
        (Conv(64), Conv(96, 3, valid=True)),
        (Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, valid=True)),
    ),  # 71x71x192
    ((Conv(192, 3, 2, valid=True),), (_MAX,)),  # 35x35x384
)

BLOCK_A = (
    (Conv(96),),
    (Conv(64), Conv(96, 3)),
    (Conv(64), Conv(96, 3), Conv(96, 3)),
    (Pool("avg"), Conv(96)),
)


def reduction_a(k: int, l: int, m: int, n: int) -> Chains:  # noqa: E741 (the paper's letters)
    """Returns the branches of reduction A, 35x35 to 17x17 (figure 7 and table 1).

    The reduction appends m + n channels to its input.

    Args:
      k: channels of the second branch's 1x1 convolution.
      l: channels of its first 3x3 convolution.
      m: channels of its second 3x3 convolution.
      n: channels of the first branch's 3x3 convolution.
    """
    return (
        (Conv(n, 3, 2, valid=True),),
        (Conv(k), Conv(l, 3), Conv(m, 3, 2, valid=True)),
        (_MAX,),
    )


BLOCK_B = (
    (Conv(384),),
    (Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))),
    (Pool("avg"), Conv(128)),
)

REDUCTION_B = (
    (Conv(192), Conv(192, 3, 2, valid=True)),
    (Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2, valid=True)),
    (_MAX,),
)

_SPREAD = ((Conv(256, (1, 3)),), (Conv(256, (3, 1)),))

BLOCK_C = (
    (Conv(256),),
    (Conv(384), _SPREAD),
    (Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), _SPREAD),
    (Pool("avg"), Conv(256)),
)


class InceptionV4(InceptionNetwork):
    """Stem, blocks A (4), B (7) and C (3), global average pooling and a classifier.

    The images are f32[N,H,W,3], at least 75x75. Inherits the fields of `InceptionNetwork`.
    """

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        mixed = self.mixed(train)
        x = self.endpoint("stem", self.entry(STEM, train)(x))  # 35x35x384
        for i in range(4):
            x = mixed(BLOCK_A, name=f"stage1_block{i + 1}")(x)  # 35x35x384
        self.endpoint("stage1", x)
        x = mixed(reduction_a(192, 224, 256, 384), name="reduction_a")(x)  # 17x17x1024
        for i in range(7):
            x = mixed(BLOCK_B, name=f"stage2_block{i + 1}")(x)  # 17x17x1024
        self.endpoint("stage2", x)
        self.auxiliary(x, train)
        x = mixed(REDUCTION_B, name="reduction_b")(x)  # 8x8x1536
        for i in range(3):
            x = mixed(BLOCK_C, name=f"stage3_block{i + 1}")(x)  # 8x8x1536
        self.endpoint("stage3", x)
        return self.classify(x, train)


VARIANTS = {"inception_v4": InceptionV4}
