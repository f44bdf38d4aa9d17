"""The form of an operation that the package uses against the usual one, each alone, on a CPU.

    python benchmarks/forms.py
    python benchmarks/forms.py --only pool norm

pool: max and average pooling. norm: response normalization. batch_norm: over rows and over three
axes. conv: 3x3 and 1x1 convolutions. All forward and with every gradient. scan: a training step of
LeNet-5 in a jitted scan and by itself. A ratio is the usual form's time over ours. Writes
results/forms.json.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcnn import create_model, layers, ops
from jaxcnn.reporting.tables import text_table
from jaxcnn.runtime.compilation import jit
from jaxcnn.training.state import create_state
from jaxcnn.training.step import make_train_step, multi_step

# Shape, window, stride, padding: LeNet-5, VGG-16, AlexNet, ResNet, GoogLeNet.
POOLS = [
    ((128, 28, 28, 6), 2, 2, 0),
    ((4, 224, 224, 64), 2, 2, 0),
    ((32, 55, 55, 96), 3, 2, 0),
    ((16, 112, 112, 64), 3, 2, 1),
    ((8, 28, 28, 192), 3, 1, 1),
]
AVERAGES = [((8, 35, 35, 256), 3, 1, 1), ((8, 17, 17, 768), 3, 1, 1)]  # Inception-v3
NORMS = [(32, 55, 55, 96), (32, 27, 27, 256)]
BATCH_NORMS = [(128, 32, 32, 16), (16, 56, 56, 64)]
# Shape, channels that come out, kernel, stride: ResNet-18's second to fourth stage, VGG-16's third
# to fifth block, GoogLeNet's third layer; ResNet-50, GoogLeNet, DPN-92.
CONVS = [
    ((16, 28, 28, 128), 128, 3, 1),
    ((16, 14, 14, 256), 256, 3, 1),
    ((16, 7, 7, 512), 512, 3, 1),
    ((4, 56, 56, 256), 256, 3, 1),
    ((4, 28, 28, 512), 512, 3, 1),
    ((4, 14, 14, 512), 512, 3, 1),
    ((16, 56, 56, 64), 192, 3, 1),
    ((8, 56, 56, 256), 64, 1, 1),
    ((8, 28, 28, 512), 128, 1, 1),
    ((16, 28, 28, 192), 64, 1, 1),
    ((4, 56, 56, 336), 576, 1, 2),
]
SCANNED = 4


def values(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def gradients(function: Callable, *arguments: jax.Array) -> Callable[[], Any]:
    """The compiled forward pass and gradients of `function`, as a function of nothing."""

    def run(*arguments):
        y, pull = jax.vjp(function, *arguments)
        return y, pull(y)

    call = jit(run)
    return lambda: call(*arguments)


def pool() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape, *options in POOLS:
        yield pooled("max", nn.max_pool, ops.max_pool, shape, *options)
    for shape, *options in AVERAGES:
        yield pooled("average", nn.avg_pool, counted_pool, shape, *options)


counted_pool = functools.partial(ops.avg_pool, count_include_pad=True)  # as Flax counts


def pooled(name, usual, ours, shape, window, stride, padding):
    pads = ((padding, padding),) * 2
    forms = {
        "usual": gradients(lambda x: usual(x, (window,) * 2, (stride,) * 2, pads), values(shape)),
        "ours": gradients(lambda x: ours(x, window, stride, padding), values(shape)),
    }
    return f"{name} pooling {window}/{stride}, {shape}", forms


def by_power(x: jax.Array) -> jax.Array:
    """Krizhevsky's formula as it is written."""
    window, pads = (1, 1, 1, 5), ((0, 0), (0, 0), (0, 0), (2, 2))
    squares = lax.reduce_window(x * x, np.float32(0), lax.add, window, (1, 1, 1, 1), pads)
    return x / (2 + 1e-4 * squares) ** 0.75


def norm() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape in NORMS:
        x = values(shape)
        forms = {"usual": by_power, "ours": ops.local_response_norm}
        yield f"response normalization, {shape}", {k: gradients(f, x) for k, f in forms.items()}


def batch_norm() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape in BATCH_NORMS:
        forms = {}
        for name, layer in (("usual", nn.BatchNorm), ("ours", ops.BatchNorm)):
            made = layer(use_running_average=False)
            variables = made.init(jax.random.key(0), values(shape))

            def apply(x, made=made, variables=variables):
                return made.apply(variables, x, mutable=["batch_stats"])[0]

            forms[name] = gradients(apply, values(shape))
        yield f"BatchNorm, {shape}", forms


def conv() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape, features, kernel, stride in CONVS:
        pads = ((kernel // 2, kernel // 2),) * 2
        sizes = (kernel, kernel), (stride, stride), pads
        usual, ours = nn.Conv(features, *sizes, use_bias=False), layers.conv(features, *sizes)
        w = values((kernel, kernel, shape[-1], features))
        yield (
            f"{kernel}x{kernel} convolution, stride {stride}, {shape} to {features}",
            {
                name: gradients(functools.partial(applied, layer), values(shape), w)
                for name, layer in (("usual", usual), ("ours", ours))
            },
        )


def applied(layer: nn.Module, x: jax.Array, w: jax.Array) -> jax.Array:
    return layer.apply({"params": {"kernel": w}}, x)


def scan() -> Iterator[tuple[str, dict[str, Callable]]]:
    model, optimizer, batch = create_model("lenet5"), optax.sgd(0.01, 0.9), 32
    step = make_train_step(model, optimizer)
    one = {"image": values((batch, 32, 32, 1)), "label": jnp.zeros(batch, jnp.int32)}
    several = jax.tree.map(lambda leaf: jnp.stack([leaf] * SCANNED), one)
    key = jax.random.key(0)
    state = create_state(model, optimizer, key, (1, 32, 32, 1))
    single, scanned = jit(step), jit(multi_step(step, SCANNED))

    def in_turn():
        now = state
        for _ in range(SCANNED):
            now, out = single(now, one, key)
        return out

    forms = {"usual": lambda: scanned(state, several, key)[1], "ours": in_turn}
    yield f"{SCANNED} steps of LeNet-5, batch {batch}: in a scan, one by one", forms


PARTS = {"pool": pool, "norm": norm, "batch_norm": batch_norm, "conv": conv, "scan": scan}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a form, each round")
    args = parser.parse_args()
    if jax.default_backend() != "cpu":
        raise SystemExit("these forms are for a CPU")
    rows, lines = [], []
    for part in args.only:
        for name, forms in PARTS[part]():
            times = harness.alternate(forms, rounds=args.rounds, seconds=args.seconds)
            row = {"operation": name} | harness.ratios(times, "ours")
            rows.append(row)
            times_ms = [f"{1e3 * row[form]['seconds']:.2f}" for form in ("usual", "ours")]
            lines.append([name, *times_ms, f"{row['usual']['ratio']:.2f}"])
    print(text_table(["operation", "usual ms", "ours ms", "ratio"], lines))
    if set(args.only) == set(PARTS):
        print(f"written to {harness.save('forms', rows)}")


if __name__ == "__main__":
    main()
