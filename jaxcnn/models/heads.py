"""Heads: the fully connected layers of AlexNet, ZFNet and VGG with their convolutional form, and
box heads, which locate the object that a network classifies.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from jaxcnn import layers
from jaxcnn._checks import require

# --- boxes --------------------------------------------------------------------------------------

# Numbers that a box head returns for K classes: one box for all of them, or one for each
# ("single-class" and "per-class regression", Simonyan and Zisserman 2015, appendix A.1).
BOX_HEADS = {"scr": lambda classes: 4, "pcr": lambda classes: 4 * classes}


@functools.cache
def with_box_head(network: type[layers.Network]) -> type[layers.Network]:
    """The network's class with a box head, a dense layer `box_fc` on the classifier's features.

    The new class has one field more, `box_head`: "scr" or "pcr", a key of `BOX_HEADS`. The boxes
    are the endpoint `box`, f32[N,4] or f32[N,4K], see `jaxcnn.training.optim.losses`. They are
    computed at initialization and where endpoints are requested. Logits and all other variables
    are the network's own. Networks whose classifier takes no features have no box head.
    """

    class WithBoxHead(network):  # type: ignore[misc, valid-type]
        box_head: str = "scr"

        def logits(self, features: Array, name: str = "fc", **dense_options: Any) -> Array:
            require(self.box_head in BOX_HEADS, "box_head", self.box_head, "'scr', 'pcr' or None")
            if self.num_classes and self.wants_endpoints():
                width = BOX_HEADS[self.box_head](self.num_classes)
                boxes = nn.Dense(width, dtype=self.dtype, name="box_fc")(features)
                self.endpoint("box", layers.as_output(boxes))
            return super().logits(features, name, **dense_options)

    WithBoxHead.__name__, WithBoxHead.__qualname__ = network.__name__, network.__qualname__
    return WithBoxHead


# --- fully connected layers ---------------------------------------------------------------------


class WindowDense(nn.Module):
    """A dense layer over every window of a map: [N,H,W,C] to [N, H-window+1, W-window+1, features].

    The kernel, f32[window*window*C, features], is that of a dense layer on the map flattened in
    (height, width, channel) order; where the map is one window, this is that layer.
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
    """Base of the networks that end in fc6 - fc7 - fc8 and so take images of one size.

    Inherits the fields of `Network`.

    Attributes:
      dropout: share of the units that is dropped at fc6 and fc7 while training.
      dense: apply the fully connected layers at every position of a larger image and average the
        class scores (Sermanet et al. 2014; Simonyan and Zisserman 2015, section 3.2). Parameters
        stay the same. Endpoint `score_map` is f32[N,h,w,num_classes], `pre_logits` the average of
        fc7 over positions.
      fc_width: units of fc6 and of fc7.
    """

    dropout: float = 0.5
    dense: bool = False
    fc_width: int = 4096

    def check_native(self, images: Array, *sizes: int) -> None:
        """Raises ValueError unless images have one of these sizes, largest first.

        With `dense` an image may have any size from sizes[0] on.
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
