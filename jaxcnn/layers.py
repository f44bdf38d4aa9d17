"""Layers that several families share.

The base class of every network, convolutions, and squeeze-and-excitation. The operations that they
are built from are in `jaxcnn.ops`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
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
from jaxcnn.ops.normalization import STATISTICS
from jaxcnn.ops.windows import Padding, Pair

__all__ = [
    "BatchNorm",
    "BatchNormAct",
    "ConvBNAct",
    "Network",
    "SqueezeExcite",
    "adaptive_avg_pool",
    "as_output",
    "avg_pool",
    "classifier",
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

# The name under which `remat="cheap"` saves the outputs of convolutions.
_CONV_OUTPUT = "conv_output"
# The most blocks whose inputs are recomputed together, and are in memory together.
_TOGETHER = 6


class Network(nn.Module):
    """Base class of every network, with the fields that all networks share.

    `__call__(images, *, train=False)` maps f32[N,H,W,C] to logits f32[N,num_classes]. With
    `num_classes=0` it returns the features that would enter the classifier.

    Attributes:
      num_classes: width of the classifier; 0 removes it.
      dtype: type of the computation. Parameters, batch statistics and logits stay float32
        (logits are float64 with dtype=float64).
      axis_name: mesh axis over which BatchNorm averages its batch statistics during training;
        None to compute them on each device separately.
      bn_group: number of examples per group over which BatchNorm computes its statistics during
        training, see `jaxcnn.ops.BatchNorm`; None to follow `axis_name`.
      bn_epsilon: constant that BatchNorm adds to the variance.
      bn_momentum: decay of BatchNorm's running statistics: the fraction that a training step keeps.
        The papers give none; 0.9 is common for these networks (0.1 in PyTorch's convention).
      channels: number of image channels: 3 for color, 1 for grayscale.
      min_size: smallest image height and width that the network accepts.
      remat: what the backward pass recomputes instead of storing: False for nothing, True for
        everything within a block, "cheap" for what takes little time: everything but BatchNorm's
        statistics and the outputs of most convolutions.
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

    def __post_init__(self) -> None:
        if not isinstance(self.remat, bool) and self.remat != "cheap":
            raise ValueError(f"remat is {self.remat!r}; it must be False, True or 'cheap'")
        super().__post_init__()

    def check_images(self, images: Array) -> Array:
        """Checks the images and casts them to the compute dtype.

        Args:
          images: f[N,H,W,C].

        Returns:
          The images as `dtype`.

        Raises:
          ValueError: the number of channels is wrong or the images are too small.
        """
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

    def conv(self, **options: Any) -> Callable[..., nn.Conv]:
        """Returns a constructor of convolutions with the network's dtype.

        Use it as `conv(features, kernel, stride, padding, name=...)(x)`.

        Args:
          **options: defaults for `jaxcnn.layers.conv`.
        """
        return functools.partial(conv, dtype=self.dtype, **options)

    def norm(self, train: bool) -> Callable[..., nn.Module]:
        """Returns a constructor of BatchNorm with the network's settings.

        Use it as `norm(name=...)(x)`.

        Args:
          train: whether to normalize by the statistics of the batch.
        """
        return functools.partial(BatchNorm, **self._norm_options(train))

    def norm_act(self, train: bool) -> Callable[..., nn.Module]:
        """Returns a constructor of BatchNorm followed by ReLU.

        Use it as `norm_act(name=...)(x)`; `norm_act(name=...)(x, shortcut)` adds a shortcut between
        BatchNorm and ReLU.

        Args:
          train: whether to normalize by the statistics of the batch.
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

    def rematerialize(self, target: Any) -> Any:
        """Wraps a block so that the backward pass recomputes what `remat` selects.

        Args:
          target: module class of a block, or a function of a module and arrays.

        Returns:
          The wrapped class or function; without `remat` and during initialization `target` itself.
        """
        if not self.remat or self.is_initializing():
            return target
        keep = jax.checkpoint_policies.save_only_these_names(_CONV_OUTPUT, STATISTICS)
        return nn.remat(target, policy=keep if self.remat == "cheap" else None)

    def apply_blocks(self, blocks: Sequence[Callable[..., nn.Module]], x: Any) -> Any:
        """Applies the blocks of a stage in turn, and recomputes them as `remat` selects.

        With `remat="cheap"` the backward pass recomputes the inputs of up to six blocks together,
        from the outputs of their convolutions.

        Args:
          blocks: constructors of the blocks.
          x: input of the first block.

        Returns:
          The output of the last block.
        """
        together = 1 if self.remat is True else _TOGETHER
        for i in range(0, len(blocks), together):
            apply = functools.partial(_apply_in_turn, blocks=blocks[i : i + together])
            x = self.rematerialize(apply)(self, x)
        return x

    def endpoint(self, name: str, value: Array) -> Array:
        """Records an activation under a name for `jaxcnn.endpoints`.

        Nothing is stored unless the caller requests the endpoints.

        Args:
          name: of the endpoint, such as "stage1".
          value: the activation.

        Returns:
          `value`, unchanged.
        """
        if not self.is_initializing():  # variables are parameters and statistics, nothing else
            self.sow("endpoints", name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return value

    def wants_endpoints(self) -> bool:
        """Returns whether auxiliary heads must be computed: at initialization and on request."""
        return self.is_initializing() or self.is_mutable_collection("endpoints")

    def logits(self, features: Array, name: str = "fc", **dense_options: Any) -> Array:
        """Applies the classifier and records its input as the endpoint `pre_logits`.

        Args:
          features: f[N,C].
          name: of the dense layer.
          **dense_options: for `flax.linen.Dense`.

        Returns:
          Logits f32[N,num_classes], or the features f32[N,C] if `num_classes` is 0.
        """
        features = self.endpoint("pre_logits", features)
        if self.num_classes:
            features = classifier(self.num_classes, self.dtype, name=name, **dense_options)(
                features
            )
        return as_output(features)


def classifier(num_classes: int, dtype: Any, **options: Any) -> nn.Dense:
    """Creates a dense layer whose outputs are at least float32, whatever the compute dtype.

    Args:
      num_classes: number of outputs.
      dtype: type of the factors of its products.
      **options: further fields of `flax.linen.Dense`.
    """
    wide = jnp.promote_types(dtype, jnp.float32)

    def promote(*args: Array | None, dtype: Any = None, inexact: bool = True) -> list[Any]:
        x, kernel, bias = args
        factors = promote_dtype(x, kernel, dtype=dtype, inexact=inexact)
        return [*factors, None if bias is None else bias.astype(wide)]

    product = functools.partial(jax.lax.dot_general, preferred_element_type=wide)
    return nn.Dense(num_classes, dtype=dtype, dot_general=product, promote_dtype=promote, **options)


def _apply_in_turn(network: nn.Module, x: Any, *, blocks: Sequence[Any]) -> Any:
    for block in blocks:
        x = block(parent=network)(x)
    return x


def _named_conv(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
    """A convolution whose output is named for `remat="cheap"`, unless it is soon computed again.

    That is so with at most 64 multiply-adds for each value, or 384 in a 1x1 convolution that at
    least doubles the channels, whose outputs are large: 20 % of ResNet-50's multiply-adds.
    """
    y = conv_general_dilated(x, kernel, *arguments, **options)
    work, (channels, features) = math.prod(kernel.shape[:-1]), kernel.shape[-2:]
    widens = work == channels <= features / 2
    grouped = options.get("feature_group_count", 1) > 1
    soon = not grouped and work <= (384 if widens else 64)
    return y if soon else checkpoint_name(y, _CONV_OUTPUT)


def without_axis(network: nn.Module) -> nn.Module:
    """Returns the network with `axis_name=None`, for use outside a mesh.

    Args:
      network: any module; one without the field `axis_name` is returned unchanged.
    """
    return network.clone(axis_name=None) if hasattr(network, "axis_name") else network


def as_output(x: Array) -> Array:
    """Casts logits or features to float32, or to float64 if they are float64."""
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
    **options: Any,
) -> nn.Conv:
    """Creates a Linen convolution with explicit padding, f[N,H,W,C] to f[N,h,w,features].

    The kernel is f32[kh,kw,C/groups,features].

    Args:
      features: number of output channels.
      kernel: size of the window in pixels, one number or (height, width).
      stride: one number or (vertical, horizontal).
      padding: rows and columns of zeros: one number for all sides, (height, width) for both sides
        of each axis, or ((top, bottom), (left, right)). "SAME" is not supported, because it pads
        unevenly with a stride.
      groups: number of groups of channels that are convolved separately.
      bias: whether to add a bias f32[features].
      dtype: type of the computation.
      kernel_init: initializer of the kernel.
      **options: further fields of `flax.linen.Conv`, such as `name`.
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
    """Convolution, BatchNorm and ReLU, f[N,H,W,C] to f[N,h,w,features].

    The submodules are `conv` and `bn`.

    Attributes:
      features, kernel, stride, padding, groups: as in `conv`.
      conv: creates the convolution, called as `jaxcnn.layers.conv` is.
      norm_act: creates BatchNorm with ReLU: `norm_act(name=...)`; None for ReLU without BatchNorm.
    """

    features: int
    kernel: Pair
    stride: Pair = 1
    padding: Any = 0
    groups: int = 1
    conv: Callable[..., nn.Module] = conv
    norm_act: Callable[..., nn.Module] | None = dataclasses.field(kw_only=True)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.conv(
            self.features, self.kernel, self.stride, self.padding, groups=self.groups, name="conv"
        )(x)
        return nn.relu(x) if self.norm_act is None else self.norm_act(name="bn")(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018, section 3), f[N,H,W,C] to f[N,H,W,C].

    Scales each channel by a learned gate: global average pooling, dense layer of C // reduction
    units, ReLU, dense layer of C units, sigmoid, product with the input.

    Attributes:
      reduction: factor by which the first dense layer narrows the channels.
      bias: whether the dense layers have biases.
      dtype: type of the computation.

    Raises:
      ValueError: there are fewer channels than `reduction`.
    """

    reduction: int = 16
    bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        if channels < self.reduction:
            raise ValueError(
                f"squeeze-and-excitation by {self.reduction} needs at least {self.reduction} "
                f"channels, but there are {channels}"
            )
        dense = functools.partial(nn.Dense, use_bias=self.bias, dtype=self.dtype)
        gate = nn.relu(dense(channels // self.reduction, name="fc1")(global_avg_pool(x)))
        gate = nn.sigmoid(dense(channels, name="fc2")(gate))
        return x * gate[:, None, None, :]
