"""GoogLeNet.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2014, "Going deeper with
convolutions" (arXiv 1409.4842), table 1.

`googlenet` is the paper's network: 5x5 convolutions, local response normalization, no BatchNorm,
two auxiliary classifiers. The paper does not give the initial values; they are those of Caffe's
replication: uniform kernels of variance 1 / fan_in, biases of 0.2 and, in the classifiers, 0. The
counts in the first row of table 1 are those of a separable 7x7 convolution, which
`googlenet_separable_stem` has (inferred from the counts). `googlenet_naive` leaves out the 1x1
reductions (figure 2a of the paper) and keeps the other widths.

`googlenet_bn` is torchvision's network, which descends from TF-Slim: BatchNorm after every
convolution, 3x3 instead of 5x5 convolutions, a last max pooling of 2x2, adaptive pooling to 4x4 in
the auxiliary classifiers, and dropout 0.2. TF-Slim's own has `same_padding=True`, `gamma=False` and
no auxiliary classifiers. `googlenet_bn_5x5` is the same with 5x5 convolutions. On images other than
224x224 the auxiliary classifiers of all variants pool adaptively, since their first dense layer
takes a 4x4 map. The paper tests with 144 crops of each image: `jaxcnn evaluate RUN --protocol
144crop`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import require
from jaxcnn.models.blocks import response_norm
from jaxcnn.models.inception import Chains, Conv, Mixed, Pool, SeparableStem

PAPER = (
    "Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2014, Going deeper "
    "with convolutions"
)
YEAR = 2014

caffe_xavier = nn.initializers.lecun_uniform()


class Row(NamedTuple):
    """Widths of a module in channels: a row of the paper's table 1.

    Attributes:
      one: of the 1x1 convolution.
      reduce3, three: of the 3x3 convolution and the 1x1 reduction before it.
      reduce5, five: of the 5x5 convolution and the 1x1 reduction before it.
      projection: of the 1x1 convolution after the pool.
    """

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    projection: int

    def branches(self, kernel5: int = 5) -> Chains:
        """Returns the branches of a module with 1x1 reductions (figure 2b).

        The module has one + three + five + projection output channels.

        Args:
          kernel5: size of the 5x5 convolution.
        """
        return (
            (Conv(self.one),),
            (Conv(self.reduce3), Conv(self.three, 3)),
            (Conv(self.reduce5), Conv(self.five, kernel5)),
            (Pool("max"), Conv(self.projection)),
        )

    def times(self, width: float) -> Row:
        """Returns the row with all widths multiplied by a factor and rounded, each at least 1."""
        require(width > 0, "width", width, "positive")
        return Row(*(max(1, round(width * features)) for features in self))

    def naive_branches(self, kernel5: int = 5) -> Chains:
        """Returns the branches of a module without 1x1 reductions (figure 2a).

        The module has one + three + five + C output channels for C input channels.

        Args:
          kernel5: size of the 5x5 convolution.
        """
        return (
            (Conv(self.one),),
            (Conv(self.three, 3),),
            (Conv(self.five, kernel5),),
            (Pool("max"),),
        )


ROWS = {
    "3a": Row(64, 96, 128, 16, 32, 32),  # 28x28x256
    "3b": Row(128, 128, 192, 32, 96, 64),  # 28x28x480
    "4a": Row(192, 96, 208, 16, 48, 64),  # 14x14x512
    "4b": Row(160, 112, 224, 24, 64, 64),  # 14x14x512
    "4c": Row(128, 128, 256, 24, 64, 64),  # 14x14x512
    "4d": Row(112, 144, 288, 32, 64, 64),  # 14x14x528
    "4e": Row(256, 160, 320, 32, 128, 128),  # 14x14x832
    "5a": Row(256, 160, 320, 32, 128, 128),  # 7x7x832
    "5b": Row(384, 192, 384, 48, 128, 128),  # 7x7x1024
}


def aux_pool(x: Array, adaptive: bool) -> Array:
    """Pools the input of an auxiliary classifier to 4x4.

    Args:
      x: f[N,H,W,C].
      adaptive: use adaptive average pooling for 14x14 maps as well, instead of 5x5 windows with
        stride 3.

    Returns:
      f[N,4,4,C].
    """
    if adaptive or x.shape[1:3] != (14, 14):
        return layers.adaptive_avg_pool(x, 4)
    return layers.avg_pool(x, 5, 3)


class AuxHead(nn.Module):
    """Auxiliary classifier, f[N,H,W,C] to f32[N,num_classes].

    Average pooling to 4x4, 1x1 convolution of 128 channels, dense layer of 1024 units, ReLU,
    dropout 0.7, dense layer (section 5 of the paper).

    Attributes:
      num_classes: width of the last layer.
      adaptive: see `aux_pool`.
      unit: constructor of the convolution, see `GoogLeNet.unit`.
      dtype: type of the computation.
      kernel_init: initializer of the dense layers' kernels.
      bias_init: initializer of the first dense layer's bias.
      train: whether the network is training.
    """

    num_classes: int
    adaptive: bool
    unit: Callable[..., nn.Module]
    dtype: Any
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.unit(128, 1, name="conv")(aux_pool(x, self.adaptive))  # 4x4x128
        x = x.reshape(x.shape[0], -1)  # 2048
        fc1 = nn.Dense(
            1024,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="fc1",
        )
        x = nn.relu(fc1(x))
        x = nn.Dropout(0.7, deterministic=not self.train, name="dropout")(x)
        fc2 = layers.classifier(
            self.num_classes, self.dtype, kernel_init=self.kernel_init, name="fc2"
        )
        return layers.as_output(fc2(x))


class GoogLeNet(layers.Network):
    """Stem, nine Inception modules, global average pooling and a classifier.

    The images are f32[N,H,W,3], at least 32x32. Inherits the fields of `Network`.

    Attributes:
      aux_heads: add the auxiliary classifiers after 4a and 4d (endpoints `aux1` and `aux2`). They
        are computed at initialization and when endpoints are requested.
      batch_norm: apply BatchNorm after every convolution, which then has no bias.
      gamma: whether BatchNorm learns a scale.
      kernel5: size of the "5x5" convolutions.
      separable_stem: make the first convolution separable, with depth multiplier 8.
      same_padding: pad the first convolution as TensorFlow does: where the size is even, more at
        the bottom and on the right.
      naive: use modules without 1x1 reductions and projections.
      lrn: constants of the response normalization ("paper", "caffe", "cuda_convnet"), or None.
      last_pool: window of the last max pooling.
      adaptive_aux: let the auxiliary classifiers pool adaptively on 14x14 maps as well.
      dropout: dropout rate before the classifier.
      width: factor of all widths of the modules.
      mean, std: channel mean and standard deviation of RGB in [0, 1].
    """

    aux_heads: bool = True
    batch_norm: bool = False
    bn_epsilon: float = 1e-3
    gamma: bool = True
    kernel5: int = 5
    separable_stem: bool = False
    same_padding: bool = False
    naive: bool = False
    lrn: str | None = "paper"
    last_pool: int = 3
    adaptive_aux: bool = False
    dropout: float = 0.4
    width: float = 1.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        kernel_init, bias_init = self.initializers()
        unit = self.unit(train)
        mixed = functools.partial(self.rematerialize(Mixed), unit=unit)
        shrink = functools.partial(layers.max_pool, stride=2, ceil_mode=True)
        head = functools.partial(
            AuxHead,
            num_classes=self.num_classes,
            adaptive=self.adaptive_aux,
            unit=unit,
            dtype=self.dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            train=train,
        )
        wants_aux = self.aux_heads and self.num_classes and self.wants_endpoints()

        if self.separable_stem:
            conv = self.conv(kernel_init=kernel_init)
            x = SeparableStem(unit, conv, self.same_padding, name="conv1")(x)  # 112x112x64
        else:
            first = Conv(64, 7, 2, same=self.same_padding)
            x = unit(64, 7, 2, first.padding(x.shape[1:3]), name="conv1")(x)  # 112x112x64
        x = response_norm(shrink(x, 3), self.lrn)  # 56x56x64
        x = unit(64, 1, name="conv2")(x)
        x = response_norm(unit(192, 3, 1, 1, name="conv3")(x), self.lrn)  # 56x56x192
        x = self.endpoint("stem", shrink(x, 3))  # 28x28x192
        for name, row in ((name, row.times(self.width)) for name, row in ROWS.items()):
            branches = row.naive_branches if self.naive else row.branches
            x = mixed(branches(self.kernel5), name=f"inception{name}")(x)
            if name == "3b":
                x = shrink(self.endpoint("stage1", x), 3)  # 14x14x480
            elif name == "4a" and wants_aux:
                self.endpoint("aux1", head(name="aux1_head")(x))
            elif name == "4d" and wants_aux:
                self.endpoint("aux2", head(name="aux2_head")(x))
            elif name == "4e":
                x = shrink(self.endpoint("stage2", x), self.last_pool)  # 7x7x832
        x = layers.global_avg_pool(self.endpoint("stage3", x))  # 1024
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return self.logits(x, kernel_init=kernel_init)

    def initializers(self) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
        """Returns the initializers of the kernels and of the biases outside the classifiers."""
        if self.batch_norm:
            return nn.initializers.truncated_normal(0.01), nn.initializers.zeros
        return caffe_xavier, nn.initializers.constant(0.2)

    def unit(self, train: bool) -> Callable[..., nn.Module]:
        """Returns a constructor of convolutions with ReLU and, if enabled, BatchNorm.

        Use it as `unit(features, kernel, stride, padding, name=...)(x)`.

        Args:
          train: whether the network is training.
        """
        kernel_init, bias_init = self.initializers()
        conv = self.conv(kernel_init=kernel_init, bias=not self.batch_norm, bias_init=bias_init)
        norm_act = None
        if self.batch_norm:
            norm_act = functools.partial(self.norm_act(train), use_scale=self.gamma)
        return functools.partial(layers.ConvBNAct, conv=conv, norm_act=norm_act)


_BN = functools.partial(
    GoogLeNet,
    batch_norm=True,
    kernel5=3,
    lrn=None,
    last_pool=2,
    adaptive_aux=True,
    dropout=0.2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

VARIANTS = {
    "googlenet": GoogLeNet,
    "googlenet_separable_stem": functools.partial(GoogLeNet, separable_stem=True),
    "googlenet_bn": _BN,
    "googlenet_bn_5x5": functools.partial(_BN, kernel5=5),
    "googlenet_naive": functools.partial(GoogLeNet, naive=True),
}
ALIASES = {"inception_v1": "googlenet"}
