"""Heads that several families share.

Box heads, which locate the object that a network classifies, and the fully connected layers of
AlexNet, ZFNet and VGG with their convolutional form.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array, lax

from jaxcnn import layers
from jaxcnn._checks import one_of, require

# --- boxes --------------------------------------------------------------------------------------

# Number of outputs of a box head for K classes: one box for all classes, or one box per class
# ("single-class" and "per-class regression", Simonyan and Zisserman 2015, appendix A.1).
BOX_HEADS = {"scr": lambda classes: 4, "pcr": lambda classes: 4 * classes}


@functools.cache
def with_box_head(network: type[layers.Network]) -> type[layers.Network]:
    """Adds a box head to a network's class: a dense layer `box_fc` on the classifier's input.

    The new class has the additional field `box_head`: "scr" or "pcr", a key of `BOX_HEADS`. The
    boxes are the endpoint `box`, f32[N,4] or f32[N,4K], see `jaxcnn.training.optim.losses`. They
    are computed at initialization and when endpoints are requested. Logits and all other variables
    stay the same. Networks without a dense classifier have no box head.

    Args:
      network: class of the network.

    Returns:
      A subclass of `network` with the same name.
    """

    class WithBoxHead(network):  # type: ignore[misc, valid-type]
        box_head: str = "scr"

        def logits(self, features: Array, name: str = "fc", **dense_options: Any) -> Array:
            one_of("box_head", self.box_head, BOX_HEADS)
            if self.num_classes and self.wants_endpoints():
                width = BOX_HEADS[self.box_head](self.num_classes)
                boxes = layers.classifier(width, self.dtype, name="box_fc")(features)
                self.endpoint("box", layers.as_output(boxes))
            return super().logits(features, name, **dense_options)

    WithBoxHead.__name__, WithBoxHead.__qualname__ = network.__name__, network.__qualname__
    return WithBoxHead


# --- fully connected layers ---------------------------------------------------------------------


class WindowDense(nn.Module):
    """Applies a dense layer to every window of a feature map.

    Maps f[N,H,W,C] to f[N,H-window+1,W-window+1,features]. The kernel is that of a dense layer on a
    window flattened in (height, width, channel) order, f32[window*window*C,features].

    Attributes:
      features: number of outputs.
      window: height and width of the windows.
      dtype: type of the computation.
      kernel_init, bias_init: initializers of the parameters.
      output_dtype: type of the outputs; None for `dtype`.
    """

    features: int
    window: int = 1
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    output_dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, height, width, channels = x.shape
        rows = self.window**2 * channels
        kernel = self.param("kernel", self.kernel_init, (rows, self.features), jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        out = self.output_dtype or x.dtype
        if (height, width) == (self.window, self.window):
            y = jnp.matmul(x.reshape(n, rows), kernel, preferred_element_type=out)[:, None, None]
        else:
            kernel = kernel.reshape(self.window, self.window, channels, self.features)
            y = lax.conv_general_dilated(
                x,
                kernel,
                (1, 1),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                preferred_element_type=out,
            )
        return y + bias.astype(out).reshape(1, 1, 1, -1)


class FullyConnectedNetwork(layers.Network):
    """Base class of the networks that end in three fully connected layers, fc6, fc7 and fc8.

    With fc6, these networks take images of one size (or of a few, see `check_size`), unless `dense`
    is set. Inherits the fields of `Network`.

    Attributes:
      dropout: dropout rate at fc6 and fc7.
      dense: apply the fully connected layers at every position of a larger image and average the
        class scores (Sermanet et al. 2014; Simonyan and Zisserman 2015, section 3.2). The
        parameters stay the same. The endpoint `score_map` is f32[N,h,w,num_classes], and
        `pre_logits` is the average of fc7 over positions.
      fc_width: number of units of fc6 and of fc7; 0 leaves both out. The classifier then reads the
        averages of the last map over its pixels, and images may have any size from `min_size` on.
    """

    dropout: float = 0.5
    dense: bool = False
    fc_width: int = 4096

    def check_size(self, images: Array, *sizes: int) -> None:
        """Checks the height and width of the images.

        Args:
          images: f[N,H,W,C].
          *sizes: the sizes that the fully connected layers fit, largest first. With `dense`, images
            of at least sizes[0] are accepted as well.

        Raises:
          ValueError: the images have another size.
        """
        height, width = images.shape[1:3]
        if not self.fc_width or (height, width) in [(n, n) for n in sizes]:
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
        fc7_width: int | None = None,
    ) -> Array:
        """Applies the fully connected layers.

        Args:
          x: feature map f[N,H,W,C].
          window: height and width of the map that fc6 spans.
          train: whether the network is training.
          fc_init: initializer of the kernels.
          fc_bias: initializer of the biases of fc6 and fc7.
          fc8_init: initializer of fc8's kernel; None for `fc_init`.
          dropout_first: apply dropout before fc6 and fc7, as torchvision's AlexNet does, instead of
            after them.
          fc7_width: number of units of fc7; None for `fc_width`.

        Returns:
          Logits f32[N,num_classes], or features f32[N,fc7_width] if `num_classes` is 0.

        Raises:
          ValueError: the feature map does not have the size of fc6's window or, with `dense`, is
            smaller; or `dense` is set without fc6.
        """
        if not self.fc_width:
            require(not self.dense, "dense", self.dense, "False with fc_width=0")
            return self.logits(
                layers.global_avg_pool(x), name="fc8", kernel_init=fc8_init or fc_init
            )
        height, width = x.shape[1:3]
        fits = min(height, width) >= window if self.dense else height == width == window
        if not fits:
            raise ValueError(
                f"the last feature map is {height}x{width}, but fc6 spans {window}x{window}; the "
                f"options of {type(self).__name__} (stages, kernels, padding) must keep that size"
            )
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        sizes = (("fc6", window, self.fc_width), ("fc7", 1, fc7_width or self.fc_width))
        for name, span, width in sizes:
            if dropout_first:
                x = drop(name=f"{name}_dropout")(x)
            x = WindowDense(width, span, self.dtype, fc_init, fc_bias, name=name)(x)
            x = nn.relu(x)
            if not dropout_first:
                x = drop(name=f"{name}_dropout")(x)
        if not self.dense:
            return self.logits(x[:, 0, 0], name="fc8", kernel_init=fc8_init or fc_init)
        features = self.endpoint("pre_logits", layers.global_avg_pool(x))
        if not self.num_classes:
            return layers.as_output(features)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        init = fc8_init or fc_init
        fc8 = WindowDense(self.num_classes, 1, self.dtype, init, output_dtype=wide, name="fc8")
        scores = self.endpoint("score_map", fc8(x))
        return layers.global_avg_pool(scores)
