"""The blocks that two or more families share.

Three operations are written in more than one way, because XLA's own form is far too slow on CPU
(the gradient of a grouped convolution is up to 160 times too slow, that of max pooling up to 8
times): `grouped_conv`, `max_pool` and `local_response_norm`. Each picks its formulation while it is
lowered for a platform, so that a program compiled for a GPU or TPU holds the native operation only.
All forms compute the same function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
Pair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]

# He et al. 2015 (arXiv 1502.01852): N(0, 2 / fan). Torch's ResNet recipe takes the fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Network(nn.Module):
    """Base of every network: the fields that all of them have.

    `__call__(images, *, train=False)` maps f32[N,H,W,C] to logits f32[N,num_classes]. With
    `num_classes=0` the features that would enter the classifier come back instead.

    Fields:
      num_classes: width of the classifier; 0 for none.
      dtype: type of the computation. Parameters, batch statistics and logits stay float32
        (float64 with dtype=float64).
      axis_name: mesh axis over which BatchNorm averages its batch statistics while training;
        None for statistics of each device's own share.
      min_size: smallest height and width of an image that the network can take.
      remat: recompute each block's activations in the backward pass instead of keeping them.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    axis_name: str | None = None
    min_size: int = 32
    remat: bool = False

    def check_images(self, images: Array, channels: int = 3) -> Array:
        """Returns the images in the compute dtype; raises ValueError if they cannot be used."""
        if images.ndim != 4 or images.shape[-1] != channels:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; {type(self).__name__} takes "
                f"[N, height, width, {channels}]"
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

    def norm(self, train: bool, *, epsilon: float = 1e-5, momentum: float = 0.9):
        """The network's BatchNorm: `norm(name=...)`. `momentum` is the share that is kept."""
        return functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=momentum,
            epsilon=epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )

    def block(self, block: type[nn.Module]) -> type[nn.Module]:
        """The block itself, or its rematerialised form when `remat` is set."""
        return nn.remat(block) if self.remat else block  # type: ignore[return-value]

    def endpoint(self, name: str, value: Array) -> Array:
        """Names an activation for `jaxcnn.endpoints`; costs nothing unless it is asked for."""
        self.sow("endpoints", name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return value

    def wants_endpoints(self) -> bool:
        """True where auxiliary heads have to be computed: at initialisation and when asked for."""
        return self.is_initializing() or self.is_mutable_collection("endpoints")

    def logits(self, features: Array, name: str = "fc", **dense_options) -> Array:
        """Names the features `pre_logits` and classifies them: [N, C] to f32[N, num_classes]."""
        features = self.endpoint("pre_logits", features)
        if self.num_classes:
            features = nn.Dense(self.num_classes, dtype=self.dtype, name=name, **dense_options)(
                features
            )
        return as_output(features)


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
        conv_general_dilated=_conv_general_dilated if groups > 1 else None,
        **options,
    )


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm, activation (None for none of either): `conv`, `bn`."""

    features: int
    kernel: Pair
    stride: Pair = 1
    padding: Any = 0
    groups: int = 1
    conv: Callable[..., nn.Module] = conv
    norm: Callable[..., nn.Module] | None = nn.BatchNorm
    act: Callable[[Array], Array] | None = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = self.conv(
            self.features, self.kernel, self.stride, self.padding, groups=self.groups, name="conv"
        )(x)
        if self.norm is not None:
            x = self.norm(name="bn")(x)
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


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3); (1, 7) stays."""
    return (value, value) if isinstance(value, int) else value


def padding_pairs(padding: Padding | tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """1 -> ((1, 1), (1, 1)); (0, 3) -> ((0, 0), (3, 3)); pairs stay."""
    height, width = pair(padding)  # type: ignore[arg-type]
    return pair(height), pair(width)


# --- grouped convolution ------------------------------------------------------------------------

_NHWC = ("NHWC", "HWIO", "NHWC")


def _native_conv(x: Array, w: Array, stride, padding, groups) -> Array:
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=_NHWC, feature_group_count=groups
    )


def _split_conv(x: Array, w: Array, stride, padding, groups) -> Array:
    parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1))
    return jnp.concatenate([_native_conv(a, b, stride, padding, 1) for a, b in parts], -1)


def _kernel_gradient_by_taps(x: Array, w: Array, g: Array, stride, padding, groups) -> Array:
    """Gradient of a grouped convolution's kernel: one batched product per kernel position."""
    kh, kw, cin, cout = w.shape
    n, oh, ow, _ = g.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    g = g.reshape(n * oh * ow, groups, cout // groups)
    taps = []
    for i in range(kh):
        for j in range(kw):
            tap = _window_slice(x, i, j, (oh, ow), stride).reshape(n * oh * ow, groups, cin)
            taps.append(jnp.einsum("ngi,ngo->igo", tap, g).reshape(cin, cout))
    return jnp.stack(taps).reshape(kh, kw, cin, cout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def grouped_conv(
    x: Array,
    w: Array,
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> Array:
    """Grouped convolution, [N,H,W,C] by [kh,kw,C/groups,F], in the form that suits the platform.

    On CPU: few groups as separate convolutions, many with the kernel's gradient as batched
    products. Elsewhere: XLA's own. Reverse-mode only.
    """
    return _grouped_forward(x, w, stride, padding, groups)


_FEW_GROUPS = 4


def _grouped_forward(x, w, stride, padding, groups):
    native = functools.partial(_native_conv, stride=stride, padding=padding, groups=groups)
    if groups > _FEW_GROUPS:
        return native(x, w)
    split = functools.partial(_split_conv, stride=stride, padding=padding, groups=groups)
    return lax.platform_dependent(x, w, cpu=split, default=native)


def _grouped_conv_fwd(x, w, stride, padding, groups):
    return _grouped_forward(x, w, stride, padding, groups), (x, w)


def _grouped_conv_bwd(stride, padding, groups, residuals, g):
    options = dict(stride=stride, padding=padding, groups=groups)

    def native(x, w, g):
        return jax.vjp(functools.partial(_native_conv, **options), x, w)[1](g)

    def on_cpu(x, w, g):
        if groups <= _FEW_GROUPS:
            return jax.vjp(functools.partial(_split_conv, **options), x, w)[1](g)
        (dx,) = jax.vjp(lambda x: _native_conv(x, w, **options), x)[1](g)
        return dx, _kernel_gradient_by_taps(x, w, g, **options)

    return lax.platform_dependent(*residuals, g, cpu=on_cpu, default=native)


grouped_conv.defvjp(_grouped_conv_fwd, _grouped_conv_bwd)


def _conv_general_dilated(x, w, strides, padding, *, feature_group_count, **options):
    """What nn.Conv calls in place of lax.conv_general_dilated for groups > 1."""
    if any(d != 1 for k in ("lhs_dilation", "rhs_dilation") for d in options.get(k) or ()):
        raise ValueError("grouped_conv does not take dilation")
    return grouped_conv(x, w, tuple(strides), tuple(map(tuple, padding)), feature_group_count)


# --- pooling ------------------------------------------------------------------------------------


def _pool_padding(size, window: Pair, stride: Pair, padding, ceil_mode: bool):
    """Explicit pairs; `ceil_mode` adds what Caffe and Torch add below and to the right.

    A last window that would start in the padding is dropped, as in both.
    """
    pairs = []
    for n, k, s, (low, high) in zip(size, pair(window), pair(stride), padding_pairs(padding)):
        if ceil_mode:
            out = -(-(n + low + high - k) // s) + 1
            if (out - 1) * s >= n + low:
                out -= 1
            high = max(high, (out - 1) * s + k - n - low)
        pairs.append((low, high))
    return tuple(pairs)


def _window_slice(x: Array, i: int, j: int, out: Sequence[int], stride: tuple[int, int]) -> Array:
    """Every window's element (i, j): [N, out_h, out_w, C]."""
    n, _, _, c = x.shape
    end = (i + stride[0] * (out[0] - 1) + 1, j + stride[1] * (out[1] - 1) + 1)
    return lax.slice(x, (0, i, j, 0), (n, *end, c), (1, *stride, 1))


def max_pool(
    x: Array, window: Pair, stride: Pair, padding: Padding = 0, *, ceil_mode: bool = False
) -> Array:
    """Max pooling, [N,H,W,C] to [N,h,w,C]. A tie gives the whole gradient to the first maximum.

    `ceil_mode` rounds the output size up as Caffe does. Reverse-mode only.
    """
    pads = _pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    return _max_pool(x, pair(window), pair(stride), pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    return nn.max_pool(x, window, stride, padding)


def _max_pool_fwd(x, window, stride, padding):
    y = nn.max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_pool_bwd(window, stride, padding, residuals, g):
    def native(x, y, g):
        return jax.vjp(lambda x: nn.max_pool(x, window, stride, padding), x)[1](g)[0]

    def first_maximum(x, y, g):
        (top, bottom), (left, right) = padding
        height, width = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
        out = y.shape[1:3]
        taken = jnp.zeros(y.shape, bool)
        dx = jnp.zeros(x.shape, g.dtype)
        for i in range(window[0]):
            for j in range(window[1]):
                hit = (_window_slice(x, i, j, out, stride) == y) & ~taken
                taken |= hit
                spread = [(0, 0, 0)]
                for start, n, o, s in zip((i, j), x.shape[1:3], out, stride):
                    spread.append((start, n - start - s * (o - 1) - 1, s - 1))
                dx += lax.pad(jnp.where(hit, g, 0), jnp.zeros((), g.dtype), [*spread, (0, 0, 0)])
        return dx[:, top : top + height, left : left + width]

    return (lax.platform_dependent(*residuals, g, cpu=first_maximum, default=native),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def avg_pool(
    x: Array,
    window: Pair,
    stride: Pair,
    padding: Padding = 0,
    *,
    count_include_pad: bool = False,
    ceil_mode: bool = False,
) -> Array:
    """Average pooling, [N,H,W,C] to [N,h,w,C].

    Padding is not counted by default (TensorFlow); `count_include_pad=True` divides by the whole
    window (Caffe, torchvision's inception_v3).
    """
    pads = _pool_padding(x.shape[1:3], window, stride, padding, ceil_mode)
    if not any(map(any, pads)):
        count_include_pad = True  # nothing to leave out: spares the division by counts
    return nn.avg_pool(x, pair(window), pair(stride), pads, count_include_pad=count_include_pad)


def global_avg_pool(x: Array) -> Array:
    """[N,H,W,C] to [N,C]."""
    return jnp.mean(x, axis=(1, 2))


def adaptive_avg_pool(x: Array, size: int) -> Array:
    """Torch's adaptive average: [N,H,W,C] to [N,size,size,C]; windows may overlap."""
    for axis in (1, 2):
        n = x.shape[axis]
        bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        parts = [jnp.mean(lax.slice_in_dim(x, a, b, axis=axis), axis) for a, b in bounds]
        x = jnp.stack(parts, axis)
    return x


def local_response_norm(
    x: Array,
    *,
    n: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    alpha_div_n: bool = False,
) -> Array:
    """x / (k + alpha * sum of squares over n adjacent channels) ** beta, [N,H,W,C].

    Krizhevsky et al. 2012, section 3.3, as printed. `alpha_div_n=True` divides alpha by n, as
    Caffe (with k=1) and the authors' own code (k=2) do.
    """
    half = n // 2
    squares = lax.reduce_window(
        x * x, np.zeros((), x.dtype)[()], lax.add, (1, 1, 1, n), (1, 1, 1, 1),
        ((0, 0), (0, 0), (0, 0), (half, n - 1 - half)),
    )  # fmt: skip
    scale = k + (alpha / n if alpha_div_n else alpha) * squares
    if beta == 0.75:
        root = lax.rsqrt(scale)
        return x * root * jnp.sqrt(root)
    return x * scale**-beta
