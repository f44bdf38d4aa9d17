"""Networks as lists of layers with random weights, and what they compute, in plain JAX.

A network is built call by call, in channels-first layout. It can be written in the formats of other
frameworks, see `foreign_files`, and its outputs are those to which the network that is read from
such a file is compared.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclasses.dataclass
class Record:
    kind: str
    name: str
    inputs: tuple[str, ...]
    options: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Net:
    """Records layers and, as functions of the images, what they compute."""

    def __init__(self, channels=3, size=64, seed=0):
        self.random = np.random.default_rng(seed)
        self.channels = {"data": channels}
        self.size = size
        self.records = []

    def _add(self, kind, inputs, channels, name=None, arrays=None, **options):
        name = name or f"{kind}{len(self.records)}"
        given = tuple(inputs)
        self.records.append(Record(kind, name, given, options, arrays or {}))
        self.channels[name] = channels
        return name

    def _normal(self, *shape, fan_in=1):
        return (self.random.standard_normal(shape) * (1.5 / fan_in) ** 0.5).astype(np.float32)

    def conv(self, x, out, kernel=1, stride=1, pad=0, groups=1, bias=False, name=None):
        inputs = self.channels[x] // groups
        arrays = {"kernel": self._normal(out, inputs, kernel, kernel, fan_in=inputs * kernel**2)}
        if bias:
            arrays["bias"] = self._normal(out)
        options = {"stride": stride, "pad": pad, "groups": groups, "kernel": kernel}
        return self._add("conv", [x], out, name, arrays, **options)

    def dense(self, x, out, rows=None, name=None):
        rows = rows or self.channels[x]
        arrays = {"kernel": self._normal(out, rows, fan_in=rows), "bias": self._normal(out)}
        return self._add("dense", [x], out, name, arrays)

    def norm(self, x, epsilon=1e-5, name=None, gamma=True):
        count = self.channels[x]
        positive = self.random.uniform(0.5, 1.5, (2, count)).astype(np.float32)
        arrays = {"mean": self._normal(count), "var": positive[0], "bias": self._normal(count)}
        if gamma:
            arrays["scale"] = positive[1]
        return self._add("norm", [x], count, name, arrays, epsilon=epsilon)

    def scaled(self, x, scale, shift=0.0):
        """Numbers by which all channels are multiplied, and that are added to them."""
        return self._add("scaled", [x], self.channels[x], scale=scale, shift=shift)

    def relu(self, x):
        return self._add("relu", [x], self.channels[x])

    def sigmoid(self, x):
        return self._add("sigmoid", [x], self.channels[x])

    def pool(self, x, kind, kernel, stride, pad=0, after=None, zeros=False, name=None):
        """`after` is the padding behind the last row and column, by default `pad`."""
        options = {"kernel": kernel, "stride": stride, "pad": pad, "zeros": zeros}
        options["after"] = pad if after is None else after
        return self._add(f"{kind}_pool", [x], self.channels[x], name, **options)

    def global_pool(self, x):
        return self._add("global", [x], self.channels[x])

    def lrn(self, x, k=1.0, alpha=1e-4):
        return self._add("lrn", [x], self.channels[x], k=k, alpha=alpha)

    def concat(self, *xs):
        return self._add("concat", xs, sum(self.channels[x] for x in xs))

    def add(self, *xs):
        return self._add("add", xs, self.channels[xs[0]])

    def gate(self, x, gates):
        return self._add("gate", [x, gates], self.channels[x])

    def outputs(self, images, *names, through=None):
        """The outputs of layers for images [N,C,H,W], of the first `through` layers."""
        values = {"data": images}
        for record in self.records[:through]:
            given = [values[name] for name in record.inputs]
            values[record.name] = _COMPUTED[record.kind](record, *given)
        return [values[name] for name in names]


def _conv(record, x):
    options = record.options
    y = lax.conv_general_dilated(
        x,
        record.arrays["kernel"],
        (options["stride"],) * 2,
        [(options["pad"],) * 2] * 2,
        feature_group_count=options["groups"],
    )
    bias = record.arrays.get("bias")
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _dense(record, x):
    x = x.reshape(x.shape[0], -1)
    return x @ record.arrays["kernel"].T + record.arrays["bias"].reshape(1, -1)


def _norm(record, x):
    a = {key: value.reshape(1, -1, 1, 1) for key, value in record.arrays.items()}
    y = (x - a["mean"]) / jnp.sqrt(a["var"] + record.options["epsilon"])
    return y * a.get("scale", 1) + a["bias"]


def _pool(record, x):
    o = record.options
    window, stride = (1, 1, o["kernel"], o["kernel"]), (1, 1, o["stride"], o["stride"])
    pads = [(0, 0), (0, 0), (o["pad"], o["after"]), (o["pad"], o["after"])]
    if record.kind == "max_pool":
        if o["zeros"]:
            x, pads = jnp.pad(x, pads), [(0, 0)] * 4
        return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, pads)
    return lax.reduce_window(x, 0.0, lax.add, window, stride, pads) / o["kernel"] ** 2


def _lrn(record, x):
    squares = lax.reduce_window(
        x * x, 0.0, lax.add, (1, 5, 1, 1), (1, 1, 1, 1), [(0, 0), (2, 2), (0, 0), (0, 0)]
    )
    return x / (record.options["k"] + record.options["alpha"] / 5 * squares) ** 0.75


_COMPUTED = {
    "conv": _conv,
    "dense": _dense,
    "norm": _norm,
    "scaled": lambda record, x: record.options["scale"] * x + record.options["shift"],
    "relu": lambda record, x: jnp.maximum(x, 0),
    "sigmoid": lambda record, x: jax.nn.sigmoid(x),
    "max_pool": _pool,
    "avg_pool": _pool,
    "global": lambda record, x: x.mean((2, 3), keepdims=True),
    "lrn": _lrn,
    "concat": lambda record, *xs: jnp.concatenate(xs, 1),
    "add": lambda record, *xs: sum(xs[1:], xs[0]),
    "gate": lambda record, x, gates: x * gates.reshape(*gates.shape[:2], 1, 1),
}


# --- networks -----------------------------------------------------------------------------------


def resnet(stride_on="1x1", bias=False, se=False, epsilon=1e-5, shortcut_last=False, first=None):
    """Stem of 8 channels and stages of 2 and 1 bottlenecks of width 4, for 7 classes.

    `shortcut_last` defines the projection after the branch, as PyTorch does. `first(net)` adds the
    layers before the stem.
    """
    net = Net()
    x = first(net) if first else "data"
    x = net.relu(net.norm(net.conv(x, 8, 7, 2, 3, bias=bias, name="conv1"), epsilon))
    x = net.pool(x, "max", 3, 2, 0, after=1, name="pool1")
    for width, blocks in ((4, 2), (8, 1)):
        for i in range(blocks):
            stride = 2 if width == 8 and i == 0 else 1
            first, second = (stride, 1) if stride_on == "1x1" else (1, stride)

            def project(x=x, width=width, stride=stride):
                return net.norm(net.conv(x, 4 * width, 1, stride, bias=bias), epsilon)

            shortcut = None if shortcut_last or i else project()
            y = net.relu(net.norm(net.conv(x, width, 1, first, bias=bias), epsilon))
            y = net.relu(net.norm(net.conv(y, width, 3, second, 1, bias=bias), epsilon))
            y = net.norm(net.conv(y, 4 * width, 1, bias=bias), epsilon)
            if se:
                gates = net.relu(net.dense(net.global_pool(y), width // 4))
                y = net.gate(y, net.sigmoid(net.dense(gates, 4 * width)))
            shortcut = x if i else shortcut or project()
            x = net.relu(net.add(y, shortcut) if shortcut_last else net.add(shortcut, y))
    return net, (net.dense(net.global_pool(x), 7, name="fc"),)


RESNET = {"width": 4, "stem": (8,), "blocks": (2, 1)}


def alexnet(pool_first):
    """CaffeNet or AlexNet of 8 and 16 channels, for 5 classes."""
    net = Net(size=227)
    x = "data"
    for i, (out, kernel, stride, pad, groups) in enumerate(
        ((8, 11, 4, 0, 1), (16, 5, 1, 2, 2), (8, 3, 1, 1, 1), (8, 3, 1, 1, 2), (8, 3, 1, 1, 2)), 1
    ):
        x = net.relu(net.conv(x, out, kernel, stride, pad, groups, bias=True, name=f"conv{i}"))
        if i < 3:
            x = (
                net.lrn(net.pool(x, "max", 3, 2))
                if pool_first
                else net.pool(net.lrn(x), "max", 3, 2)
            )
    x = net.pool(x, "max", 3, 2)
    x = net.relu(net.dense(x, 12, rows=8 * 36, name="fc6"))
    x = net.relu(net.dense(x, 12, name="fc7"))
    return net, (net.dense(x, 5, name="fc8"),)


def zfnet_of_the_zoo():
    """The ONNX model zoo's ZFNet-512 with narrow layers, for 5 classes."""
    net = Net(size=224)

    def conv(x, out, kernel, stride=1, pad=0):
        return net.relu(net.conv(x, out, kernel, stride, pad, bias=True))

    x = net.pool(net.lrn(conv("data", 4, 7, 2), k=2.0, alpha=5e-4), "max", 3, 2)
    x = net.pool(net.lrn(conv(x, 8, 5, 2), k=2.0, alpha=5e-4), "max", 3, 2)
    x = net.pool(conv(conv(conv(x, 6, 3, 1, 1), 6, 3, 1, 1), 8, 3, 1, 1), "max", 2, 2)
    x = net.relu(net.dense(net.relu(net.dense(x, 16, rows=8 * 36)), 4))
    return net, (net.dense(x, 5),)


ZFNET = {"widths": (4, 8, 6, 0, 8)}  # the zoo's layer 4 has the width of layer 3


ALEXNET = {"widths": (8, 16, 8, 8, 8), "fc_width": 12}


def preact(width=4):
    """Pre-activation network: stages of 2 and 1 bottlenecks, for 7 classes."""
    net = Net()
    x = net.pool(net.conv("data", 8, 7, 2, 3), "max", 3, 2, 1)
    for scale, blocks in ((1, 2), (2, 1)):
        for i in range(blocks):
            out, stride = 4 * width * scale, 2 if scale == 2 else 1
            a = net.relu(net.norm(x))
            y = net.relu(net.norm(net.conv(a, width * scale, 1)))
            y = net.relu(net.norm(net.conv(y, width * scale, 3, stride, 1)))
            y = net.conv(y, out, 1)
            x = net.add(y, x if i else net.conv(a, out, 1, stride))
    return net, (net.dense(net.global_pool(net.relu(net.norm(x))), 7, name="fc"),)


def keras_preact():
    """Keras' form: biases, zeros around the first pooling, strides in the last block of a stage."""
    net = Net()
    x = net.pool(net.conv("data", 8, 7, 2, 3, bias=True), "max", 3, 2, 1, zeros=True)
    for width in (4, 8):
        for i in range(2):
            stride = 2 if width == 4 and i else 1
            a = net.relu(net.norm(x, 1.001e-5))
            shortcut = None if i else net.conv(a, 4 * width, 1, bias=True)
            y = net.relu(net.norm(net.conv(a, width, 1), 1.001e-5))
            y = net.relu(net.norm(net.conv(y, width, 3, stride, 1), 1.001e-5))
            if i:
                shortcut = net.pool(x, "max", 1, 2) if stride == 2 else x
            x = net.add(shortcut, net.conv(y, 4 * width, 1, bias=True))
    x = net.global_pool(net.relu(net.norm(x, 1.001e-5)))
    return net, (net.dense(x, 7, name="predictions"),)


PREACT = {"width": 4, "stem": 8, "blocks": (2, 1)}


def googlenet(width=0.125):
    """GoogLeNet with both auxiliary heads, for 7 classes; its layers have the names of ours."""
    net, heads = Net(size=224), []

    def unit(x, out, kernel, name, stride=1):
        pad = (kernel - 1) // 2
        return net.relu(net.conv(x, out, kernel, stride, pad, bias=True, name=name))

    def head(x, number):
        x = unit(net.pool(x, "avg", 5, 3), 128, 1, f"aux{number}_head/conv/conv")
        x = net.relu(net.dense(x, 1024, rows=2048, name=f"aux{number}_head/fc1"))
        heads.append(net.dense(x, 7, name=f"aux{number}_head/fc2"))

    x = net.lrn(net.pool(unit("data", 64, 7, "conv1/conv", 2), "max", 3, 2, after=1))
    x = net.lrn(unit(unit(x, 64, 1, "conv2/conv"), 192, 3, "conv3/conv"))
    x = net.pool(x, "max", 3, 2, after=1)
    for name, row in ROWS.items():
        one, reduce3, three, reduce5, five, projection = (round(width * n) for n in row)
        branch = f"inception{name}/branch{{}}_conv{{}}/conv".format
        x = net.concat(
            unit(x, one, 1, branch(1, 1)),
            unit(unit(x, reduce3, 1, branch(2, 1)), three, 3, branch(2, 2)),
            unit(unit(x, reduce5, 1, branch(3, 1)), five, 5, branch(3, 2)),
            unit(net.pool(x, "max", 3, 1, 1), projection, 1, branch(4, 1)),
        )
        if name in ("4a", "4d"):
            head(x, 1 if name == "4a" else 2)
        elif name in ("3b", "4e"):
            x = net.pool(x, "max", 3, 2, after=1)
    return net, (net.dense(net.global_pool(x), 7, name="fc"), *heads)


# Table 1 of the paper.
ROWS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
