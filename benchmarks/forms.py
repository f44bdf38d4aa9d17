"""The form of an operation that the package uses against the usual one, each alone, on a CPU.

    python benchmarks/forms.py
    python benchmarks/forms.py --only pool norm

pool: gradient of max pooling. norm: response normalisation and its gradient. batch_norm: over rows
and over three axes, with the gradient. conv: 3x3 convolution of many channels and both gradients.
scan: a training step of LeNet-5 in a jitted scan and by itself. A ratio is the usual form's time
over ours. Writes results/forms.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcnn import create_model, operations, winograd
from jaxcnn.analysis.tables import text_table
from jaxcnn.batch_norm import BatchNorm
from jaxcnn.training.compiling import jit
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
NORMS = [(32, 55, 55, 96), (32, 27, 27, 256)]
BATCH_NORMS = [(128, 32, 32, 16), (16, 56, 56, 64)]
# As many channels come out: ResNet-18's second to fourth stage, VGG-16's third to fifth block.
CONVS = [
    (16, 28, 28, 128),
    (16, 14, 14, 256),
    (16, 7, 7, 512),
    (4, 56, 56, 256),
    (4, 28, 28, 512),
    (4, 14, 14, 512),
]
SCANNED = 4


def values(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def gradient(function: Callable, x: jax.Array) -> Callable[[], Any]:
    """The compiled forward and backward pass of `function(x)`, as a function of nothing."""
    g = jnp.ones_like(jax.eval_shape(function, x))
    call = jit(lambda x, g: jax.vjp(function, x)[1](g)[0])
    return lambda: call(x, g)


def pool() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape, window, stride, padding in POOLS:
        pads = ((padding, padding),) * 2
        yield (
            f"max pooling {window}/{stride}, {shape}",
            {
                "usual": gradient(
                    lambda x, w=window, s=stride, p=pads: nn.max_pool(x, (w, w), (s, s), p),
                    values(shape),
                ),
                "ours": gradient(
                    lambda x, w=window, s=stride, p=padding: operations.max_pool(x, w, s, p),
                    values(shape),
                ),
            },
        )


def by_power(x: jax.Array) -> jax.Array:
    """Krizhevsky's formula as it is written."""
    window, pads = (1, 1, 1, 5), ((0, 0), (0, 0), (0, 0), (2, 2))
    squares = lax.reduce_window(x * x, np.float32(0), lax.add, window, (1, 1, 1, 1), pads)
    return x / (2 + 1e-4 * squares) ** 0.75


def norm() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape in NORMS:
        x = values(shape)
        forms = {"usual": by_power, "ours": operations.local_response_norm}
        yield f"response normalisation, {shape}", {k: gradient(f, x) for k, f in forms.items()}


def batch_norm() -> Iterator[tuple[str, dict[str, Callable]]]:
    for shape in BATCH_NORMS:
        forms = {}
        for name, layer in (("usual", nn.BatchNorm), ("ours", BatchNorm)):
            made = layer(use_running_average=False)
            variables = made.init(jax.random.key(0), values(shape))

            def apply(x, made=made, variables=variables):
                return made.apply(variables, x, mutable=["batch_stats"])[0]

            forms[name] = gradient(apply, values(shape))
        yield f"BatchNorm, {shape}", forms


def conv() -> Iterator[tuple[str, dict[str, Callable]]]:
    pads = ((1, 1), (1, 1))

    def usual(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=numbers)

    for shape in CONVS:
        w = values((3, 3, shape[-1], shape[-1]))
        forms = {"usual": usual, "ours": lambda x, w: winograd.conv3x3(x, w, pads)}
        yield (
            f"3x3 convolution, {shape}",
            {name: both_gradients(form, values(shape), w) for name, form in forms.items()},
        )


def both_gradients(function: Callable, x: jax.Array, w: jax.Array) -> Callable[[], Any]:
    """The compiled forward pass and the gradients of `function(x, w)` by x and by w."""

    def run(x, w):
        y, pull = jax.vjp(function, x, w)
        return y, pull(y)

    call = jit(run)
    return lambda: call(x, w)


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
