"""Start-up, each figure from fresh processes: import, initialisation, compilation, warm cache.

    python benchmarks/startup.py
    python benchmarks/startup.py --models lenet5 --runs 3

Import is compared with `import jax, flax.linen`; initialisation as jaxcnn compiles it with an
ordinary `jit`; the training step's compilation with and without a filled persistent compilation
cache. Writes results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import harness

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
COMPILE = """
import sys, time, json
import jax, jax.numpy as jnp, numpy as np, optax
from jaxcnn import create_model, model_info
from jaxcnn.training import compiling
from jaxcnn.training.state import abstract_state
from jaxcnn.training.step import make_train_step
name, usual = sys.argv[1], sys.argv[2] == "usual"
model, optimizer = create_model(name), optax.sgd(0.01, 0.9)
shape = (1, *model_info(name).input_size)
begin = time.perf_counter()
make = jax.jit if usual else compiling.compile_init
jax.block_until_ready(make(lambda key: model.init(key, jnp.zeros(shape)))(jax.random.key(0)))
init = time.perf_counter() - begin
state = abstract_state(model, optimizer, shape)
begin = time.perf_counter()
batch = {"image": jnp.zeros((128, *shape[1:])), "label": jnp.zeros(128, jnp.int32)}
step = compiling.jit(make_train_step(model, optimizer))
step.lower(state, batch, jax.random.key(0)).compile()
print(json.dumps({"initialise": init, "compile": time.perf_counter() - begin}))
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
    """Median seconds of each import, and the ratio."""
    names = {"jax, flax.linen": [], "jaxcnn": []}
    for _ in range(runs):
        for name, values in names.items():
            values.append(float(fresh(IMPORT.format(name))))
    row = {name: statistics.median(values) for name, values in names.items()}
    pairs = zip(names["jaxcnn"], names["jax, flax.linen"])
    return row | {"ratio": statistics.median(a / b for a, b in pairs)}


def compilation(name: str, runs: int) -> dict[str, float]:
    """Median seconds to initialise and to compile, cold and with the cache filled."""
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
    parser.add_argument("--models", nargs="+", default=["lenet5", "resnet20_cifar"])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    rows = {"import": imports(args.runs)}
    rows |= {name: compilation(name, args.runs) for name in args.models}
    for title, row in rows.items():
        print(title)
        for label, value in row.items():
            print(f"  {label:24s} {value:8.2f}{'' if label == 'ratio' else ' s'}")
    print(f"written to {harness.save('startup', rows)}")


if __name__ == "__main__":
    main()
