"""Lowers every network for a TPU, and compiles some of each family for a slice that is not there.

    python benchmarks/tpu_networks.py                            # all lower; without libtpu
    pip install 'jaxcnn[tpu]'
    python benchmarks/tpu_networks.py --compile --save           # NETWORKS, an hour and a half
    python benchmarks/tpu_networks.py --compile resnet50 vgg_d   # these
    python benchmarks/tpu_networks.py --compile resnet50 --plain --save   # with plain BatchNorm

Training and evaluation steps in bfloat16 with local BatchNorm statistics, on images that are
already there. Temporaries and traffic of a training step are compared with the activations of its
images (`jaxcnn summary`), which a step has to keep: a network that needs many times more than
others of its kind has an operation that does not suit the chip. --plain compiles the training step
with BatchNorm as plain Flax Linen has it, for comparison. With --save, each row is saved as soon as
its network has been compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import time
import traceback
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # of arrays that are not the program's

import harness
import jax
import jax.numpy as jnp
from plain_linen import plain_batch_norm
from tpu_program import traced_steps

import jaxcnn
from jaxcnn.analysis import plan, program_counts
from jaxcnn.analysis.summary import summarize

# Of every family, and of every kind of block.
NETWORKS = (
    "lenet5_1998", "lenet5_modern", "alexnet_2gpu", "zfnet_512", "vgg_d", "vgg_a_lrn", "googlenet",
    "bn_inception", "inception_v3", "inception_resnet_v2", "resnet20_cifar", "plain34", "resnet50",
    "resnet50_v2", "wrn28_10_cifar", "resnext50_32x4d", "se_resnet50", "se_bn_inception", "dpn92",
    "resnext29_8x64d_cifar",
)  # fmt: skip
FILE = "tpu_networks"
KEY = ("name", "form", "on")  # of a row


def traced(name: str, images: int, devices: Any) -> dict[str, Any]:
    """Traces the steps of a network for images of its native size."""
    shape = jaxcnn.model_info(name).known_input_size()
    return traced_steps(jaxcnn.create_model(name, dtype=jnp.bfloat16), images, devices, shape)


def lower_all(names: list[str]) -> None:
    """Lowers networks for a TPU, and ends with an error that names those for which this fails."""
    failed = []
    for name in names:
        began = time.perf_counter()
        try:
            for step in traced(name, 2, jax.devices()[:1]).values():
                step.lower(lowering_platforms=("tpu",))
        except Exception:
            failed.append(name)
            traceback.print_exc()
        print(f"{name:28} {time.perf_counter() - began:6.1f} s", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(names)} do not lower: {', '.join(failed)}")
    print(f"{len(names)} networks lower for a TPU, in training and evaluation")


def compile_one(name: str, images: int, target: plan.Target, plain: bool) -> dict[str, Any]:
    """Compiles the steps of a network; returns what a chip needs for them."""
    form = "plain" if plain else "jaxcnn"
    row: dict[str, Any] = {"name": name, "form": form, "on": target.name, "images": images}
    values = sum(r.activations for r in summarize(name).rows)
    row["activation_bytes"] = 2 * values * images
    with plain_batch_norm() if plain else contextlib.nullcontext():
        steps = traced(name, images, target.devices)
    if plain:
        del steps["evaluate"]
    for step, found in steps.items():
        began = time.perf_counter()
        compiled = found.lower().compile()
        row[step] = dataclasses.asdict(program_counts.count(compiled))
        row[step]["seconds"] = time.perf_counter() - began
    return row


def text(row: dict[str, Any]) -> str:
    """One line of a row."""
    train, kept = row["train"], row["activation_bytes"]
    seconds = sum(row[step]["seconds"] for step in ("train", "evaluate") if step in row)
    return (
        f"{row['name']:24} {row['form']:6} temporaries "
        f"{train['memory']['temporaries'] / kept:5.2f}, traffic "
        f"{train['traffic'] / kept:5.2f} times the activations ({kept / 2**20:,.0f} MiB); "
        f"{train['flops'] / 1e9:,.0f} GFLOP; compiled in {seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks (all; with --compile, NETWORKS)")
    parser.add_argument("--compile", action="store_true", help="compile them, with libtpu")
    parser.add_argument("--on", default="v5e:2x2", help="slice (v5e:2x2)")
    parser.add_argument("--images", type=int, default=32, help="for each chip (32)")
    parser.add_argument("--plain", action="store_true", help="with plain BatchNorm")
    parser.add_argument("--save", action="store_true", help=f"write results/{FILE}.json")
    args = parser.parse_args()
    if (args.save or args.plain) and not args.compile:
        parser.error("--save and --plain are for --compile")
    if not args.compile:
        lower_all(args.names or jaxcnn.list_models())
        return
    target = plan.find_target(args.on)
    path = harness.RESULTS / f"{FILE}.json"
    for name in args.names or NETWORKS:
        row = compile_one(name, args.images, target, args.plain)
        print(text(row), flush=True)
        if args.save:
            rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
            kept = [other for other in rows if any(other[key] != row[key] for key in KEY)]
            harness.save(FILE, [*kept, row])


if __name__ == "__main__":
    main()
