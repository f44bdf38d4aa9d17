"""The cost of N members that are trained as one against N runs that are trained alone.

    python benchmarks/members.py                          # 7 LeNet-5, 2 ResNet-20
    python benchmarks/members.py --models lenet5 --steps 20 --rounds 3
    python benchmarks/members.py --run                    # whole runs from the command line, too

Of every network, seconds for a step of all members: one after another through one compiled step,
which is what N runs take once they are compiled ("sequential"), and all in one program under
`vmap`; and the seconds of compiling each, which N runs pay N times. `--run` times whole runs of
LeNet-5 on the digits as a user starts them: N by `jaxcnn train`, and one of N members. A ratio
below 1 is what members save. Writes results/members_DEVICE.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn import create_model
from jaxcnn.data.loader import resident
from jaxcnn.runtime.compilation import jit
from jaxcnn.training.ensemble import lockstep
from jaxcnn.training.input.preprocess import gather
from jaxcnn.training.state import create_state
from jaxcnn.training.step import make_train_step

MODELS = {"lenet5": (7, (32, 32, 1)), "resnet20_cifar": (2, (32, 32, 3))}
BATCH, SIZE = 64, 2048
ROOT = Path(__file__).parents[1]


def measure(name: str, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and ratio to "sequential" of a step of all members, and seconds of compiling."""
    members, shape = MODELS[name]
    model, optimizer = create_model(name, num_classes=10), optax.sgd(0.01, 0.9)
    rng = np.random.default_rng(0)
    whole = {
        "images": jnp.asarray(rng.integers(0, 256, (SIZE, *shape), np.uint8)),
        "labels": jnp.asarray(rng.integers(0, 10, SIZE).astype(np.int32)),
    }

    def prepare(batch, keys):
        ready = gather(batch)
        return ready | {"image": ready["image"].astype(jnp.float32) / 255}

    step = make_train_step(model, optimizer, preprocess=prepare)

    def batches(i):
        slot = np.arange(BATCH, dtype=np.int32)
        return [
            {"index": resident.batch_indices(seed, i, SIZE, BATCH), "slot": slot}
            for seed in range(members)
        ]

    keys = [jax.random.key(seed) for seed in range(members)]

    def states():
        return [create_state(model, optimizer, key, (1, *shape)) for key in keys]

    own = states()
    began = time.perf_counter()
    single = jit(step, donate_argnums=(0,)).lower(own[0], whole | batches(0)[0], keys[0]).compile()
    middle = time.perf_counter()
    joint = lockstep.joint(step, members, 1)
    joint = joint.lower(own, whole, batches(0), keys).compile()
    compiling = {"sequential": middle - began, "vmap": time.perf_counter() - middle}
    held = {"sequential": own, "vmap": states()}

    def sequential():
        for i in range(steps):
            for m, batch in enumerate(batches(i)):
                held["sequential"][m], out = single(held["sequential"][m], whole | batch, keys[m])
        return out

    def vmap():
        for i in range(steps):
            made = joint(held["vmap"], whole, batches(i), keys)
            held["vmap"], out = [state for state, _ in made], made[-1][1]
        return out

    times = harness.alternate({"sequential": sequential, "vmap": vmap}, rounds=rounds)
    table = harness.ratios(
        {n: [t / steps for t in found] for n, found in times.items()}, base="sequential"
    )
    for way, row in table.items():
        row |= {"members": members, "compile_seconds": compiling[way]}
    return table


def whole_runs(members: int, epochs: int) -> dict[str, dict[str, float]]:
    """Seconds of N runs by the command, and of one command of N members."""
    config = [f"{ROOT}/configs/lenet_digits.py", f"train.length_epochs={epochs}", "train.devices=1"]
    command = [sys.executable, "-m", "jaxcnn.cli", "train", *config]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for seed in range(members):
            given = [f"train.seed={seed}", "--workdir", f"{folder}/run{seed}"]
            subprocess.run([*command, *given], check=True, stdout=subprocess.DEVNULL)
        seconds[f"{members} runs"] = [time.perf_counter() - began]
        began = time.perf_counter()
        given = [f"train.members={members}", "--workdir", f"{folder}/members"]
        subprocess.run([*command, *given], check=True, stdout=subprocess.DEVNULL)
        seconds[f"{members} members"] = [time.perf_counter() - began]
    return harness.ratios(seconds, base=f"{members} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=4, help="in a call (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", action="store_true", help="time whole runs, too")
    parser.add_argument("--epochs", type=int, default=10, help="of a whole run")
    args = parser.parse_args()
    device = jax.devices()[0].platform
    rows = {}
    for name in args.models:
        rows[name] = measure(name, args.steps, args.rounds)
        harness.show(
            f"{name}, a step of {MODELS[name][0]} members of {BATCH} images, {device}", rows[name]
        )
        for way, row in rows[name].items():
            print(f"  compiling {way}: {row['compile_seconds']:.1f} s")
    if args.run:
        rows["whole runs of lenet_digits"] = whole_runs(MODELS["lenet5"][0], args.epochs)
        harness.show(f"{args.epochs} epochs of lenet_digits", rows["whole runs of lenet_digits"])
    print(f"written to {harness.save(f'members_{device}', rows)}")


if __name__ == "__main__":
    main()
