"""Pre-activation ResNet. He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks"
(arXiv 1603.05027), figure 1b and the appendix.

BatchNorm and ReLU come before each convolution and nothing after the addition. A block that changes
the shape takes its shortcut from behind its first BatchNorm and ReLU, and projects without
BatchNorm.

Where the first BatchNorm and ReLU stand is a choice (`stem_norm`). In the paper they follow the
first convolution, so that the first block's shortcut starts behind them; so in the CIFAR nets here.
The ImageNet nets leave the stem bare and give the first block a BatchNorm and ReLU of its own, as
the published weights in timm's layout (`resnetv2_50`, ...) do; `create_model("resnet18_v2",
stem_norm=True)` is the paper's form. Parameters are as many. From 50 layers on the two compute the
same function in evaluation unless a scale of that BatchNorm is negative; in `resnet18_v2` and
`resnet34_v2` the first shortcut differs.

The stride is on the 3x3 convolution, in the CIFAR bottlenecks on the first 1x1 (the authors' code).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax import Array

from jaxcnn import layers
from jaxcnn.models.classic import choose
from jaxcnn.models.residual import (
    DEPTHS,
    SHORTCUTS,
    Conv,
    block_convs,
    fc_init,
    shortcut,
    stem,
    stem_pool,
)

PAPER = "He, Zhang, Ren, Sun 2016, Identity mappings in deep residual networks"
YEAR = 2016

# He et al. 2015 allow either; Wide ResNet's code takes the fan-in.
FANS = {"out": layers.he_fan_out, "in": layers.he_fan_in}


class PreActBlock(nn.Module):
    """Convolutions, each behind BatchNorm and ReLU; the shortcut is added.

    Fields:
      convs: (features, kernel, stride, groups) of each.
      kind: of the shortcut, a key of `SHORTCUTS`.
      first_norm: BatchNorm and ReLU also before the first convolution.
      dropout: share of the values dropped before the last convolution while training.
    """

    convs: tuple[Conv, ...]
    kind: str
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    first_norm: bool = True
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        out = self.convs[-1][0]
        total_stride = math.prod(stride for _, _, stride, _ in self.convs)
        same = total_stride == 1 and out == x.shape[-1] and self.kind != "C"
        y = skip = x
        for i, (features, kernel, stride, groups) in enumerate(self.convs, 1):
            if i > 1 or self.first_norm:
                y = self.norm(relu=True, name=f"bn{i}")(y)
            if i == 1 and not same:
                skip = y
            if i == len(self.convs):
                y = nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)
            y = self.conv(features, kernel, stride, kernel // 2, groups=groups, name=f"conv{i}")(y)
        if self.kind == "none":
            return y
        return y + shortcut(skip, out, total_stride, kind=self.kind, conv=self.conv, norm=None)


class ResNetV2(layers.Network):
    """Stem, stages of pre-activation blocks, BatchNorm, ReLU, global average, classifier.

    f32[N,H,W,3]. Stages double the channels; all but the first halve height and width.

    Fields (besides those of `Network`; defaults are ResNet-50):
      blocks: per stage.
      block_type: "basic" or "bottleneck".
      width: of stage 1; bottlenecks put out four times as many channels.
      groups, base_width: a bottleneck's 3x3 convolution has `groups` groups, and in a stage of
        width w groups * floor(w * base_width / 64) channels.
      stride_on: the convolution of a bottleneck that has the stride, "1x1" or "3x3".
      stem: channels of its convolution, 7x7 with stride 2.
      small_images: for CIFAR: the stem is a 3x3 convolution with stride 1 and no pooling.
      stem_norm: BatchNorm and ReLU in the stem instead of the first block.
      shortcut: a key of `SHORTCUTS`.
      dropout: share of the values dropped before each block's last convolution while training.
      fan: "out" or "in": which fan scales the initial kernels.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    block_type: str = "bottleneck"
    width: int = 64
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    stem: int = 64
    small_images: bool = False
    stem_norm: bool = False
    shortcut: str = "B"
    dropout: float = 0.0
    fan: str = "out"

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        choose("shortcut", self.shortcut, SHORTCUTS)
        x = self.check_images(images)
        conv, norm = self.conv(kernel_init=choose("fan", self.fan, FANS)), self.norm(train)
        block = functools.partial(
            self.block(PreActBlock),
            kind=self.shortcut,
            conv=conv,
            norm=norm,
            dropout=self.dropout,
            train=train,
        )
        stem_norm = norm if self.stem_norm else None
        x = stem(x, (self.stem,), self.small_images, conv, stem_norm)  # 112x112x64
        if not self.small_images:
            x = stem_pool(x, ceil_pool=False)  # 56x56x64
        self.endpoint("stem", x)
        for i, count in enumerate(self.blocks):  # 56x56x256, 28x28x512, 14x14x1024, 7x7x2048
            for j in range(count):
                convs = block_convs(
                    self.block_type,
                    self.width * 2**i,
                    2 if i and not j else 1,
                    groups=self.groups,
                    base_width=self.base_width,
                    stride_on=self.stride_on,
                )
                first_norm = not self.stem_norm or i + j > 0
                x = block(convs, first_norm=first_norm, name=f"stage{i + 1}_block{j + 1}")(x)
            self.endpoint(f"stage{i + 1}", x)
        x = norm(relu=True, name="final_bn")(x)
        return self.logits(layers.global_avg_pool(x), name="fc", kernel_init=fc_init)


def imagenet(depth: int) -> functools.partial:
    """The net of a depth of `DEPTHS`."""
    block_type = "basic" if depth < 50 else "bottleneck"
    return functools.partial(ResNetV2, blocks=DEPTHS[depth], block_type=block_type)


def cifar(blocks: int, **options: Any) -> functools.partial:
    """A CIFAR net: three stages of `blocks` blocks behind a 3x3 convolution of 16 channels."""
    defaults = {"width": 16, "stem": 16, "small_images": True, "num_classes": 10, "min_size": 8}
    return functools.partial(ResNetV2, blocks=(blocks,) * 3, **{**defaults, **options})


VARIANTS = {
    **{f"resnet{depth}_v2": imagenet(depth) for depth in DEPTHS},
    "resnet110_v2_cifar": cifar(18, block_type="basic", shortcut="A", stem_norm=True),
    "resnet164_v2_cifar": cifar(18, stride_on="1x1", stem_norm=True),
    "resnet1001_v2_cifar": cifar(111, stride_on="1x1", stem_norm=True),
}
