"""Layers of several families: the base class of every network, convolution with BatchNorm and
ReLU, squeeze-and-excitation. The operations below them are in `jaxcnn.ops`.
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
    BatchNormAct,
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
    "ConvBNAct",
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
    "without_axis",
]

Array = jax.Array

# He et al. 2015 (arXiv 1502.01852): N(0, 2 / fan). Torch's ResNet recipe takes the fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# The name by which `remat="cheap"` finds the results of convolutions.
_CONVOLVED = "convolved"


class Network(nn.Module):
    """Base of every network: the fields that all of them have.

    `__call__(images, *, train=False)` maps f32[N,H,W,C] to logits f32[N,num_classes]. With
    `num_classes=0` it returns the features that would enter the classifier.

    Attributes:
      num_classes: width of the classifier; 0 for none.
      dtype: type of the computation. Parameters, batch statistics and logits stay float32
        (logits float64 with dtype=float64).
      axis_name: mesh axis over which BatchNorm averages its batch statistics while training;
        None for statistics of each device's own shard.
      bn_group: number of examples in each group over which BatchNorm takes its statistics while
        training, see `jaxcnn.ops.BatchNorm`; None for what `axis_name` says.
      bn_epsilon: what BatchNorm adds to the variance.
      bn_momentum: the fraction of BatchNorm's running statistics that a training step keeps.
      channels: of the images: 3 for color, 1 for gray.
      min_size: smallest height and width of an image that the network can take.
      remat: what the backward pass recomputes instead of keeping it: False nothing, True everything
        within a block, "cheap" everything within a block except the results of convolutions.
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

    def norm(self, train: bool) -> Callable[..., nn.Module]:
        """The network's BatchNorm: `norm(name=...)(x)`."""
        return functools.partial(BatchNorm, **self._norm_options(train))

    def norm_act(self, train: bool) -> Callable[..., nn.Module]:
        """The network's BatchNorm and ReLU: `norm_act(name=...)(x)`.

        `norm_act(name=...)(x, shortcut)` adds a shortcut between the two.
        """
        return functools.partial(BatchNormAct, **self._norm_options(train))

    def _norm_options(self, train: bool) -> dict[str, Any]:
        return {
            "use_running_average": not train,
            "momentum": self.bn_momentum,
            "epsilon": self.bn_epsilon,
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "group": self.bn_group,
        }

    def rematerialize(self, block: type[nn.Module]) -> type[nn.Module]:
        """The block's class, such that its activations are recomputed as `remat` says.

        Raises ValueError if `remat` is unknown.
        """
        if self.remat not in (False, True, "cheap"):
            raise ValueError(f"remat is {self.remat!r}; it must be False, True or 'cheap'")
        if not self.remat:
            return block
        keep = jax.checkpoint_policies.save_only_these_names(_CONVOLVED)
        return nn.remat(block, policy=keep if self.remat == "cheap" else None)

    def endpoint(self, name: str, value: Array) -> Array:
        """Names an activation for `jaxcnn.endpoints`; costs nothing unless someone asks for it."""
        if not self.is_initializing():  # variables are parameters and statistics, nothing else
            self.sow("endpoints", name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return value

    def wants_endpoints(self) -> bool:
        """True where auxiliary heads have to be computed: at initialization and on request."""
        return self.is_initializing() or self.is_mutable_collection("endpoints")

    def logits(self, features: Array, name: str = "fc", **dense_options) -> Array:
        """Names the features `pre_logits` and classifies them: [N, C] to f32[N, num_classes]."""
        features = self.endpoint("pre_logits", features)
        if self.num_classes:
            features = nn.Dense(self.num_classes, dtype=self.dtype, name=name, **dense_options)(
                features
            )
        return as_output(features)


def _named_conv(*arguments: Any, **options: Any) -> Array:
    """A convolution whose result `remat="cheap"` knows by name, whatever its implementation."""
    return checkpoint_name(conv_general_dilated(*arguments, **options), _CONVOLVED)


def without_axis(network: nn.Module) -> nn.Module:
    """The network outside of the mesh: without its `axis_name`, where it has one."""
    return network.clone(axis_name=None) if hasattr(network, "axis_name") else network


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


class ConvBNAct(nn.Module):
    """Convolution, BatchNorm, ReLU: modules `conv` and `bn`. f[N,H,W,C] to f[N,h,w,features].

    Attributes:
      features, kernel, stride, padding, groups: as in `conv`.
      conv: makes the convolution: `conv(features, kernel, stride, padding, groups=..., name=...)`.
      norm_act: makes BatchNorm with ReLU: `norm_act(name=...)`; None for a ReLU alone.
    """

    features: int
    kernel: Pair
    stride: Pair = 1
    padding: Any = 0
    groups: int = 1
    conv: Callable[..., nn.Module] = conv
    norm_act: Callable[..., nn.Module] | None = BatchNormAct

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.conv(
            self.features, self.kernel, self.stride, self.padding, groups=self.groups, name="conv"
        )(x)
        return nn.relu(x) if self.norm_act is None else self.norm_act(name="bn")(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, section 3): scales each channel by a learned gate.

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
