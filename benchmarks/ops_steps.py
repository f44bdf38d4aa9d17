"""What each implementation of an operation brings to a whole training step on a CPU.

    python benchmarks/ops_steps.py
    python benchmarks/ops_steps.py --models lenet5,128 resnet18,8,64 --rounds 3

The step of a network as the package compiles it, against the same step with one implementation of
`jaxcnn.ops` replaced by the plain one, and with all of them. A ratio is that step's time over the
package's: above 1 is what the implementation saves. Writes results/ops_steps.json.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import harness
import jax

from jaxcnn import ops
from jaxcnn.analysis import bench
from jaxcnn.ops import conv_cpu, normalization, pooling

# Network, batch and image size.
MODELS = (
    *("lenet5,128,32", "resnet20_cifar,128,32", "alexnet,16,227", "vgg11_bn,4,224"),
    *("googlenet,8,224", "bn_inception,8,224", "resnet18,16,224", "resnet50,8,224"),
    *("inception_v3,4,299", "resnext50_32x4d,8,224", "se_resnet50,8,224", "dpn92,4,224"),
)


def without(*names: str) -> Callable[[], Any]:
    """A context in which XLA's own convolution takes the place of these implementations."""
    chosen = conv_cpu.choose

    def choose(x, w, **options):
        found = chosen(x, w, **options)
        return conv_cpu.PLAIN if found.name in names else found

    return lambda: mock.patch.object(conv_cpu, "choose", choose)


def plain(module: Any) -> Callable[[], Any]:
    """A context in which the operations of a module are the plain ones."""
    return lambda: mock.patch.object(module, "reference_requested", lambda: True)


CONTENDERS: dict[str, Callable[[], Any]] = {
    "all optimizations": contextlib.nullcontext,
    "plain 1x1": without("pointwise"),
    "plain few channels": without("folded"),
    "plain 3x3": without("winograd"),
    "plain groups": without("blocks", "patches"),
    "plain pooling": plain(pooling),
    "plain normalization": plain(normalization),
    "all plain": lambda: ops.use("reference"),
}


def make_run(name: str, batch: int, size: int, context: Any) -> Callable[[], Any]:
    """A function that makes one training step, compiled within the context."""
    with context:
        call, (state, data, key) = bench.make_step(
            name, train=True, batch=batch, dtype="float32", image_size=size
        )
        compiled = call.lower(state, data, key).compile()
    held = {"state": state}

    def run():
        held["state"], out = compiled(held["state"], data, key)
        return out

    return run


def uses(name: str, batch: int, size: int) -> set[str]:
    """The contenders that change anything in this network's step."""
    seen = set()
    chosen = conv_cpu.choose

    def choose(x, w, **options):
        found = chosen(x, w, **options)
        seen.add(found.name)
        return found

    with mock.patch.object(conv_cpu, "choose", choose):
        call, arguments = bench.make_step(
            name, train=True, batch=batch, dtype="float32", image_size=size
        )
        text = str(call.trace(*arguments).jaxpr)
        call.lower(*arguments)
    found = {"all optimizations", "all plain"}
    kinds = {"pointwise": "plain 1x1", "folded": "plain few channels", "winograd": "plain 3x3",
             "blocks": "plain groups", "patches": "plain groups"}  # fmt: skip
    found |= {kinds[kind] for kind in seen & set(kinds)}
    if "max_pool" in text or "reduce_window_sum" in text:
        found.add("plain pooling")
    if "normalize" in text or "rsqrt" in text:
        found.add("plain normalization")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="NETWORK,BATCH,SIZE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a contender, each round")
    args = parser.parse_args()
    if jax.default_backend() != "cpu":
        raise SystemExit("these implementations are a CPU's")
    rows = {}
    for given in args.models:
        name, batch, size = given.split(",")
        case = name, int(batch), int(size)
        names = [n for n in CONTENDERS if n in uses(*case)]
        runs = {n: make_run(*case, CONTENDERS[n]()) for n in names}
        times = harness.alternate(runs, rounds=args.rounds, seconds=args.seconds)
        rows[given] = harness.ratios(times, "all optimizations")
        harness.show(f"{name}, batch {batch}, {size} pixels", rows[given])
        harness.save("ops_steps", rows)


if __name__ == "__main__":
    main()
