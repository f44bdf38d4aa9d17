"""What a training step needs on a TPU, counted in the program that XLA makes for one, without it.

    pip install 'jaxcnn[tpu]'
    python benchmarks/tpu_program.py --save                      # against plain Linen
    python benchmarks/tpu_program.py --only jaxcnn --top 40      # where the bytes go

ResNet-50 in bfloat16 with local BatchNorm statistics, of jaxcnn and as plain Flax Linen
(`plain_linen.py`). The step is `jaxcnn.training.step.make_train_step` with SGD and momentum for
both, on images that are already there. Bytes by operation are those of operands and results, and
those among them that are not kept in on-chip memory.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import os
import re
import time
from collections.abc import Sequence
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # of arrays that are not the program's

import harness
import jax
import jax.numpy as jnp
import optax
from plain_linen import PlainResNet50

import jaxcnn
from jaxcnn.analysis import plan, program_counts
from jaxcnn.training import parallel
from jaxcnn.training.state import abstract_state
from jaxcnn.training.step import make_eval_step, make_train_step

SIZE = 224


def traced_steps(
    model: Any, images: int, devices: Sequence[Any], shape: Sequence[int] = (SIZE, SIZE, 3)
) -> dict[str, Any]:
    """Traces the training and evaluation steps of a module for a batch size per device."""
    mesh = parallel.make_mesh(None, devices)
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)
    state = abstract_state(model, optimizer, (1, *shape))
    train = make_train_step(model, optimizer, axis_name=parallel.AXIS)
    evaluate = make_eval_step(model, axis_name=parallel.AXIS)
    examples = images * mesh.size
    batch = {
        "image": jax.ShapeDtypeStruct((examples, *shape), jnp.bfloat16),
        "label": jax.ShapeDtypeStruct((examples,), jnp.int32),
    }
    args = (parallel.abstract_state(state, mesh), parallel.abstract_batch(batch, mesh))
    key = parallel.abstract_state(jax.eval_shape(lambda: jax.random.key(0)), mesh)
    call = functools.partial(parallel.parallelize, mode="shard_map", mesh=mesh)
    return {
        "train": call(train, donate=True).trace(*args, key),
        "evaluate": call(evaluate).trace(*args),
    }


def show(text: str, top: int) -> None:
    """Bytes by kind of operation, and the operations that move the most."""
    moved = list(program_counts.moved_bytes(list(program_counts.instructions(text))))
    kinds = collections.defaultdict(list)
    for one, size, outside in moved:
        kinds[kind(one)].append((size, outside))
    for name, found in sorted(kinds.items(), key=lambda item: -sum(size for _, size in item[1])):
        size, outside = (sum(amounts) / 1e9 for amounts in zip(*found))
        print(f"{name:50} {len(found):5}  {size:8.3f} GB, of them {outside:8.3f} not on the chip")
    for one, size, outside in sorted(moved, key=lambda item: -item[2])[:top]:
        print(f"{size / 1e6:9.1f} {outside / 1e6:9.1f} MB  {one.name:36} {source(one)[-90:]}")


def kind(one: program_counts.Instruction) -> str:
    """The opcode, the kind of a fusion, and the operation that it ends in."""
    found = re.search(r'custom_call_target="([^"]+)"|kind=(k\w+)', one.rest)
    detail = (found[1] or found[2]) if found else ""
    return f"{one.opcode} {detail} {source(one).rpartition('/')[2]}".strip()


def source(one: program_counts.Instruction) -> str:
    found = re.search(r'op_name="([^"]+)"', one.rest)
    return found[1] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", default="v5e:2x2", help="slice (v5e:2x2)")
    parser.add_argument("--images", type=int, default=128, help="for each chip (128)")
    parser.add_argument("--only", choices=("jaxcnn", "linen"))
    parser.add_argument("--blocks", default="3,4,6,3", help="blocks of each stage (3,4,6,3)")
    parser.add_argument(
        "--top", type=int, default=0, help="number of operations to list (default: 0)"
    )
    parser.add_argument("--save", action="store_true", help="write results/tpu_program.json")
    args = parser.parse_args()
    target, blocks = plan.find_target(args.on), tuple(map(int, args.blocks.split(",")))
    modules = {
        "jaxcnn": jaxcnn.create_model(
            "resnet50", dtype=jnp.bfloat16, zero_gamma=True, blocks=blocks
        ),
        "linen": PlainResNet50(blocks=blocks),
    }
    rows = []
    for name, module in modules.items():
        if args.only not in (None, name):
            continue
        began = time.perf_counter()
        steps = traced_steps(module, args.images, target.devices)
        compiled = steps["train"].lower().compile()
        counts = dataclasses.asdict(program_counts.count(compiled))
        seconds = time.perf_counter() - began
        rows.append(
            {"name": name, "on": args.on, "images": args.images, "seconds": seconds, **counts}
        )
        print(rows[-1], flush=True)
        if args.top:
            show(compiled.as_text(), args.top)
    if args.save:
        harness.save("tpu_program", rows)


if __name__ == "__main__":
    main()
