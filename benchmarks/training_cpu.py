"""Training steps per second on this machine, and what each optimization gains.

    python benchmarks/training_cpu.py                 # LeNet-5 and ResNet-20 with batch size 128
    python benchmarks/training_cpu.py --models lenet5 --rounds 3

The step of each model with all optimizations is compared with the same step with one of them turned
off: the CPU's compiler options, the implementations of `jaxcnn.ops`, keeping memory between steps
(otherwise, the C library returns all of it to the system after each step), and the dataset on the
device (otherwise, each batch is gathered by NumPy without augmentation and copied as float32). A
ratio above 1 is the gain from that optimization. Writes results/training_cpu.json.
"""

from __future__ import annotations

import argparse
import ctypes
import platform

import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn import create_model, ops
from jaxcnn.data import catalog
from jaxcnn.data.loader import resident
from jaxcnn.runtime.compilation import jit
from jaxcnn.training.input import preprocess
from jaxcnn.training.input.preprocess import gather
from jaxcnn.training.state import create_state
from jaxcnn.training.step import make_train_step

BATCH = 128
SHAPES = {"lenet5": (32, 32, 1), "resnet20_cifar": (32, 32, 3)}
AUGMENT = {"lenet5": (), "resnet20_cifar": (("pad_crop", 4), ("flip", 0.5))}


def make_run(name: str, dataset, *, options: bool = True, on_device: bool = True):
    """A function that makes one step and returns its metrics."""
    model = create_model(name)
    optimizer = optax.sgd(0.01, 0.9)
    prepare = preprocess.make_preprocess(dataset, AUGMENT[name])
    key = jax.random.key(0)
    if not on_device:
        prepare = gather
    step = make_train_step(model, optimizer, preprocess=prepare)
    compiled = (jit if options else jax.jit)(step, donate_argnums=(0,))
    state = create_state(model, optimizer, key, (1, *SHAPES[name]))
    whole = {"images": jnp.asarray(dataset.images), "labels": jnp.asarray(dataset.labels)}
    size, held = len(dataset.labels), {"state": state, "step": 0}

    def run():
        index = resident.batch_indices(0, held["step"], size, BATCH)
        if on_device:
            batch = whole | {"index": index, "slot": np.arange(BATCH, dtype=np.int32)}
        else:
            images = dataset.images[index].astype(np.float32) / 255
            batch = {"image": images, "label": dataset.labels[index]}
        held["state"], out = compiled(held["state"], batch, key)
        held["step"] += 1
        return out

    return run


def giving_back(run):
    """`run`, and then free memory goes back to the system, as glibc has it for large blocks."""
    trim = ctypes.CDLL(None).malloc_trim

    def one():
        out = jax.block_until_ready(run())
        trim(0)
        return out

    return one


def measure(name: str, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Seconds a step of each form, and ratios to the full one."""
    channels = SHAPES[name][-1]
    rng = np.random.default_rng(0)
    dataset = catalog.Dataset(
        images=rng.integers(0, 256, (2048, *SHAPES[name]), np.uint8),
        labels=rng.integers(0, 10, 2048).astype(np.int32),
        num_classes=10,
        class_names=tuple(map(str, range(10))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    contenders = {
        "all optimizations": make_run(name, dataset),
        "without compiler options": make_run(name, dataset, options=False),
        "batches copied from the host": make_run(name, dataset, on_device=False),
    }
    if name != "lenet5" and platform.libc_ver()[0] == "glibc":  # whose blocks are kept anyway
        contenders["memory returned to the system"] = giving_back(contenders["all optimizations"])
    with ops.use("reference"):
        contenders["with plain operations"] = make_run(name, dataset)
        contenders["with plain operations"]()  # compiles
    times = harness.alternate(contenders, rounds=rounds, seconds=seconds)
    return harness.ratios(times, "all optimizations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a form, each round")
    args = parser.parse_args()
    rows = {}
    for name in args.models:
        rows[name] = measure(name, args.rounds, args.seconds)
        steps = 1 / rows[name]["all optimizations"]["seconds"]
        harness.show(f"{name}, batch {BATCH}: {steps:.2f} steps/s", rows[name])
    print(f"written to {harness.save('training_cpu', rows)}")


if __name__ == "__main__":
    main()
