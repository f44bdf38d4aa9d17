"""Dual path networks (DPN).

Chen, Li, Xiao, Jin, Yan, Feng 2017, "Dual path networks" (arXiv 1707.01629), table 1; DPN-68, 107
and 131 follow the authors' release.

Each block reads the concatenation of two paths: a residual path of fixed width, to which it adds,
and a dense path, to which it appends. `dpn68b` is the release's variant of DPN-68 in which each
block ends in two convolutions, one per path. BatchNorm's epsilon is 1e-3 throughout. The release's
mean-max pooling over larger test images is an evaluation protocol and not part of the network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxcnn import layers
from jaxcnn._checks import require

PAPER = "Chen, Li, Xiao, Jin, Yan, Feng 2017, Dual path networks"
YEAR = 2017


class DualPathBlock(nn.Module):
    """Pre-activation block on a pair of paths: residual f[N,H,W,width] and dense f[N,H,W,D].

    The branch of 1x1, grouped 3x3 and 1x1 convolutions adds `width` channels to the residual path
    and appends `growth` channels to the dense path.

    Attributes:
      width: channels of the residual path.
      mid: channels of the 3x3 convolution.
      growth: channels that the block appends to the dense path.
      groups, stride: of the 3x3 convolution.
      project: start a stage: a 1x1 convolution with the stride creates both paths anew, with
        `width` and 2 * `growth` channels.
      split: end in two convolutions, one per path, instead of one.
      conv, norm_act: constructors of the layers, see `jaxcnn.layers.Network`.
    """

    width: int
    mid: int
    growth: int
    groups: int
    stride: int
    project: bool
    split: bool
    conv: Callable[..., nn.Module]
    norm_act: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, paths: tuple[Array, Array]) -> tuple[Array, Array]:
        residual, dense = paths
        x = jnp.concatenate([residual, dense], axis=-1)
        if self.project:
            y = self.norm_act(name="proj_bn")(x)
            y = self.conv(self.width + 2 * self.growth, 1, self.stride, name="proj_conv")(y)
            residual, dense = jnp.split(y, [self.width], axis=-1)
        x = self.norm_act(name="bn1")(x)
        x = self.conv(self.mid, 1, name="conv1")(x)
        x = self.norm_act(name="bn2")(x)
        x = self.conv(self.mid, 3, self.stride, 1, groups=self.groups, name="conv2")(x)
        x = self.norm_act(name="bn3")(x)
        if self.split:
            added = self.conv(self.width, 1, name="conv3_residual")(x)
            appended = self.conv(self.growth, 1, name="conv3_dense")(x)
        else:
            x = self.conv(self.width + self.growth, 1, name="conv3")(x)
            added, appended = jnp.split(x, [self.width], axis=-1)
        return residual + added, jnp.concatenate([dense, appended], axis=-1)


class DPN(layers.Network):
    """Stem, four stages of dual path blocks, global average pooling and a classifier.

    The images are f32[N,H,W,3]. Inherits the fields of `Network`. The defaults are those of DPN-92.

    Attributes:
      stem: (channels, kernel size) of the first convolution.
      blocks: number of blocks in each stage.
      width: channels of the residual path in stage 1; doubles with each stage.
      mid: channels of the 3x3 convolutions in stage 1; doubles with each stage.
      groups: of the 3x3 convolutions.
      growth: channels that a block appends to the dense path, for each stage.
      split: end each block in two convolutions, one per path.
      mean, std: channel mean and standard deviation of RGB in [0, 1] for the released weights.
    """

    bn_epsilon: float = 1e-3
    stem: tuple[int, int] = (64, 7)
    blocks: tuple[int, ...] = (3, 4, 20, 3)
    width: int = 256
    mid: int = 96
    groups: int = 32
    growth: tuple[int, ...] = (16, 32, 24, 128)
    split: bool = False
    mean: tuple[float, ...] = (124 / 255, 117 / 255, 104 / 255)
    std: tuple[float, ...] = (1 / (0.0167 * 255),) * 3

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        conv, norm_act = self.conv(), self.norm_act(train)
        block = functools.partial(
            DualPathBlock,
            groups=self.groups,
            split=self.split,
            conv=conv,
            norm_act=norm_act,
        )
        stages = f"one number for each of the {len(self.blocks)} stages of blocks={self.blocks}"
        require(len(self.growth) == len(self.blocks), "growth", self.growth, stages)
        channels, kernel = self.stem
        x = conv(channels, kernel, 2, kernel // 2, name="stem_conv")(x)  # 112x112x64
        x = norm_act(name="stem_bn")(x)
        x = self.endpoint("stem", layers.max_pool(x, 3, 2, 1))  # 56x56x64
        paths = x, x[..., :0]
        for i, (count, growth) in enumerate(zip(self.blocks, self.growth)):
            # 56x56x336, 28x28x704, 14x14x1552, 7x7x2688
            stage = [
                functools.partial(
                    block,
                    width=self.width * 2**i,
                    mid=self.mid * 2**i,
                    growth=growth,
                    stride=2 if i and not j else 1,
                    project=not j,
                    name=f"stage{i + 1}_block{j + 1}",
                )
                for j in range(count)
            ]
            paths = self.apply_blocks(stage, paths)
            x = self.endpoint(f"stage{i + 1}", jnp.concatenate(paths, axis=-1))
        x = norm_act(name="final_bn")(x)
        return self.logits(layers.global_avg_pool(x), name="fc")


_DPN68 = functools.partial(
    DPN, stem=(10, 3), blocks=(3, 4, 12, 3), width=64, mid=128, growth=(16, 32, 32, 64)
)

VARIANTS = {
    "dpn68": _DPN68,
    "dpn68b": functools.partial(_DPN68, split=True),
    "dpn92": DPN,
    "dpn98": functools.partial(
        DPN, stem=(96, 7), blocks=(3, 6, 20, 3), mid=160, groups=40, growth=(16, 32, 32, 128)
    ),
    "dpn107": functools.partial(
        DPN, stem=(128, 7), blocks=(4, 8, 20, 3), mid=200, groups=50, growth=(20, 64, 64, 128)
    ),
    "dpn131": functools.partial(
        DPN, stem=(128, 7), blocks=(4, 8, 28, 3), mid=160, groups=40, growth=(16, 32, 32, 128)
    ),
}
