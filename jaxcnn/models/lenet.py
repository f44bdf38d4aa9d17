"""LeNet-5. LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document
recognition", Proceedings of the IEEE 86(11).
"""

from __future__ import annotations

import functools

import flax.linen as nn
from jax import Array

from jaxcnn import layers

PAPER = (
    "LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition"
)
YEAR = 1998


class LeNet5Modern(layers.Network):
    """Conv - pool - conv - pool - fc - fc - fc, with ReLU and max pooling.

    Takes f32[N,32,32,1], or f32[N,28,28,1], which the first convolution then pads by 2.
    """

    num_classes: int = 10
    min_size: int = 28

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images, channels=1)
        if x.shape[1:3] not in ((28, 28), (32, 32)):
            raise ValueError(f"images are {x.shape[1]}x{x.shape[2]}; LeNet-5 takes 32x32 or 28x28")
        conv = self.conv(bias=True, kernel_init=layers.he_fan_in)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=layers.he_fan_in)
        padding = 2 if x.shape[1] == 28 else 0
        x = nn.relu(conv(6, 5, padding=padding, name="conv1")(x))  # 28x28x6
        x = self.endpoint("stage1", layers.max_pool(x, 2, 2))  # 14x14x6
        x = nn.relu(conv(16, 5, name="conv2")(x))  # 10x10x16
        x = self.endpoint("stage2", layers.max_pool(x, 2, 2))  # 5x5x16
        x = x.reshape(x.shape[0], -1)  # 400
        x = nn.relu(dense(120, name="fc1")(x))
        x = nn.relu(dense(84, name="fc2")(x))
        return self.logits(x, name="fc3")


VARIANTS = {"lenet5_modern": LeNet5Modern}
ALIASES = {"lenet5": "lenet5_modern"}
