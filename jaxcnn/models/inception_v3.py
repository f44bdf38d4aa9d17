"""Inception-v3.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception architecture for computer
vision" (arXiv 1512.00567), as in the released code.

The release differs from table 1 of the paper: after the pool, its stem has a 1x1 convolution of 80
channels, a 3x3 convolution of 192 channels and a second pool, where the table has 3x3 convolutions,
one with stride 2, and no second pool; and the auxiliary classifier has BatchNorm. Average pooling
inside modules counts the padding at the border, as in torchvision's port of the released weights;
TensorFlow's did not, which is `count_include_pad=False`.
"""

from __future__ import annotations

import flax.linen as nn
from jax import Array

from jaxcnn.models.inception import Chains, Conv, InceptionNetwork, Pool

PAPER = (
    "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, Rethinking the Inception architecture for "
    "computer vision"
)
YEAR = 2015

# Up to the second pool. Inception-ResNet-v2 has the same stem.
STEM = (
    Conv(32, 3, 2, valid=True),  # 149x149x32
    Conv(32, 3, valid=True),  # 147x147x32
    Conv(64, 3),  # 147x147x64
    Pool("max", 2, valid=True),  # 73x73x64
    Conv(80),  # 73x73x80
    Conv(192, 3, valid=True),  # 71x71x192
    Pool("max", 2, valid=True),  # 35x35x192
)


def block_a(projection: int) -> Chains:
    """Returns the branches of the 35x35 modules (cf. figure 5), with 224 + projection channels.

    Args:
      projection: channels of the 1x1 convolution after the pool.
    """
    return (
        (Conv(64),),
        (Conv(48), Conv(64, 5)),
        (Conv(64), Conv(96, 3), Conv(96, 3)),
        (Pool("avg"), Conv(projection)),
    )


REDUCTION_A = (
    (Conv(384, 3, 2, valid=True),),
    (Conv(64), Conv(96, 3), Conv(96, 3, 2, valid=True)),
    (Pool("max", 2, valid=True),),
)


def block_b(width: int) -> Chains:
    """Returns the branches of the 17x17 modules (figure 6), with 768 channels.

    7x7 convolutions are factorized into 1x7 (one row high) and 7x1 convolutions.

    Args:
      width: channels of the inner convolutions.
    """
    return (
        (Conv(192),),
        (Conv(width), Conv(width, (1, 7)), Conv(192, (7, 1))),
        (
            Conv(width),
            Conv(width, (7, 1)),
            Conv(width, (1, 7)),
            Conv(width, (7, 1)),
            Conv(192, (1, 7)),
        ),
        (Pool("avg"), Conv(192)),
    )


REDUCTION_B = (
    (Conv(192), Conv(320, 3, 2, valid=True)),
    (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2, valid=True)),
    (Pool("max", 2, valid=True),),
)

_SPREAD = ((Conv(384, (1, 3)),), (Conv(384, (3, 1)),))

# Figure 7: parallel 1x3 and 3x1 convolutions. 2048 channels.
BLOCK_C = (
    (Conv(320),),
    (Conv(384), _SPREAD),
    (Conv(448), Conv(384, 3), _SPREAD),
    (Pool("avg"), Conv(192)),
)


class InceptionV3(InceptionNetwork):
    """Stem, modules on grids of 35x35, 17x17 and 8x8, global average pooling and a classifier.

    The images are f32[N,H,W,3], at least 75x75. Inherits the fields of `InceptionNetwork`.
    """

    aux_heads: bool = True
    count_include_pad: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        mixed = self.mixed(train)
        x = self.endpoint("stem", self.entry(STEM, train)(x))  # 35x35x192
        x = mixed(block_a(32), name="mixed_5b")(x)  # 35x35x256
        x = mixed(block_a(64), name="mixed_5c")(x)  # 35x35x288
        x = mixed(block_a(64), name="mixed_5d")(x)  # 35x35x288
        self.endpoint("stage1", x)
        x = mixed(REDUCTION_A, name="mixed_6a")(x)  # 17x17x768
        x = mixed(block_b(128), name="mixed_6b")(x)
        x = mixed(block_b(160), name="mixed_6c")(x)
        x = mixed(block_b(160), name="mixed_6d")(x)
        x = mixed(block_b(192), name="mixed_6e")(x)  # 17x17x768
        self.endpoint("stage2", x)
        self.auxiliary(x, train)
        x = mixed(REDUCTION_B, name="mixed_7a")(x)  # 8x8x1280
        x = mixed(BLOCK_C, name="mixed_7b")(x)  # 8x8x2048
        x = mixed(BLOCK_C, name="mixed_7c")(x)  # 8x8x2048
        self.endpoint("stage3", x)
        return self.classify(x, train)


VARIANTS = {"inception_v3": InceptionV3}
