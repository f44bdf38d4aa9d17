"""ResNet. He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition" (arXiv
1512.03385), table 1 for ImageNet and section 4.2 for CIFAR-10.

`resnet50`, `101`, `152` and `200` put a bottleneck's stride on its 3x3 convolution and pad the
stem's pooling by one pixel, as nearly everybody who uses the names does ("v1.5", Facebook's
fb.resnet.torch). `resnet50_v1` ... are the paper's: stride on the first 1x1, pooling that rounds
up. `_a` and `_c` are the paper's shortcut options A and C, `plain*` the nets without shortcuts;
they keep the stem of `resnet18`, so that a pair differs in its shortcuts only. The CIFAR nets use
option A, whose new channels, all zero, follow the old ones; the paper does not say where they go.

`resnet50c`, `d` and `s` have three 3x3 convolutions for a stem (He, Zhang, Zhang, Zhang, Xie, Li
2019, "Bag of tricks for image classification with convolutional neural networks", arXiv
1812.01187); `d` also pools before it projects a strided shortcut, `s` has a wider stem.

ResNeXt, the wide ResNet on ImageNet and SENet are settings of `ResNet` in files of their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
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

PAPER = "He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition"
YEAR = 2015
YEARS = {f"resnet{n}{form}": 2018 for n in (18, 34, 50, 101, 152) for form in "cds"}


class ResidualBlock(nn.Module):
    """Convolutions, each with BatchNorm, ReLU between them; the shortcut is added; ReLU.

    Fields:
      convs: (features, kernel, stride, groups) of each.
      kind: of the shortcut, a key of `SHORTCUTS`.
      proj_kernel: kernel of a projecting shortcut.
      se_reduction, se_bias: squeeze-and-excitation on the branch; 0 for none.
      branch_relu: ReLU also after the last convolution's BatchNorm.
      zero_gamma: the last BatchNorm's scale starts at zero.
      drop_path: chance that an example's branch is left out while training.
    """

    convs: tuple[Conv, ...]
    kind: str
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    proj_kernel: int = 1
    se_reduction: int = 0
    se_bias: bool = True
    branch_relu: bool = False
    zero_gamma: bool = False
    drop_path: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y, skip = x, None
        if self.kind != "none":
            skip = shortcut(
                x,
                self.convs[-1][0],
                math.prod(stride for _, _, stride, _ in self.convs),
                kind=self.kind,
                kernel=self.proj_kernel,
                conv=self.conv,
                norm=self.norm,
            )
        ends_in_norm = not (self.se_reduction or self.branch_relu or self.drop_path)
        for i, (features, kernel, stride, groups) in enumerate(self.convs, 1):
            last = i == len(self.convs)
            y = self.conv(features, kernel, stride, kernel // 2, groups=groups, name=f"conv{i}")(y)
            zero = last and self.zero_gamma
            init = nn.initializers.zeros if zero else nn.initializers.ones
            relu = not last or self.branch_relu or ends_in_norm
            norm = self.norm(scale_init=init, relu=relu, name=f"bn{i}")
            y = norm(y, skip if last and ends_in_norm else None)
        if ends_in_norm:
            return y
        if self.se_reduction:
            y = layers.SqueezeExcite(self.se_reduction, self.se_bias, self.dtype, name="se")(y)
        if skip is None:
            return nn.relu(y)
        return nn.relu(skip + drop_branch(y, self.drop_path, self.train))


def drop_branch(y: Array, rate: float, train: bool) -> Array:
    """Stochastic depth (Huang et al. 2016): zero for some examples, scaled up for the others.

    f32[N,H,W,C] to the same; needs the random stream "dropout" while training.
    """
    drop = nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name="drop_path")
    return drop(y)


class ResNet(layers.Network):
    """Stem, stages of residual blocks, global average, classifier. f32[N,H,W,3].

    Stages double the channels; all but the first halve height and width. ImageNet nets have four,
    CIFAR nets three.

    Fields (besides those of `Network`; defaults are ResNet-50):
      blocks: per stage.
      block_type: "basic" or "bottleneck".
      width: of stage 1; bottlenecks put out four times as many channels.
      groups, base_width: a bottleneck's 3x3 convolution has `groups` groups, and in a stage of
        width w groups * floor(w * base_width / 64) channels.
      stride_on: the convolution of a bottleneck that has the stride, "1x1" or "3x3".
      stem: channels of its convolutions: one 7x7 or three 3x3, the first with stride 2.
      small_images: for CIFAR: the stem is one 3x3 convolution with stride 1 and no pooling.
      ceil_pool: the stem's pooling rounds up without padding, where Torch pads by 1.
      shortcut: a key of `SHORTCUTS`.
      proj_kernel: kernel of projecting shortcuts from stage 2 on.
      halve_first: a bottleneck's first convolution has half of the channels of its second.
      se_reduction, se_bias: squeeze-and-excitation on each branch; 0 for none.
      branch_relu: each branch ends in a ReLU, before squeeze-and-excitation.
      dropout: share of the features that is dropped before the classifier while training.
      zero_gamma: the scale of each block's last BatchNorm starts at zero, so that blocks start as
        identities (Goyal et al. 2017). Not with option A, whose new channels would stay zero for
        ever: there the gradient of ReLU is zero, too.
      drop_path: chance that the last block's branch is left out for an example while training; it
        grows linearly from 0 before the first block (Huang et al. 2016).
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    block_type: str = "bottleneck"
    width: int = 64
    groups: int = 1
    base_width: int = 64
    stride_on: str = "3x3"
    stem: tuple[int, ...] = (64,)
    small_images: bool = False
    ceil_pool: bool = False
    shortcut: str = "B"
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
        conv, norm = self.conv(), self.norm(train)
        block = functools.partial(
            self.block(ResidualBlock),
            kind=self.shortcut,
            conv=conv,
            norm=norm,
            se_reduction=self.se_reduction,
            se_bias=self.se_bias,
            branch_relu=self.branch_relu,
            zero_gamma=self.zero_gamma,
            train=train,
            dtype=self.dtype,
        )
        x = stem(x, self.stem, self.small_images, conv, norm)  # 112x112x64
        if not self.small_images:
            x = stem_pool(x, self.ceil_pool)  # 56x56x64
        self.endpoint("stem", x)
        done = 0
        for i, count in enumerate(self.blocks):  # 56x56x256, 28x28x512, 14x14x1024, 7x7x2048
            for j in range(count):
                done += 1
                x = block(
                    convs=self._convs(self.width * 2**i, 2 if i and not j else 1),
                    proj_kernel=self.proj_kernel if i else 1,
                    drop_path=self.drop_path * done / sum(self.blocks),
                    name=f"stage{i + 1}_block{j + 1}",
                )(x)
            self.endpoint(f"stage{i + 1}", x)
        x = layers.global_avg_pool(x)  # 2048
        x = nn.Dropout(self.dropout, deterministic=not train, name="fc_dropout")(x)
        return self.logits(x, name="fc", kernel_init=fc_init)

    def _convs(self, width: int, stride: int) -> tuple[Conv, ...]:
        (first, kernel, first_stride, groups), *rest = block_convs(
            self.block_type,
            width,
            stride,
            groups=self.groups,
            base_width=self.base_width,
            stride_on=self.stride_on,
        )
        first = first // 2 if self.halve_first else first
        return (first, kernel, first_stride, groups), *rest

    def _check_options(self) -> None:
        choose("shortcut", self.shortcut, SHORTCUTS)
        if self.zero_gamma and self.shortcut not in ("B", "C", "D"):
            raise ValueError(
                f"zero_gamma needs projecting shortcuts (B, C or D); shortcut is {self.shortcut!r}"
            )
        if self.zero_gamma and self.branch_relu:
            raise ValueError("zero_gamma with branch_relu would keep every branch at zero")
        if self.drop_path and self.shortcut == "none":
            raise ValueError(f"drop_path is {self.drop_path}; a plain net has no branch to drop")


def imagenet(depth: int, **options: Any) -> functools.partial:
    """The ResNet of a depth of `DEPTHS`, with options of `ResNet`."""
    block_type = "basic" if depth < 50 else "bottleneck"
    return functools.partial(ResNet, blocks=DEPTHS[depth], block_type=block_type, **options)


def cifar(depth: int, **options: Any) -> functools.partial:
    """The CIFAR net of depth 6n+2: three stages of n basic blocks, widths 16, 32, 64."""
    return functools.partial(
        ResNet,
        num_classes=10,
        min_size=8,
        blocks=((depth - 2) // 6,) * 3,
        block_type="basic",
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
