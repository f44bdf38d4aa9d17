"""ResNet.

He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition" (arXiv 1512.03385), table 1
for ImageNet and section 4.2 for CIFAR-10.

`resnet50`, `101`, `152` and `200` put the stride of a bottleneck on its 3x3 convolution, as is
common under these names ("v1.5", Facebook's fb.resnet.torch), and all but the `_v1` networks pad
the stem's pooling by one pixel. ResNet-200 is from He et al. 2016 (arXiv 1603.05027), here with
blocks of 2015. `resnet50_v1` ... are the paper's networks: stride on the first 1x1 convolution,
pooling that rounds up. `_a` and `_c` use the paper's shortcut options A and C, and `plain*` have no
shortcuts; they keep the stem of `resnet18`, so that a pair differs only in its shortcuts. The CIFAR
networks use option A. Its zero channels follow the others; the paper does not specify their
position.

`resnet50c` and `d` have a stem of three 3x3 convolutions (He, Zhang, Zhang, Zhang, Xie, Li 2019,
"Bag of tricks for image classification with convolutional neural networks", arXiv 1812.01187); `d`
also pools before the projection of a strided shortcut. `s`, with a wider stem, is GluonCV's.

ResNeXt, Wide ResNet for ImageNet and SENet are settings of `ResNet` in files of their own.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import require
from jaxcnn.models.blocks import (
    DEPTHS,
    BasicBlock,
    Bottleneck,
    ResidualBlock,
    ResidualNetwork,
    torch_default,
)

PAPER = "He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition"
YEAR = 2015
YEARS = {f"resnet{n}d": 2018 for n in (18, 34)}
YEARS |= {f"resnet{n}{letter}": 2018 for n in (50, 101, 152) for letter in "cds"}
YEARS["resnet200"] = 2016


class ResNet(ResidualNetwork):
    """Stem, stages of residual blocks, global average pooling and a classifier.

    The images are f32[N,H,W,3]. Inherits the fields of `ResidualNetwork`. The defaults are those of
    ResNet-50.

    Attributes:
      block: class of the blocks: `BasicBlock`, `Bottleneck` or your own class with their fields.
      stem: output channels of the stem's convolutions: one 7x7 or three 3x3, the first with
        stride 2.
      ceil_pool: let the stem's pooling round up without padding, where Torch pads by 1.
      stride_last: give the stride of a stage to the last block of the stage before, whose shortcut
        keeps every second pixel, as TF-Slim does (with `ceil_pool`).
      proj_kernel: kernel size of projection shortcuts from stage 2 on.
      halve_first: give a bottleneck's first convolution half the channels of its second.
      se_reduction, se_bias: reduction and biases of squeeze-and-excitation on each residual branch;
        a reduction of 0 leaves it out.
      branch_relu: end each branch in a ReLU, before squeeze-and-excitation.
      dropout: dropout rate before the classifier.
      zero_gamma: initialize the scale of each block's last BatchNorm to zero, so that blocks start
        as identities (Goyal et al. 2017). Not available with option A, whose new channels would
        stay zero forever, since the gradient of ReLU is zero there as well.
      drop_path: probability of dropping the last block's branch for an example during training;
        it grows linearly with depth from 0 before the first block (Huang et al. 2016).
    """

    block: type[ResidualBlock] = Bottleneck
    stem: tuple[int, ...] = (64,)
    ceil_pool: bool = False
    stride_last: bool = False
    proj_kernel: int = 1
    halve_first: bool = False
    se_reduction: int = 0
    se_bias: bool = True
    branch_relu: bool = False
    dropout: float = 0.0
    zero_gamma: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        self._check_options()
        x = self.check_images(images)
        conv, norm_act = self.conv(), self.norm_act(train)
        block = functools.partial(
            self.block,
            conv=conv,
            norm=self.norm(train),
            halve_first=self.halve_first,
            se_reduction=self.se_reduction,
            se_bias=self.se_bias,
            branch_relu=self.branch_relu,
            zero_gamma=self.zero_gamma,
            dtype=self.dtype,
            **self.block_options(train),
        )
        x = self.stem_convs(x, self.stem, conv, norm_act)  # 112x112x64
        if not self.small_images:
            x = layers.max_pool(x, 3, 2, 0 if self.ceil_pool else 1, ceil_mode=self.ceil_pool)
        x = self.endpoint("stem", x)  # 56x56x64
        done = 0
        for i, count in enumerate(self.blocks):  # 56x56x256, 28x28x512, 14x14x1024, 7x7x2048
            stage = []
            for j in range(count):
                done += 1
                ends_stage = j == count - 1 and i + 1 < len(self.blocks)
                stage.append(functools.partial(
                    block,
                    width=self.width * 2**i,
                    stride=2 if (ends_stage if self.stride_last else i and not j) else 1,
                    proj_kernel=self.proj_kernel if i else 1,
                    drop_path=self.drop_path * done / sum(self.blocks),
                    name=f"stage{i + 1}_block{j + 1}",
                ))  # fmt: skip
            x = self.apply_blocks(stage, x)
            self.endpoint(f"stage{i + 1}", x)
        x = layers.global_avg_pool(x)  # 2048
        x = nn.Dropout(self.dropout, deterministic=not train, name="fc_dropout")(x)
        return self.logits(x, name="fc", kernel_init=torch_default)

    def _check_options(self) -> None:
        if self.zero_gamma and self.shortcut not in ("B", "C", "D"):
            raise ValueError(
                f"zero_gamma needs projecting shortcuts (B, C or D); shortcut is {self.shortcut!r}"
            )
        if self.zero_gamma and self.branch_relu:
            raise ValueError("zero_gamma with branch_relu would keep every branch at zero")
        if self.drop_path and self.shortcut == "none":
            raise ValueError(f"drop_path is {self.drop_path}; a plain net has no branch to drop")


def imagenet(depth: int, **options: Any) -> functools.partial[ResNet]:
    """Returns the ImageNet variant of a depth.

    Args:
      depth: a key of `jaxcnn.models.blocks.DEPTHS`.
      **options: fields of `ResNet`.

    Raises:
      ValueError: there is no such depth.
    """
    require(depth in DEPTHS, "depth", depth, f"one of {', '.join(map(str, DEPTHS))}")
    block = BasicBlock if depth < 50 else Bottleneck
    return functools.partial(ResNet, block=block, blocks=DEPTHS[depth], **options)


def cifar(depth: int, **options: Any) -> functools.partial[ResNet]:
    """Returns the CIFAR variant of a depth: three stages of basic blocks of 16, 32, 64 channels.

    Args:
      depth: 6n+2 for n blocks per stage.
      **options: fields of `ResNet`.

    Raises:
      ValueError: the depth is not 6n+2.
    """
    require(depth >= 8 and depth % 6 == 2, "depth", depth, "6n+2, such as 20, 56 or 110")
    return functools.partial(
        ResNet,
        num_classes=10,
        min_size=8,
        blocks=((depth - 2) // 6,) * 3,
        block=BasicBlock,
        width=16,
        stem=(16,),
        small_images=True,
        **{"shortcut": "A", **options},
    )


PAPER_V1 = {"stride_on": "1x1", "ceil_pool": True}
STEMS: dict[str, dict[str, Any]] = {
    "c": {"stem": (32, 32, 64)},
    "d": {"stem": (32, 32, 64), "shortcut": "D"},
    "s": {"stem": (64, 64, 128)},
}

VARIANTS = {
    "resnet18": imagenet(18),
    "resnet18_a": imagenet(18, shortcut="A"),
    "resnet18_c": imagenet(18, shortcut="C"),
    "plain18": imagenet(18, shortcut="none"),
    "resnet34": imagenet(34),
    "resnet34_a": imagenet(34, shortcut="A"),
    "resnet34_c": imagenet(34, shortcut="C"),
    "plain34": imagenet(34, shortcut="none"),
    **{f"resnet{n}_v1": imagenet(n, **PAPER_V1) for n in (50, 101, 152)},
    **{f"resnet{n}": imagenet(n) for n in (50, 101, 152, 200)},
    **{f"resnet{n}d": imagenet(n, **STEMS["d"]) for n in (18, 34)},
    **{f"resnet{n}{s}": imagenet(n, **STEMS[s]) for n in (50, 101, 152) for s in "cds"},
    **{f"resnet{n}_cifar": cifar(n) for n in (20, 32, 44, 56, 110, 1202)},
    **{f"plain{n}_cifar": cifar(n, shortcut="none") for n in (20, 32, 44, 56, 110)},
}
