"""BN-Inception, also called Inception-v2.

Ioffe, Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal
covariate shift" (arXiv 1502.03167), figure 5; and SE-BN-Inception, Hu, Shen, Albanie, Sun, Wu 2017,
"Squeeze-and-excitation networks" (arXiv 1709.01507).

The figure gives modules 4c and 4d a projection of 128 channels and an output of 576 channels, which
contradict each other. `bn_inception` keeps the output and so has a projection of 96, like TF-Slim;
`bn_inception_608` keeps the projection and so has 608 and 1056 channels, like the network of
SENet's authors. Strided 3x3 convolutions pad evenly, as in Caffe but not in TensorFlow. BatchNorm's
epsilon is Caffe's 1e-5. TF-Slim's network is `same_padding=True, bn_epsilon=1e-3, gamma=False`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn.models.inception import Chains, Conv, InceptionNetwork, Pool, SeparableStem

PAPER = (
    "Ioffe, Szegedy 2015, Batch normalization: accelerating deep network training by reducing "
    "internal covariate shift"
)
YEAR = 2015
YEARS = {"se_bn_inception": 2017}


class Row(NamedTuple):
    """Widths of a module in channels: a row of the paper's figure 5.

    Attributes:
      one: of the 1x1 convolution; 0 in a module that halves height and width.
      reduce3, three: of the 3x3 branch and the 1x1 convolution before it.
      reduce_double, double: of the branch of two 3x3 convolutions and the 1x1 before it.
      pool: "avg" or "max".
      projection: of the 1x1 convolution after the pool; 0 for none.
    """

    one: int
    reduce3: int
    three: int
    reduce_double: int
    double: int
    pool: str
    projection: int

    def branches(self, same: bool) -> Chains:
        """Returns the branches of the module, see `jaxcnn.models.inception`.

        Args:
          same: whether its convolutions pad as TensorFlow does.
        """
        stride = 1 if self.one else 2
        one = ((Conv(self.one),),) if self.one else ()
        projection = (Conv(self.projection),) if self.projection else ()
        return (
            *one,
            (Conv(self.reduce3), Conv(self.three, 3, stride, same=same)),
            (
                Conv(self.reduce_double),
                Conv(self.double, 3),
                Conv(self.double, 3, stride, same=same),
            ),
            (Pool(self.pool, stride), *projection),
        )


ROWS = {
    "3a": Row(64, 64, 64, 64, 96, "avg", 32),  # 28x28x256
    "3b": Row(64, 64, 96, 64, 96, "avg", 64),  # 28x28x320
    "3c": Row(0, 128, 160, 64, 96, "max", 0),  # 14x14x576
    "4a": Row(224, 64, 96, 96, 128, "avg", 128),  # 14x14x576
    "4b": Row(192, 96, 128, 96, 128, "avg", 128),  # 14x14x576
    "4c": Row(160, 128, 160, 128, 160, "avg", 96),  # 14x14x576
    "4d": Row(96, 128, 192, 160, 192, "avg", 96),  # 14x14x576
    "4e": Row(0, 128, 192, 192, 256, "max", 0),  # 7x7x1024
    "5a": Row(352, 192, 320, 160, 224, "avg", 128),  # 7x7x1024
    "5b": Row(352, 192, 320, 192, 224, "max", 128),  # 7x7x1024
}

STAGES = {"3b": "stage1", "4d": "stage2", "5b": "stage3"}


class BNInception(InceptionNetwork):
    """Stem, ten modules, global average pooling and a classifier.

    The images are f32[N,H,W,3], at least 32x32. Inherits the fields of `InceptionNetwork`. There
    are no auxiliary heads.

    Attributes:
      separable_stem: make the first convolution separable, with depth multiplier 8.
      same_padding: pad strided convolutions as TensorFlow does: where the size is even, more at the
        bottom and on the right.
      wide_projection: use a projection of 128 instead of 96 channels in 4c and 4d.
      squeeze_excite: apply squeeze-and-excitation with reduction 16 to the output of each module
        (`inception3a_se`).
    """

    min_size: int = 32
    bn_epsilon: float = 1e-5
    dropout: float = 0.0
    separable_stem: bool = True
    same_padding: bool = False
    wide_projection: bool = False
    squeeze_excite: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        if self.aux_heads:
            raise ValueError("aux_heads is True; BN-Inception has no auxiliary heads")
        unit, mixed, shrink = self.unit(train), self.mixed(train), Pool("max", 2)
        if self.separable_stem:
            conv = self.conv(kernel_init=layers.he_fan_in)
            x = SeparableStem(unit, conv, self.same_padding, name="conv1")(x)  # 112x112x64
        else:
            first = Conv(64, 7, 2, same=self.same_padding)
            x = unit(64, 7, 2, first.padding(x.shape[1:3]), name="conv1")(x)  # 112x112x64
        x = shrink(x)  # 56x56x64
        x = unit(64, 1, name="conv2")(x)
        x = unit(192, 3, 1, 1, name="conv3")(x)  # 56x56x192
        x = self.endpoint("stem", shrink(x))  # 28x28x192
        for name, row in ROWS.items():
            if self.wide_projection and name in ("4c", "4d"):
                row = row._replace(projection=128)
            x = mixed(row.branches(self.same_padding), name=f"inception{name}")(x)
            if self.squeeze_excite:
                x = layers.SqueezeExcite(dtype=self.dtype, name=f"inception{name}_se")(x)
            if name in STAGES:
                self.endpoint(STAGES[name], x)
        return self.classify(x, train)


# The networks of the Caffe files. Their average pooling counts the padding.
_WIDE = functools.partial(
    BNInception, wide_projection=True, separable_stem=False, count_include_pad=True
)

VARIANTS = {
    "bn_inception": BNInception,
    "bn_inception_dense_stem": functools.partial(BNInception, separable_stem=False),
    "bn_inception_608": _WIDE,
    "se_bn_inception": functools.partial(_WIDE, squeeze_excite=True),
}
