"""What the residual networks share, before and after activation: the list of a block's
convolutions, shortcuts, the stem.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import layers
from jaxcnn.models.classic import choose

# A convolution of a block: (features, kernel, stride, groups).
Conv = tuple[int, int, int, int]

# What takes a block's input to its output where the shape changes (C: everywhere).
SHORTCUTS = {
    "A": "every second pixel, zeros for the new channels, which follow the old ones",
    "A_symmetric": "the same with half of the zeros before the old channels",
    "B": "1x1 convolution with the stride",
    "C": "as B, and a convolution also where the shape stays",
    "D": "average pooling with the stride, then 1x1 convolution",
    "none": "no shortcut: a plain net",
}

# Blocks per stage by depth. Bottlenecks from 50 layers on.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# fb.resnet.torch leaves the classifier at Torch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
fc_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def block_convs(
    block_type: str,
    width: int,
    stride: int,
    *,
    groups: int = 1,
    base_width: int = 64,
    stride_on: str = "3x3",
) -> tuple[Conv, ...]:
    """The convolutions of a block in a stage of `width` channels; fields as in `ResNet`."""
    first, second = choose("stride_on", stride_on, {"1x1": (stride, 1), "3x3": (1, stride)})
    mid = width * base_width // 64 * groups
    kinds = {
        "basic": ((width, 3, stride, 1), (width, 3, 1, 1)),
        "bottleneck": ((mid, 1, first, 1), (mid, 3, second, groups), (4 * width, 1, 1, 1)),
    }
    return choose("block_type", block_type, kinds)


def shortcut(
    x: Array,
    features: int,
    stride: int,
    *,
    kind: str,
    kernel: int = 1,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module] | None,
) -> Array:
    """f32[N,H,W,C] to f32[N,ceil(H/stride),ceil(W/stride),features], by a kind of `SHORTCUTS`.

    Called in a block's own scope: its parameters are the block's `proj_conv` and `proj_bn`.
    """
    if stride == 1 and features == x.shape[-1] and kind != "C":
        return x
    if kind in ("A", "A_symmetric"):
        new = features - x.shape[-1]
        if new < 0:
            raise ValueError(
                f"shortcut {kind!r} adds channels, but a block takes {x.shape[-1]} to {features}"
            )
        before = new // 2 if kind == "A_symmetric" else 0
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))  # x[:, ::s, ::s] may gather
        return jnp.pad(x, ((0, 0),) * 3 + ((before, new - before),))
    if kind == "D" and stride > 1:
        x, stride = layers.avg_pool(x, 2, stride, ceil_mode=True), 1
    x = conv(features, kernel, stride, kernel // 2, name="proj_conv")(x)
    return x if norm is None else norm(name="proj_bn")(x)


def stem(x: Array, channels: tuple[int, ...], small_images: bool, conv, norm) -> Array:
    """The convolutions before the first stage, each with BatchNorm and ReLU.

    `norm=None` leaves both out. Called in the network's own scope: parameters are its `stem_conv`
    and `stem_bn`, numbered from 1 where there are three.
    """
    if len(channels) not in (1, 3):
        raise ValueError(f"stem is {channels}; it is the channels of one convolution or of three")
    if small_images:
        kernel, strides = 3, (1, 1, 1)
    else:
        kernel, strides = (7 if len(channels) == 1 else 3), (2, 1, 1)
    for i, (features, stride) in enumerate(zip(channels, strides), 1):
        number = "" if len(channels) == 1 else i
        x = conv(features, kernel, stride, kernel // 2, name=f"stem_conv{number}")(x)
        if norm is not None:
            x = norm(relu=True, name=f"stem_bn{number}")(x)
    return x


def stem_pool(x: Array, ceil_pool: bool) -> Array:
    """3x3 max pooling with stride 2: padded by 1, or without padding and rounded up."""
    return layers.max_pool(x, 3, 2, 0 if ceil_pool else 1, ceil_mode=ceil_pool)
