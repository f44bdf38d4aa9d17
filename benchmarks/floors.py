"""How fast XLA's own kernels are for a network's convolutions: what another form has to beat.

    python benchmarks/floors.py

Each convolution stands alone in a program compiled with the CPU's options, as do the gradients of
its kernel and of its images. Times are of one core and count its work, not its waiting (processor
time), so that other programs hardly disturb them; `share` is of the rate of a square matrix
product of side 1024, measured in the same turns. Writes results/floors.json.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

# batch, size, channels, features, kernel, stride
CASES = {
    "ResNet-20, 1st stage": (32, 32, 16, 16, 3, 1),
    "ResNet-20, 2nd stage": (32, 16, 32, 32, 3, 1),
    "ResNet-20, 3rd stage": (32, 8, 64, 64, 3, 1),
    "ResNet-18, 1st stage": (4, 56, 64, 64, 3, 1),
    "ResNet-18, 3rd stage": (4, 14, 256, 256, 3, 1),
    "ResNet-18, 4th stage": (4, 7, 512, 512, 3, 1),
    "ResNet, stem": (4, 224, 3, 64, 7, 2),
    "ResNet-50, 1st stage, 1x1": (4, 56, 64, 256, 1, 1),
    "DPN-92, last stage, 1x1": (4, 14, 1552, 768, 1, 1),
    "Inception-v3, 3rd layer": (2, 147, 32, 64, 3, 1),
    "Inception-v3, 5x5": (8, 35, 48, 64, 5, 1),
}


def seconds(run: Callable, count: int) -> float:
    import jax

    began = time.process_time()
    for _ in range(count):
        out = run()
    jax.block_until_ready(out)
    return (time.process_time() - began) / count


def programs(case: tuple[int, ...]) -> tuple[dict[str, Callable], float]:
    """The three programs of a convolution, as functions of nothing, and the FLOPs of each."""
    import jax
    import numpy as np

    from jaxcnn.ops import reference
    from jaxcnn.runtime.compilation import jit

    batch, size, channels, features, kernel, stride = case
    pad = kernel // 2

    conv = functools.partial(reference.conv, padding=((pad, pad),) * 2, stride=(stride,) * 2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, size, size, channels), np.float32)
    w = rng.standard_normal((kernel, kernel, channels, features), np.float32)
    x, w, g = jax.device_put((x, w, np.asarray(conv(x, w))))
    forms = {
        "forward": (conv, (x, w)),
        "kernel": (lambda x, w, g: jax.vjp(lambda w: conv(x, w), w)[1](g)[0], (x, w, g)),
        "images": (lambda x, w, g: jax.vjp(lambda x: conv(x, w), x)[1](g)[0], (x, w, g)),
    }
    runs = {}
    for name, (form, arguments) in forms.items():
        compiled = jit(form)
        runs[name] = lambda compiled=compiled, arguments=arguments: compiled(*arguments)
    return runs, 2.0 * g.size * channels * kernel**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a program's turn")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before JAX makes its threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import harness
    import jax
    import jax.numpy as jnp

    square = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    rows = []
    for title, case in CASES.items():
        runs, flops = programs(case)
        runs["product"] = lambda: product(square, square)
        counts, times = {}, {name: [] for name in runs}
        for name, run in runs.items():
            seconds(run, 1)
            counts[name] = max(1, round(args.seconds / seconds(run, 1)))
        for _ in range(args.rounds):
            for name, run in runs.items():
                times[name].append(seconds(run, counts[name]))
        peak = 2 * 1024**3 / statistics.median(times.pop("product"))
        row = {"convolution": title, "case": case, "peak_gflops": peak / 1e9}
        for name, values in times.items():
            taken = statistics.median(values)
            row[name] = {"seconds": taken, "gflops": flops / taken / 1e9,
                         "share": flops / taken / peak}  # fmt: skip
        rows.append(row)
        parts = [f"{k} {1e3 * row[k]['seconds']:.2f} ms {row[k]['share']:.0%}" for k in times]
        print(f"{title}: " + ", ".join(parts) + f" of {peak / 1e9:.0f} GFLOP/s", flush=True)
    print(f"written to {harness.save('floors', rows)}")


if __name__ == "__main__":
    main()
