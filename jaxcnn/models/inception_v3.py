"""Inception-v3. Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception
architecture for computer vision" (arXiv 1512.00567), in the form of the released code.

The release differs from table 1 of the paper: its stem has 1x1 80 and 3x3 192 between the pools
where the table has three 3x3, and the auxiliary head is batch-normalized. Average pools inside
blocks count the padding at the border, as torchvision's form of the released weights does;
TensorFlow's own did not: `count_include_pad=False`.
"""

from __future__ import annotations

import flax.linen as nn
from jax import Array

from jaxcnn.models.inception import Chain, Conv, InceptionNetwork, Pool

PAPER = (
    "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, Rethinking the Inception architecture for "
    "computer vision"
)
YEAR = 2015

# Up to the second pool; Inception-ResNet-v2 begins in the same way.
STEM = (
    Conv(32, 3, 2, valid=True),  # 149x149x32
    Conv(32, 3, valid=True),  # 147x147x32
    Conv(64, 3),  # 147x147x64
    Pool("max", 2, valid=True),  # 73x73x64
    Conv(80),  # 73x73x80
    Conv(192, 3, valid=True),  # 71x71x192
    Pool("max", 2, valid=True),  # 35x35x192
)


def block_a(projection: int):
    """Figure 5: 5x5 and its factorization into two 3x3. 224 + projection channels."""
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


def block_b(width: int):
    """Figure 6: 7x7 as 1x7 (one row high) and 7x1, once and twice. 768 channels."""
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

# Figure 7: 1x3 and 3x1 side by side. 2048 channels.
BLOCK_C = (
    (Conv(320),),
    (Conv(384), _SPREAD),
    (Conv(448), Conv(384, 3), _SPREAD),
    (Pool("avg"), Conv(192)),
)


class InceptionV3(InceptionNetwork):
    """Stem, three grids of modules, global average, classifier. f32[N,H,W,3], from 75x75."""

    aux_heads: bool = True
    count_include_pad: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        mixed = self.mixed(train)
        x = self.endpoint("stem", Chain(STEM, self.unit(train), name="entry")(x))  # 35x35x192
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
