"""AlexNet.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural
networks", NeurIPS 25, section 3 and figure 2; and Krizhevsky 2014, "One weird trick for
parallelizing convolutional neural networks" (arXiv 1404.5997), the one-tower form.

The paper's two GPUs are two groups of channels: conv2, conv4 and conv5 see only the maps of their
own tower. Deviations from the paper: response normalization spans both towers, as in Caffe, unless
`lrn_per_tower` is set (on two GPUs it ran within each tower), and initial values are Caffe's unless
`initializer="paper"`, whose biases of 1 did not train in Caffe.

`alexnet_caffenet` differs only in that it pools before it normalizes and uses Caffe's constants for
the normalization; `alexnet_2gpu` with these constants (`lrn="caffe"`) is Caffe's AlexNet.
`alexnet_owt` is torchvision's: the widths of the released configuration, no normalization, and
dropout before fc6 and fc7. Its biases start at 0, whereas torchvision draws them at random.
`alexnet_owt_paper` has the widths given in the paper's footnote.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import one_of, require
from jaxcnn.models.blocks import ConvRelu, response_norm, torch_default
from jaxcnn.models.heads import FullyConnectedNetwork

PAPER = (
    "Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural "
    "networks"
)
YEAR = 2012
YEARS = {"alexnet_owt": 2014, "alexnet_owt_paper": 2014}


class Init(NamedTuple):
    """Initializers of AlexNet.

    Attributes:
      conv, fc, fc8: of the kernels of the convolutions, of fc6 and fc7, and of fc8.
      bias: initial value of the biases of conv2, conv4, conv5, fc6 and fc7, so that their ReLUs
        are active; the other biases start at 0.
    """

    conv: nn.initializers.Initializer
    fc: nn.initializers.Initializer
    fc8: nn.initializers.Initializer
    bias: float


_normal = nn.initializers.normal

INITS = {
    "paper": Init(_normal(0.01), _normal(0.01), _normal(0.01), 1.0),
    "caffe": Init(_normal(0.01), _normal(0.005), _normal(0.01), 0.1),
    "torch": Init(torch_default, torch_default, torch_default, 0.0),
}


class AlexNet(FullyConnectedNetwork):
    """Five convolutions and three fully connected layers.

    The images are f32[N,227,227,3] or f32[N,224,224,3]. conv1 pads the latter with three rows and
    columns of zeros at the bottom and on the right, since cuda-convnet's windows reach over the
    border. With `conv1_padding=2` (torchvision) the images must be 224x224. Larger images need
    `dense=True`.

    Inherits the fields of `FullyConnectedNetwork`.

    Attributes:
      widths, groups: output channels and groups of the five convolutions.
      conv1_padding: width in pixels of the zeros around the image.
      lrn: constants of the response normalization after conv1 and conv2: "paper", "caffe",
        "cuda_convnet", or None for no normalization.
      lrn_per_tower: normalize each half of the channels separately.
      pool_first: pool before normalizing (CaffeNet).
      dropout_first: apply dropout before fc6 and fc7 instead of after them.
      initializer: a key of `INITS`: "caffe", "paper" or "torch".
      mean, std: channel mean and standard deviation of RGB in [0, 1]. A `std` of 1/255 gives pixels
        from 0 to 255 minus the mean, for which the initial kernels are meant.
    """

    min_size: int = 224
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    groups: tuple[int, ...] = (1, 2, 1, 2, 2)
    conv1_padding: int = 0
    lrn: str | None = "paper"
    lrn_per_tower: bool = False
    pool_first: bool = False
    dropout_first: bool = False
    initializer: str = "caffe"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (1 / 255,) * 3

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        self.check_size(x, *((224,) if self.conv1_padding else (227, 224)))
        padding = layers.padding_pairs(self.conv1_padding)
        if not self.conv1_padding and x.shape[1:3] == (224, 224):
            padding = ((0, 3), (0, 3))
        init = INITS[one_of("initializer", self.initializer, INITS)]
        bias = nn.initializers.constant(init.bias)
        conv = self.conv(bias=True, kernel_init=init.conv)
        stage = functools.partial(self.rematerialize(ConvRelu), conv=conv)
        require(len(self.widths) == 5, "widths", self.widths, "five numbers of channels")
        require(len(self.groups) == 5, "groups", self.groups, "five numbers of groups")
        w1, w2, w3, w4, w5 = self.widths
        g1, g2, g3, g4, g5 = self.groups

        def pool(x: Array) -> Array:
            return layers.max_pool(x, 3, 2)

        def norm(x: Array) -> Array:
            if not self.lrn_per_tower:
                return response_norm(x, self.lrn)
            towers = [response_norm(tower, self.lrn) for tower in jnp.split(x, 2, axis=-1)]
            return jnp.concatenate(towers, axis=-1)

        def norm_pool(x: Array) -> Array:
            return norm(pool(x)) if self.pool_first else pool(norm(x))

        x = stage(w1, 11, 4, padding, g1, then=norm_pool, name="conv1")(x)  # 27x27x96
        x = self.endpoint("stage1", x)
        x = stage(w2, 5, 1, 2, g2, bias, then=norm_pool, name="conv2")(x)  # 13x13x256
        x = self.endpoint("stage2", x)
        x = stage(w3, 3, 1, 1, g3, name="conv3")(x)  # 13x13x384
        x = self.endpoint("stage3", x)
        x = stage(w4, 3, 1, 1, g4, bias, name="conv4")(x)  # 13x13x384
        x = self.endpoint("stage4", x)
        x = stage(w5, 3, 1, 1, g5, bias, then=pool, name="conv5")(x)  # 6x6x256
        x = self.endpoint("stage5", x)
        return self.classify(
            x,
            6,
            train=train,
            fc_init=init.fc,
            fc_bias=bias,
            fc8_init=init.fc8,
            dropout_first=self.dropout_first,
        )


_OWT = functools.partial(
    AlexNet,
    groups=(1, 1, 1, 1, 1),
    conv1_padding=2,
    lrn=None,
    dropout_first=True,
    initializer="torch",
    std=(0.229, 0.224, 0.225),
)

VARIANTS = {
    "alexnet_2gpu": AlexNet,
    "alexnet_caffenet": functools.partial(AlexNet, pool_first=True, lrn="caffe"),
    "alexnet_ungrouped": functools.partial(AlexNet, groups=(1, 1, 1, 1, 1)),
    "alexnet_owt": functools.partial(_OWT, widths=(64, 192, 384, 256, 256)),
    "alexnet_owt_paper": functools.partial(_OWT, widths=(64, 192, 384, 384, 256)),
}
ALIASES = {"alexnet": "alexnet_2gpu"}
