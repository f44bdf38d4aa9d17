"""Start-up, each figure from fresh processes: import, initialization, compilation, a whole command.

    python benchmarks/startup.py
    python benchmarks/startup.py --models lenet5 --runs 3

Import is compared with `import jax, flax.linen`, alone and with a network created; initialization
of jaxcnn, by shape, with that of an ordinary `jit`; the training step's compilation with and
without a filled persistent compilation cache; `jaxcnn train` of a few steps without the cache, with
an empty one and with a filled one. Writes results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

MODELS = ("lenet5", "resnet20_cifar", "resnet50", "inception_v3")
CONFIGS = Path(__file__).parents[1] / "configs"
IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
COMPILE = """
import sys, time, json
import jax, jax.numpy as jnp, numpy as np, optax
from jaxcnn import create_model, model_info
from jaxcnn.runtime import compilation
from jaxcnn.training.state import abstract_state, init_variables
from jaxcnn.training.step import make_train_step
name, usual = sys.argv[1], sys.argv[2] == "usual"
model, optimizer = create_model(name), optax.sgd(0.01, 0.9)
shape = (1, *model_info(name).input_size)
begin = time.perf_counter()
if usual:
    out = jax.jit(lambda key: model.init(key, jnp.zeros(shape)))(jax.random.key(0))
else:
    out = init_variables(model, jax.random.key(0), shape)
jax.block_until_ready(out)
init = time.perf_counter() - begin
state = abstract_state(model, optimizer, shape)
begin = time.perf_counter()
batch = {"image": jnp.zeros((128, *shape[1:])), "label": jnp.zeros(128, jnp.int32)}
step = compilation.jit(make_train_step(model, optimizer))
step.lower(state, batch, jax.random.key(0)).compile()
print(json.dumps({"initialize": init, "compile": time.perf_counter() - begin}))
"""


def fresh(code: str, *arguments: str, cache: str | None = None) -> str:
    """Standard output of a new interpreter."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"  # XLA's remarks on programs that come from the cache
    if cache:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def imports(runs: int) -> dict[str, float]:
    """Median seconds of each import, and the last one's ratio to that of JAX and Flax alone."""
    codes = {
        "jax, flax.linen": "import jax, flax.linen",
        "jaxcnn": "import jaxcnn",
        "jaxcnn.create_model": "import jaxcnn; jaxcnn.create_model('resnet50')",
    }
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(runs):
        for name, code in codes.items():
            times[name].append(float(fresh(IMPORT.format(code))))
    row = {name: statistics.median(values) for name, values in times.items()}
    pairs = zip(times["jaxcnn.create_model"], times["jax, flax.linen"])
    return row | {"ratio": statistics.median(a / b for a, b in pairs)}


def command(runs: int) -> dict[str, float]:
    """Median seconds of `jaxcnn train` until its first step, counted from the run's beginning, and
    of the whole process: without the cache of programs, with an empty one, with a filled one."""
    rows: dict[str, list[float]] = {}
    own = ("JAX_COMPILATION_CACHE_DIR", "JAXCNN_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in own}
    run = [sys.executable, "-m", "jaxcnn.cli", "train", f"{CONFIGS}/lenet_digits.py:smoke"]
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("off", "cold", "warm"):
                given = {"XDG_CACHE_HOME": folder} | (
                    {"JAXCNN_CACHE": "0"} if kind == "off" else {}
                )
                began = time.perf_counter()
                done = subprocess.run(
                    [*run, "--workdir", f"{folder}/{kind}"], env=environment | given, check=True,
                    stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                rows.setdefault(f"whole, {kind}", []).append(time.perf_counter() - began)
                first = re.search(r"first step done after ([\d.]+) s", done.stdout)
                assert first, done.stdout
                rows.setdefault(f"first step, {kind}", []).append(float(first[1]))
    return {label: statistics.median(values) for label, values in rows.items()}


def compilation(name: str, runs: int) -> dict[str, float]:
    """Median seconds to initialize and to compile, cold and with the cache filled."""
    rows: dict[str, list[float]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            got = {
                "usual": json.loads(fresh(COMPILE, name, "usual")),
                "cold": json.loads(fresh(COMPILE, name, "own", cache=cache)),
                "warm": json.loads(fresh(COMPILE, name, "own", cache=cache)),
            }
        for kind, figures in got.items():
            for what, seconds in figures.items():
                rows.setdefault(f"{what}, {kind}", []).append(seconds)
    return {label: statistics.median(values) for label, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rows = {"import": imports(args.runs), "command": command(args.runs)}
    rows |= {name: compilation(name, args.runs) for name in args.models}
    for title, row in rows.items():
        print(title)
        for label, value in row.items():
            print(f"  {label:24s} {value:8.2f}{'' if label == 'ratio' else ' s'}")
    print(f"written to {harness.save('startup', rows)}")


if __name__ == "__main__":
    main()
