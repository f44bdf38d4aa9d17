"""ZFNet.

Zeiler, Fergus 2013, "Visualizing and understanding convolutional networks" (arXiv 1311.2901),
figure 3.

AlexNet with a finer first layer (7x7, stride 2) and without groups. `zfnet_384` is figure 3;
`zfnet_512`, with more channels in layers 3 to 5, is the better network of the paper's table 2. The
figure gives neither the padding nor the constants of the contrast normalization: the padding is the
simplest that yields the sizes in the figure (110, 55, 26, 13, 6), and the constants are AlexNet's.
The paper's bound on the root mean square of the filters (0.1) is part of its recipe, not of the
network.
"""

from __future__ import annotations

import functools

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import require
from jaxcnn.models.blocks import ConvRelu, response_norm
from jaxcnn.models.heads import FullyConnectedNetwork

PAPER = "Zeiler, Fergus 2013, Visualizing and understanding convolutional networks"
YEAR = 2013

_init = nn.initializers.normal(0.01)


class ZFNet(FullyConnectedNetwork):
    """Five convolutions and three fully connected layers.

    The images are f32[N,224,224,3], or larger with `dense=True`. Inherits the fields of
    `FullyConnectedNetwork`.

    Attributes:
      widths: output channels of the five convolutions.
      lrn: constants of the normalization: "paper" (AlexNet's), "caffe", "cuda_convnet" or None.
      onnx_zoo: the network that the ONNX model zoo has as ZFNet-512: no padding in layers 1 and 2,
        normalization before pooling, a last pooling of 2x2, as many channels in layer 4 as in
        layer 3 (512), and a quarter of the units in fc7 (1024).
      mean, std: channel mean and standard deviation of RGB in [0, 1]. A `std` of 1/255 gives pixels
        from 0 to 255 minus the mean, for which the initial kernels are meant.
    """

    min_size: int = 224
    widths: tuple[int, ...] = (96, 256, 512, 1024, 512)
    lrn: str | None = "paper"
    onnx_zoo: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (1 / 255,) * 3

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        self.check_size(x, 224)
        conv = self.conv(bias=True, kernel_init=_init)
        stage = functools.partial(self.rematerialize(ConvRelu), conv=conv)
        require(len(self.widths) == 5, "widths", self.widths, "five numbers of channels")
        w1, w2, w3, w4, w5 = self.widths
        w4, padding = (w3, 0) if self.onnx_zoo else (w4, 1)

        def pool_norm(x: Array) -> Array:
            if self.onnx_zoo:
                return layers.max_pool(response_norm(x, self.lrn), 3, 2)
            return response_norm(layers.max_pool(x, 3, 2, 1), self.lrn)

        def pool(x: Array) -> Array:
            return layers.max_pool(x, 2 if self.onnx_zoo else 3, 2)

        x = stage(w1, 7, 2, padding, then=pool_norm, name="conv1")(x)  # 55x55x96
        x = self.endpoint("stage1", x)
        x = stage(w2, 5, 2, 0, then=pool_norm, name="conv2")(x)  # 13x13x256
        x = self.endpoint("stage2", x)
        x = stage(w3, 3, 1, 1, name="conv3")(x)  # 13x13x512
        x = self.endpoint("stage3", x)
        x = stage(w4, 3, 1, 1, name="conv4")(x)  # 13x13x1024
        x = self.endpoint("stage4", x)
        x = stage(w5, 3, 1, 1, then=pool, name="conv5")(x)  # 6x6x512
        x = self.endpoint("stage5", x)
        fc7_width = self.fc_width // 4 if self.onnx_zoo else self.fc_width
        return self.classify(x, 6, train=train, fc_init=_init, fc7_width=fc7_width)


VARIANTS = {
    "zfnet_512": ZFNet,
    "zfnet_384": functools.partial(ZFNet, widths=(96, 256, 384, 384, 256)),
}
ALIASES = {"zfnet": "zfnet_512"}
