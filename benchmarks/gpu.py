"""What an accelerator makes of small networks, of large ones in bfloat16, and of seeds under vmap.

    python benchmarks/gpu.py                     # all of it
    python benchmarks/gpu.py --subjects recipe   # or large, seeds
    python benchmarks/gpu.py --smoke             # seconds, on a CPU too; writes nothing

recipe: ResNet-20 as configs/cifar_resnet.py trains it, in float32 and in bfloat16, by the programs
of `train.py`: the data on the device, 25 steps in one call, indices drawn by the host; steps/s and
the minutes of the recipe's steps that follow from it, without compiling and evaluating.

large: images/s of a training step in bfloat16, on a batch that is on the device.

seeds: N networks in one program under vmap, over one of them alone, 25 steps in a call, as a ratio
to N runs of it. The two take turns. Below 0.5 the seeds cost less than half of as many runs.

Writes results/gpu.json.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn import create_model, model_info
from jaxcnn.analysis import bench
from jaxcnn.data.loader import resident
from jaxcnn.runtime.compilation import jit
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.config import files as config_files
from jaxcnn.training.ensemble import lockstep
from jaxcnn.training.input import loaders
from jaxcnn.training.input.preprocess import gather
from jaxcnn.training.state import create_state
from jaxcnn.training.step import make_train_step, multi_step, run_keys

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPE, STEPS = "cifar_resnet", 64_000
SCANNED = 25
LARGE = {"resnet50": 256, "resnet152": 128, "vgg16": 256, "inception_v3": 256,
         "resnext50_32x4d": 256, "se_resnet50": 256, "dpn92": 128}  # fmt: skip
DUMMY = {"bfloat16": 1.0}
SEEDS = {"lenet5": 32, "resnet20_cifar": 8}  # networks under vmap


def recipes(dtypes: Iterable[str], *how: int) -> Iterator[dict[str, Any]]:
    """Steps a second of the recipe's own programs, on the synthetic set of CIFAR's image size."""
    for dtype in dtypes:
        yield recipe(dtype, *how)


def recipe(dtype: str, scanned: int, blocks: int, calls: int, batch: int) -> dict[str, Any]:
    changes = ["data.source=synthetic", f"train.steps_per_call={scanned}", "train.devices=1",
               f"train.batch_size={batch}", f"model.dtype={dtype}",
               # The synthetic set is short; its epochs shall not cut the calls.
               "eval.every_percent=100", "checkpoint.every_percent=100"]  # fmt: skip
    fields = TrackedConfig(config_files.read_config(str(CONFIGS / f"{RECIPE}.py"), changes))
    experiment = build_experiment(fields)
    init_key, key = run_keys(fields.train.seed)
    state = engine.make_init(experiment)(init_key)
    state, key = (parallel.place_state(x, experiment.mesh) for x in (state, key))
    loader = loaders.train_loader(experiment, 0, None)
    train_step = engine.compile_train_step(experiment)
    facts = train_step.compile(state, loader.batch(0, scanned), key)
    made = 0

    def block() -> float:
        nonlocal state, made
        began = time.perf_counter()
        for _ in range(calls):
            state, out = train_step(state, loader.batch(made, scanned), key)
            made += scanned
        jax.block_until_ready((state, out))
        return calls * scanned / (time.perf_counter() - began)

    block()
    rates = sorted(block() for _ in range(blocks))
    rate = rates[len(rates) // 2]
    return {"subject": "recipe", "model": fields.model.name, "batch": batch,
            "dtype": fields.model.dtype, "steps_per_call": scanned, "steps": STEPS,
            "steps_per_s": rate, "least": rates[0], "most": rates[-1],
            "images_per_s": rate * batch, "minutes": STEPS / rate / 60,
            "compile_seconds": facts["seconds"]}  # fmt: skip


def large(names: dict[str, int], seconds: float, size: int | None) -> Iterator[dict[str, Any]]:
    """Images a second in bfloat16; of whole images the share of a matrix product's rate, too."""
    whole = size is None
    machine = bench.measure_machine(("bfloat16",)) if whole else bench.Machine("", DUMMY, 1.0)
    for name, batch in names.items():
        (row,) = bench.bench([name], batch=batch, dtype="bfloat16", seconds=seconds,
                             image_size=size, machine=machine)  # fmt: skip
        yield {"subject": "large", "model": name, "batch": batch, "dtype": "bfloat16",
               "images_per_s": row.images_per_s, "steps_per_s": 1 / row.step_seconds,
               **({"peak_share": row.peak_share} if whole else {}),
               "compile_seconds": row.compile_seconds}  # fmt: skip


def seeds(names: dict[str, int], scanned: int, rounds: int, batch: int) -> Iterator[dict[str, Any]]:
    """Seconds of a call of N networks together over N times those of one alone."""
    for name, members in names.items():
        alone, together = seed_forms(name, members, scanned, batch)
        times = harness.alternate({"alone": alone, "together": together}, rounds=rounds)
        row = harness.ratios(times, "alone")["together"]
        ratios = {k: row[k] / members for k in ("ratio", "ratio_min", "ratio_max")}
        yield {"subject": "seeds", "model": name, "batch": batch, "dtype": "float32",
               "members": members, "steps_per_call": scanned, **ratios,
               "images_per_s": members * scanned * batch / row["seconds"]}  # fmt: skip


def seed_forms(
    name: str, members: int, scanned: int, batch: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Functions that make `scanned` steps of one network, and of all members."""
    model, optimizer = create_model(name), optax.sgd(0.01, 0.9)
    shape, size = model_info(name).input_size, 4096
    rng = np.random.default_rng(0)
    whole = {
        "images": jnp.asarray(rng.integers(0, 256, (size, *shape), np.uint8)),
        "labels": jnp.asarray(rng.integers(0, 10, size).astype(np.int32)),
    }

    def prepare(found, keys):
        ready = gather(found)
        return ready | {"image": ready["image"].astype(jnp.float32) / 255}

    step = make_train_step(model, optimizer, preprocess=prepare)
    single = jit(multi_step(step, scanned), donate_argnums=(0,))
    joint = lockstep.joint(step, members, scanned)
    keys = [jax.random.key(seed) for seed in range(members)]
    states = [create_state(model, optimizer, key, (1, *shape)) for key in keys]
    held = {"alone": jax.tree.map(jnp.copy, states[0]), "together": states}
    slot = np.broadcast_to(np.arange(batch, dtype=np.int32), (scanned, batch))

    def indices(seed: int) -> dict[str, np.ndarray]:
        index = [resident.batch_indices(seed, s, size, batch) for s in range(scanned)]
        return {"index": np.stack(index), "slot": slot}

    def alone():
        held["alone"], out = single(held["alone"], whole | indices(0), keys[0])
        return out

    def together():
        made = joint(held["together"], whole, [indices(s) for s in range(members)], keys)
        held["together"] = [state for state, _ in made]
        return made[-1][1]

    return alone, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subjects = ("recipe", "large", "seeds")
    parser.add_argument("--subjects", nargs="+", choices=subjects, default=subjects)
    parser.add_argument("--smoke", action="store_true", help="a few steps, and no result file")
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.smoke:
        raise SystemExit("there is no accelerator; --smoke runs on a CPU")
    if args.smoke:
        runs = {
            "recipe": functools.partial(recipes, ["float32"], 2, 1, 1, 8),
            "large": functools.partial(large, {"resnet18": 1}, 0.1, 32),
            "seeds": functools.partial(seeds, {"lenet5": 2}, 2, 1, 8),
        }
    else:
        runs = {
            "recipe": functools.partial(recipes, ["float32", "bfloat16"], SCANNED, 7, 40, 128),
            "large": functools.partial(large, LARGE, 5.0, None),
            "seeds": functools.partial(seeds, SEEDS, SCANNED, 7, 128),
        }
    rows = []
    for subject in args.subjects:
        for row in runs[subject]():
            rows.append(row)
            text = {k: f"{v:,.3f}" if isinstance(v, float) else v for k, v in row.items()}
            print(", ".join(f"{k} {v}" for k, v in text.items()), flush=True)
            if not args.smoke:
                harness.save("gpu", rows)


if __name__ == "__main__":
    main()
