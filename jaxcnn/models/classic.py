"""What AlexNet, ZFNet and VGG share: three fully connected layers, their convolutional form, and
the presets of local response normalisation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from jaxcnn import layers
from jaxcnn._checks import near

# The formula as printed (k 2, alpha 1e-4), Caffe's (k 1, alpha / n) and that of the authors' own
# cuda-convnet (k 2, alpha / n).
LRN: dict[str, dict[str, Any]] = {
    "paper": {},
    "caffe": {"k": 1.0, "alpha_div_n": True},
    "cuda_convnet": {"alpha_div_n": True},
}


def choose(option: str, value: str, known: Mapping[str, Any]) -> Any:
    """known[value]; raises ValueError that names the option and what it may be."""
    if value not in known:
        raise ValueError(
            f"{option} is {value!r}; it can be {', '.join(known)}{near(str(value), known)}"
        )
    return known[value]


def response_norm(preset: str | None) -> Callable[[Array], Array]:
    """The normalisation of a preset of `LRN`, or, for None, nothing."""
    if preset is None:
        return lambda x: x
    return functools.partial(layers.local_response_norm, **choose("lrn", preset, LRN))


class Stage(nn.Module):
    """Convolution, ReLU and what follows them (pooling, normalisation): parameters in `conv`."""

    conv: Callable[..., nn.Module]
    after: tuple[Callable[[Array], Array], ...] = ()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(self.conv(name="conv")(x))
        for operation in self.after:
            x = operation(x)
        return x


class WindowDense(nn.Module):
    """A dense layer over every window of a map: [N,H,W,C] to [N, H-window+1, W-window+1, features].

    The kernel, f32[window*window*C, features], is that of the layer after flattening in
    (height, width, channel) order, which is what this is where the map is one window.
    """

    features: int
    window: int = 1
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, height, width, channels = x.shape
        rows = self.window**2 * channels
        kernel = self.param("kernel", self.kernel_init, (rows, self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if (height, width) == (self.window, self.window):
            y = (x.reshape(n, rows) @ kernel)[:, None, None]
        else:
            kernel = kernel.reshape(self.window, self.window, channels, self.features)
            y = lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return y + bias.reshape(1, 1, 1, -1)


class FullyConnectedNetwork(layers.Network):
    """A network that ends in fc6 - fc7 - fc8 and so takes images of one size.

    Fields (besides those of `Network`):
      dropout: share of the units that are dropped at fc6 and fc7 while training.
      dense: apply the fully connected layers at every position of a larger image and average the
        class scores (Sermanet et al. 2014; Simonyan and Zisserman 2015, section 3.2). Parameters
        are the same. Endpoint `score_map` is f32[N,h,w,num_classes], `pre_logits` the average of
        fc7 over positions.
      fc_width: units of fc6 and of fc7.
    """

    dropout: float = 0.5
    dense: bool = False
    fc_width: int = 4096

    def check_native(self, images: Array, *sizes: int) -> None:
        """Raises ValueError for images of none of these sizes, largest first; `dense` takes more.

        With `dense` any image passes that is at least sizes[0] high and wide.
        """
        height, width = images.shape[1:3]
        if (height, width) in [(n, n) for n in sizes]:
            return
        name = type(self).__name__
        if not self.dense:
            native = " or ".join(f"{n}x{n}" for n in sizes)
            raise ValueError(
                f"images are {height}x{width}; the fully connected layers of {name} take {native}; "
                "dense=True takes larger ones"
            )
        if min(height, width) < sizes[0]:
            raise ValueError(
                f"images are {height}x{width}; {name} with dense=True needs at least "
                f"{sizes[0]}x{sizes[0]}"
            )

    def classify(
        self,
        x: Array,
        window: int,
        *,
        train: bool,
        fc_init: nn.initializers.Initializer,
        fc_bias: nn.initializers.Initializer = nn.initializers.zeros,
        fc8_init: nn.initializers.Initializer | None = None,
        dropout_first: bool = False,
    ) -> Array:
        """[N,H,W,C] to logits [N,num_classes]; fc6 spans `window` x `window` positions.

        Dropout follows fc6 and fc7, or with `dropout_first` precedes them (torchvision's AlexNet).
        """
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        for name, span in (("fc6", window), ("fc7", 1)):
            if dropout_first:
                x = drop(name=f"{name}_dropout")(x)
            x = WindowDense(self.fc_width, span, self.dtype, fc_init, fc_bias, name=name)(x)
            x = nn.relu(x)
            if not dropout_first:
                x = drop(name=f"{name}_dropout")(x)
        if not self.dense:
            return self.logits(x[:, 0, 0], name="fc8", kernel_init=fc8_init or fc_init)
        features = self.endpoint("pre_logits", layers.global_avg_pool(x))
        if not self.num_classes:
            return layers.as_output(features)
        fc8 = WindowDense(self.num_classes, 1, self.dtype, fc8_init or fc_init, name="fc8")
        scores = self.endpoint("score_map", layers.as_output(fc8(x)))
        return layers.global_avg_pool(scores)
