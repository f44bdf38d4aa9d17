"""What two or more families share: the base of every network, convolution with normalisation,
squeeze-and-excitation. The operations below them are in `jaxcnn.ops`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxcnn.ops import (
    BatchNorm,
    adaptive_avg_pool,
    avg_pool,
    conv_general_dilated,
    global_avg_pool,
    local_response_norm,
    max_pool,
    padding_pairs,
    pair,
)
from jaxcnn.ops.windows import Padding, Pair

__all__ = [
    "ConvNormAct",
    "Network",
    "SqueezeExcite",
    "adaptive_avg_pool",
    "as_output",
    "avg_pool",
    "conv",
    "global_avg_pool",
    "he_fan_in",
    "he_fan_out",
    "local_response_norm",
    "max_pool",
    "padding_pairs",
    "pair",
]

Array = jax.Array

# He et al. 2015 (arXiv 1502.01852): N(0, 2 / fan). Torch's ResNet recipe takes the fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_CONVOLVED = "convolved"
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Network(nn.Module):
    """Base of every network: the fields that all of them have.

    `__call__(images, *, train=False)` maps f32[N,H,W,C] to logits f32[N,num_classes]. With
    `num_classes=0` the features that would enter the classifier come back instead.

    Fields:
      num_classes: width of the classifier; 0 for none.
      dtype: type of the computation. Parameters, batch statistics and logits stay float32
        (logits float64 with dtype=float64).
      axis_name: mesh axis over which BatchNorm averages its batch statistics while training;
        None for statistics of each device's own share.
      bn_group: examples that BatchNorm takes its statistics of while training, see
        `jaxcnn.ops.BatchNorm`; None for what `axis_name` says.
      bn_epsilon: what BatchNorm adds to the variance.
      bn_momentum: the fraction of BatchNorm's running statistics that a training step keeps.
      channels: of the images: 3 for color, 1 for grey.
      min_size: smallest height and width of an image that the network can take.
      remat: what is recomputed in the backward pass instead of being kept: False nothing, True all
        within a block, "cheap" all within a block but the results of convolutions.
      box_head: None, or where the object is too, as endpoint `box`: "scr" one box f32[N,4] for all
        classes, "pcr" one for each, f32[N,4K]; see `jaxcnn.training.optim.losses`.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    axis_name: str | None = None
    bn_group: int | None = None
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    channels: int = 3
    min_size: int = 32
    remat: bool | str = False
    box_head: str | None = None

    def check_images(self, images: Array) -> Array:
        """Returns the images in the compute dtype; raises ValueError if they cannot be used."""
        if images.ndim != 4 or images.shape[-1] != self.channels:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; {type(self).__name__} takes "
                f"[N, height, width, {self.channels}]"
            )
        if min(images.shape[1:3]) < self.min_size:
            raise ValueError(
                f"images are {images.shape[1]}x{images.shape[2]}; {type(self).__name__} needs at "
                f"least {self.min_size}x{self.min_size}"
            )
        return jnp.asarray(images, self.dtype)

    def conv(self, **options) -> Callable[..., nn.Conv]:
        """The network's convolution: `conv(features, kernel, stride, padding, name=...)`."""
        return functools.partial(conv, dtype=self.dtype, **options)

    def norm(self, train: bool):
        """The network's BatchNorm: `norm(relu=..., name=...)(x, skip)`; the ReLU and the shortcut
        are left out where they are not given.
        """
        return functools.partial(
            BatchNorm,
            use_running_average=not train,
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
            group=self.bn_group,
        )

    def block(self, block: type[nn.Module]) -> type[nn.Module]:
        """The block itself, or its rematerialised form when `remat` is set.

        Raises ValueError for a `remat` that is none.
        """
        if self.remat not in (False, True, "cheap"):
            raise ValueError(f"remat is {self.remat!r}; it must be False, True or 'cheap'")
        if not self.remat:
            return block
        keep = jax.checkpoint_policies.save_only_these_names(_CONVOLVED)
        return nn.remat(block, policy=keep if self.remat == "cheap" else None)

    def endpoint(self, name: str, value: Array) -> Array:
        """Names an activation for `jaxcnn.endpoints`; costs nothing unless it is asked for."""
        if not self.is_initializing():  # variables are parameters and statistics, nothing else
            self.sow("endpoints", name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return value

    def wants_endpoints(self) -> bool:
        """True where auxiliary heads have to be computed: at initialisation and when asked for."""
        return self.is_initializing() or self.is_mutable_collection("endpoints")

    def logits(self, features: Array, name: str = "fc", **dense_options) -> Array:
        """Names the features `pre_logits` and classifies them: [N, C] to f32[N, num_classes]."""
        features = self.endpoint("pre_logits", features)
        if self.box_head is not None and self.num_classes and self.wants_endpoints():
            width = _box_width(self.box_head, self.num_classes)
            self.endpoint(
                "box", as_output(nn.Dense(width, dtype=self.dtype, name="box_fc")(features))
            )
        if self.num_classes:
            features = nn.Dense(self.num_classes, dtype=self.dtype, name=name, **dense_options)(
                features
            )
        return as_output(features)


def _named_conv(*arguments: Any, **options: Any) -> Array:
    """A convolution whose result `remat="cheap"` knows by name, in whatever form it is computed."""
    return checkpoint_name(conv_general_dilated(*arguments, **options), _CONVOLVED)


def _box_width(head: str, num_classes: int) -> int:
    widths = {"scr": 4, "pcr": 4 * num_classes}
    if head not in widths:
        raise ValueError(f"box_head is {head!r}; it must be 'scr', 'pcr' or None")
    return widths[head]


def as_output(x: Array) -> Array:
    """Logits and features leave a network in float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def conv(
    features: int,
    kernel: Pair,
    stride: Pair = 1,
    padding: Padding | tuple[int, int] = 0,
    *,
    groups: int = 1,
    bias: bool = False,
    dtype: Any = jnp.float32,
    kernel_init: nn.initializers.Initializer = he_fan_out,
    **options,
) -> nn.Conv:
    """A Linen convolution with explicit padding. Kernel f32[kh, kw, in/groups, features].

    `padding` is one number for all sides, (height, width) for both sides of each, or
    ((top, bottom), (left, right)). "SAME" is never used: with a stride it pads unevenly.
    """
    return nn.Conv(
        features,
        pair(kernel),
        pair(stride),
        padding_pairs(padding),
        feature_group_count=groups,
        use_bias=bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=_named_conv,
        **options,
    )


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm, activation (None for none of either): `conv`, `bn`.

    `norm(relu=..., name=...)` is a `BatchNorm`, to which `nn.relu` is left.
    """

    features: int
    kernel: Pair
    stride: Pair = 1
    padding: Any = 0
    groups: int = 1
    conv: Callable[..., nn.Module] = conv
    norm: Callable[..., nn.Module] | None = BatchNorm
    act: Callable[[Array], Array] | None = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.conv(
            self.features, self.kernel, self.stride, self.padding, groups=self.groups, name="conv"
        )(x)
        if self.norm is not None:
            relu = self.act is nn.relu
            x = self.norm(relu=relu, name="bn")(x)
            if relu:
                return x
        return x if self.act is None else self.act(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, section 3): scales each channel by a learnt gate.

    Global average, dense C // reduction, ReLU, dense C, sigmoid, product.
    """

    reduction: int = 16
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        dense = functools.partial(nn.Dense, use_bias=self.bias, dtype=self.dtype)
        gate = nn.relu(dense(channels // self.reduction, name="fc1")(global_avg_pool(x)))
        gate = nn.sigmoid(dense(channels, name="fc2")(gate))
        return x * gate[:, None, None, :]
