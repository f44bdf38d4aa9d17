"""LeNet-5.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), section II-B, figure 2 and table I.

`lenet5_1998` is the paper's network, `lenet5_modern` the network that is usually drawn under its
name, and `lenet_caffe` the 20-50-500 network of Caffe's example, which shares only the name.

The paper shows the 7x12 bitmaps of its output units in a figure but does not print their values.
`DIGITS` is our drawing of the ten digits on that grid. The logits of `lenet5_1998` are the negated
outputs of the paper's radial basis function units, so that the largest logit wins, as in every
other network.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnn import layers, ops
from jaxcnn._checks import one_of, shown

PAPER = (
    "LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition"
)
YEAR = 1998

# Table I: the maps of S2 that each map of C3 sees.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

DIGITS = """
.......  .......  .......  .......  .......
..###..  ...#...  .#####.  .#####.  .....#.
.#...#.  ..##...  #.....#  #.....#  ....##.
#.....#  .#.#...  ......#  ......#  ...#.#.
#.....#  ...#...  ......#  ......#  ..#..#.
#.....#  ...#...  .....#.  ..####.  .#...#.
#.....#  ...#...  ....#..  ......#  #....#.
#.....#  ...#...  ...#...  ......#  #######
#.....#  ...#...  ..#....  ......#  .....#.
.#...#.  ...#...  .#.....  #.....#  .....#.
..###..  .#####.  #######  .#####.  .....#.
.......  .......  .......  .......  .......

.......  .......  .......  .......  .......
#######  ..####.  #######  .#####.  .#####.
#......  .#.....  ......#  #.....#  #.....#
#......  #......  .....#.  #.....#  #.....#
#......  #......  .....#.  #.....#  #.....#
######.  #.####.  ....#..  .#####.  .######
......#  ##....#  ....#..  #.....#  ......#
......#  #.....#  ...#...  #.....#  ......#
......#  #.....#  ...#...  #.....#  ......#
#.....#  #.....#  ..#....  #.....#  .....#.
.#####.  .#####.  ..#....  .#####.  .####..
.......  .......  .......  .......  .......
"""


def digit_bitmaps() -> np.ndarray:
    """Returns the fixed weights of the radial units, f32[10,84].

    A weight is 1 where `DIGITS` has ink, and -1 elsewhere.
    """
    bands = [[line.split() for line in band.splitlines()] for band in DIGITS.strip().split("\n\n")]
    digits = ["".join(rows) for band in bands for rows in zip(*band)]
    return np.array([[1.0 if dot == "#" else -1.0 for dot in d] for d in digits], np.float32)


def squash(x: Array) -> Array:
    """Computes 1.7159 tanh(2x/3), for which f(1) = 1 and f(-1) = -1 (the paper's appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def _uniform(fan_in: int | np.ndarray) -> nn.initializers.Initializer:
    """U(-2.4/fan_in, 2.4/fan_in), for kernels and biases; an array has one fan-in per output."""
    bound = 2.4 / np.asarray(fan_in, np.float32)

    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        bounds = jnp.broadcast_to(bound, shape).astype(dtype)
        return jax.random.uniform(key, shape, dtype, -1, 1) * bounds

    return init


class Subsample(nn.Module):
    """Sums 2x2 windows and applies a scale and a bias per map, f[N,H,W,C] to f[N,H/2,W/2,C].

    The parameters are `scale` f32[C] and `bias` f32[C]. The squashing function is not included.

    Attributes:
      dtype: type of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        maps = x.shape[-1]
        scale = self.param("scale", _uniform(4), (maps,)).astype(self.dtype)
        bias = self.param("bias", _uniform(4), (maps,)).astype(self.dtype)
        total = 4 * layers.avg_pool(x, 2, 2)
        return total * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


# The 60 connections of table I, ordered by S2 map: ten for each.
# They are int32, since JAX keeps the indices of the first trace even if x64 is enabled later.
_PAIRS = sorted((s2, c3) for c3, seen in enumerate(C3_TABLE) for s2 in seen)
_S2, _C3 = np.array(_PAIRS, np.int32).T
_BY_C3 = np.argsort(_C3, kind="stable").astype(np.int32)


class TableConv(nn.Module):
    """Layer C3: a 5x5 convolution with only the connections of table I, f[N,H,W,6] to f[N,h,w,16].

    The output is four rows and columns smaller. The parameters are `kernel` f32[5,5,60], ordered by
    S2 map and then by C3 map, and `bias` f32[16].

    Attributes:
      dtype: type of the computation.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = np.array([25 * len(seen) for seen in C3_TABLE])
        kernel = self.param("kernel", _uniform(fan_in[_C3]), (5, 5, 60)).astype(self.dtype)
        bias = self.param("bias", _uniform(fan_in), (16,)).astype(self.dtype)
        return _table_conv(x, kernel) + bias.reshape(1, 1, 1, -1)


def _table_conv(x: Array, kernel: Array) -> Array:
    """One convolution per connection, summed for each C3 map.

    On a CPU: a dense convolution whose kernel is zero where the table has no connection.
    """
    return ops.by_platform(_by_connection, x, kernel, cpu=_dense)


def _dense(x: Array, kernel: Array) -> Array:
    return ops.conv(x, jnp.zeros((5, 5, 6, 16), kernel.dtype).at[:, :, _S2, _C3].set(kernel))


def _by_connection(x: Array, kernel: Array) -> Array:
    y = ops.conv(x, kernel[:, :, None], groups=6)[..., _BY_C3]
    parts = []
    for maps, seen in ((6, 3), (9, 4), (1, 6)):
        part, y = y[..., : maps * seen], y[..., maps * seen :]
        parts.append(part.reshape(*part.shape[:-1], maps, seen).sum(-1))
    return jnp.concatenate(parts, axis=-1)


class LeNet5(layers.Network):
    """The paper's network: C1 - S2 - C3 - S4 - C5 - F6 - radial units.

    All layers up to F6 end in the squashing function. The images are f32[N,32,32,1], or
    f32[N,28,28,1], which C1 pads by 2. The paper's images have a background of -0.1 and ink of
    1.175.

    Inherits the fields of `Network`.

    Attributes:
      head: "rbf" for the paper's radial units, whose centers are fixed digits: logits are the
        negative squared distances, and `num_classes` is 10; "softmax" for a trained dense layer.
      dense_c3: connect every map of C3 to every map of S2 (60,900 parameters instead of 60,000).
    """

    num_classes: int = 10
    channels: int = 1
    min_size: int = 28
    head: str = "rbf"
    dense_c3: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        padding = _lenet5_padding(x)
        one_of("head", self.head, ("rbf", "softmax"))
        if self.head == "rbf" and self.num_classes not in (0, 10):
            raise ValueError(
                f"num_classes is {self.num_classes}; LeNet-5's radial units are the 10 digits; "
                "head='softmax' takes any number"
            )

        def init(fan_in: int) -> dict[str, Any]:
            return {"kernel_init": _uniform(fan_in), "bias_init": _uniform(fan_in)}

        conv = self.conv(bias=True)
        subsample = functools.partial(Subsample, dtype=self.dtype)
        x = squash(conv(6, 5, 1, padding, name="c1", **init(25))(x))  # 28x28x6
        x = self.endpoint("stage1", squash(subsample(name="s2")(x)))  # 14x14x6
        if self.dense_c3:
            x = conv(16, 5, name="c3", **init(150))(x)  # 10x10x16
        else:
            x = TableConv(self.dtype, name="c3")(x)  # 10x10x16
        x = squash(subsample(name="s4")(squash(x)))  # 5x5x16
        x = self.endpoint("stage2", x)
        x = squash(conv(120, 5, name="c5", **init(400))(x))  # 1x1x120
        x = self.endpoint("stage3", x[:, 0, 0])
        x = squash(nn.Dense(84, dtype=self.dtype, name="f6", **init(120))(x))
        if self.head == "softmax" or not self.num_classes:
            return self.logits(x, name="output", **init(84))
        x = layers.as_output(self.endpoint("pre_logits", x))
        centers = jnp.asarray(digit_bitmaps(), x.dtype)
        return -jnp.sum((x[:, None] - centers[None]) ** 2, axis=-1)


def mse_loss(logits: Array, labels: Array) -> Array:
    """Computes the paper's maximum likelihood loss (section II-C): the true class's radial output.

    Training minimizes its mean over the examples.

    Args:
      logits: f32[N,10].
      labels: i32[N].

    Returns:
      f32[N].

    Raises:
      ValueError: the labels are soft targets, as mixup and cutmix make them.
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels are {shown(labels)}; LeNet-5's losses take i32[N] and so neither mixup nor "
            "cutmix"
        )
    return -jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]


def map_loss(logits: Array, labels: Array, *, j: float = 0.1) -> Array:
    """Computes the paper's MAP loss (section II-C): `mse_loss` + log(exp(-j) + sum_i exp(-y_i)).

    The second term pushes the outputs away from the centers of the wrong classes; exp(-j) is a
    rubbish class that keeps this push bounded.

    Args:
      logits: f32[N,10].
      labels: i32[N].
      j: positive constant. The paper gives no value; 0.1 is our choice.

    Returns:
      f32[N].

    Raises:
      ValueError: j is not positive, or the labels are soft targets.
    """
    if j <= 0:
        raise ValueError(f"j is {j}; it must be positive")
    rubbish = jnp.full_like(logits[:, :1], -j)
    others = jax.nn.logsumexp(jnp.concatenate([logits, rubbish], axis=-1), axis=-1)
    return mse_loss(logits, labels) + others


_ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh}
_POOLS = {"max": layers.max_pool, "avg": layers.avg_pool}


class LeNet5Modern(layers.Network):
    """Two convolutions, each followed by pooling, and three dense layers.

    The images are f32[N,32,32,1], or f32[N,28,28,1], which the first convolution pads by 2.

    Inherits the fields of `Network`.

    Attributes:
      act: activation function, "relu" or "tanh".
      pool: pooling, "max" or "avg".
    """

    num_classes: int = 10
    channels: int = 1
    min_size: int = 28
    act: str = "relu"
    pool: str = "max"

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        padding = _lenet5_padding(x)
        act = _ACTIVATIONS[one_of("act", self.act, _ACTIVATIONS)]
        pool = _POOLS[one_of("pool", self.pool, _POOLS)]
        conv = self.conv(bias=True, kernel_init=layers.he_fan_in)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=layers.he_fan_in)
        x = act(conv(6, 5, padding=padding, name="conv1")(x))  # 28x28x6
        x = self.endpoint("stage1", pool(x, 2, 2))  # 14x14x6
        x = act(conv(16, 5, name="conv2")(x))  # 10x10x16
        x = self.endpoint("stage2", pool(x, 2, 2))  # 5x5x16
        x = x.reshape(x.shape[0], -1)  # 400
        x = act(dense(120, name="fc1")(x))
        x = act(dense(84, name="fc2")(x))
        return self.logits(x, name="fc3")


class LeNetCaffe(layers.Network):
    """Caffe's LeNet: convolutions of 20 and 50 channels with pooling, dense layers of 500 and K.

    The only ReLU follows the first dense layer. The images are f32[N,28,28,1]. Inherits the fields
    of `Network`.
    """

    num_classes: int = 10
    channels: int = 1
    min_size: int = 28

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self.check_images(images)
        if x.shape[1:3] != (28, 28):
            raise ValueError(f"images are {x.shape[1]}x{x.shape[2]}; Caffe's LeNet takes 28x28")
        # Caffe's "xavier": U(-a, a) with a = sqrt(3 / fan_in).
        xavier = nn.initializers.lecun_uniform()
        conv = self.conv(bias=True, kernel_init=xavier)
        x = conv(20, 5, name="conv1")(x)  # 24x24x20
        x = self.endpoint("stage1", layers.max_pool(x, 2, 2))  # 12x12x20
        x = conv(50, 5, name="conv2")(x)  # 8x8x50
        x = self.endpoint("stage2", layers.max_pool(x, 2, 2))  # 4x4x50
        x = x.reshape(x.shape[0], -1)  # 800
        x = nn.relu(nn.Dense(500, dtype=self.dtype, kernel_init=xavier, name="fc1")(x))
        return self.logits(x, name="fc2", kernel_init=xavier)


def _lenet5_padding(images: Array) -> int:
    """Padding of the first convolution: 2 for images of 28x28, 0 for 32x32."""
    height, width = images.shape[1:3]
    sizes = {(32, 32): 0, (28, 28): 2}
    if (height, width) not in sizes:
        raise ValueError(f"images are {height}x{width}; LeNet-5 takes 32x32 or 28x28")
    return sizes[height, width]


VARIANTS = {
    "lenet5_modern": LeNet5Modern,
    "lenet5_1998": LeNet5,
    "lenet_caffe": LeNetCaffe,
}
ALIASES = {"lenet5": "lenet5_modern"}
