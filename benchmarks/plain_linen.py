"""Plain forms to compare with: ResNet-50 in Flax Linen, and all networks with plain BatchNorm.

`PlainResNet50` is written from its description: `nn.Conv`, `nn.BatchNorm`, `nn.max_pool`.
He et al. 2015, table 1, with the stride on the 3x3 convolutions and the scale of each block's last
BatchNorm initialized to zero (Goyal et al. 2017). Padding is "SAME", BatchNorm has momentum 0.9 and
epsilon 1e-5, the types of the computation are those of `dtype`, and the logits are float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn.ops import normalization, reference


class PlainResNet50(nn.Module):
    num_classes: int = 1000
    dtype: Any = jnp.bfloat16
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, images, *, train=False):
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        x = conv(64, (7, 7), (2, 2), padding=3)(images)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), strides=(2, 2), padding="SAME")
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = (2, 2) if stage and not block else (1, 1)
                width, shortcut = 64 * 2**stage, x
                y = nn.relu(norm()(conv(width, (1, 1))(x)))
                y = nn.relu(norm()(conv(width, (3, 3), stride)(y)))
                y = norm(scale_init=nn.initializers.zeros)(conv(4 * width, (1, 1))(y))
                if not block:
                    shortcut = norm()(conv(4 * width, (1, 1), stride)(x))
                x = nn.relu(shortcut + y)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x.mean((1, 2)))
        return logits.astype(jnp.float32)


@contextlib.contextmanager
def plain_batch_norm() -> Iterator[None]:
    """Traces BatchNorm, shortcut and ReLU of jaxcnn's networks as `nn.BatchNorm` computes them.

    Statistics come from one pass, their gradients from JAX, and nothing is fused by hand. On a TPU
    these are the only operations of this package, but for response normalization.
    """
    with (
        mock.patch.object(normalization, "moments", _moments),
        mock.patch.object(normalization, "normalize", reference.normalize),
    ):
        yield


def _moments(x: Array, guess: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(axes, keepdims=True)
    return mean, jnp.maximum(0.0, lax.square(wide).mean(axes, keepdims=True) - lax.square(mean))
