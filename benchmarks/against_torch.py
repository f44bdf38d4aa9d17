"""jaxcnn against PyTorch: the same network, batch, type and step, in turn.

    uv venv /tmp/torch && uv pip install --python /tmp/torch/bin/python torch torchvision timm
    python benchmarks/against_torch.py --torch-python /tmp/torch/bin/python
    python benchmarks/against_torch.py --torch-python ... --quick --models lenet5 --modes train
    python benchmarks/against_torch.py --torch-python ... --forms eager compile --dtype bfloat16

A training step is forward, cross-entropy, backward and SGD with momentum; inference is the logits.
Data are on the device. A row is measured in `--pairs` pairs of new processes, jaxcnn's and
PyTorch's, the latter with as many forms as `--forms` names: eager, channels_last, compile (which is
channels-last as well). In each round of a pair every form makes its steps in turn; a ratio is
jaxcnn's time over PyTorch's in the same round, so below 1 jaxcnn is faster. The row's ratio is the
median of all rounds of all pairs, since one program may take a fifth longer in one process than in
the next. What jaxcnn runs is read from the cache of programs, as in any start of a command but the
first; a process that had to compile makes no round. `--threads` cores are used by either. On a GPU
bfloat16 is autocast in PyTorch and `dtype=bfloat16` in jaxcnn. Both networks must have the same
number of parameters.

The file results/against_torch.json (or --name) is written after every row; rows of other models,
modes and types stay in it. What fails is named, and the next one begins. Each form makes steps in
advance, while the C library's heap still grows. `--limit` bounds the seconds of the first pair's
rounds: no further one begins after it, though three are always made; the other pairs make as many.
`torch.compile` builds for a minute or more on a CPU, in each pair, so it is measured only if
`--forms` names it, for a few networks:

    python ... --models lenet5 resnet20_cifar resnet18 --forms eager channels_last compile
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Images of a step on a CPU, and on a GPU.
BATCHES = {
    "lenet5": (128, 1024),
    "resnet20_cifar": (128, 1024),
    "alexnet_2gpu": (32, 256),
    "vgg16": (4, 128),
    "googlenet_bn": (16, 256),
    "inception_v3": (8, 128),
    "resnet18": (16, 256),
    "resnet50": (8, 256),
    "resnet152": (2, 128),
    "resnext50_32x4d": (8, 256),
    "se_resnet50": (8, 256),
    "dpn92": (4, 128),
    "inception_resnet_v2": (4, 128),
}
SHORT = ("lenet5", "resnet20_cifar")  # what --quick runs unless --models is given
WARM = 5  # steps before the rounds: pages of a grown heap were first met in the fifth


class Torch:
    """PyTorch's process: a command goes in, its answer comes out."""

    def __init__(self, python: str, threads: int):
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("torch_peers.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self.threads = threads

    def __enter__(self) -> Torch:
        self.about = self("info", threads=self.threads)
        return self

    def __exit__(self, *_) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def __call__(self, command: str, **arguments) -> dict:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"PyTorch's process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"PyTorch: {answer['error']}")
        return answer


def peer_step(
    name: str, mode: str, batch: int, dtype: str, *, remat: bool | str = False, **options: Any
) -> tuple[Any, tuple[Any, ...]]:
    """The step that PyTorch's is compared with, and its arguments; see `bench.make_step`."""
    from jaxcnn import create_model, model_info
    from jaxcnn.analysis import bench

    info = model_info(name)
    aux = {} if info.params_with_aux is None else {"aux_heads": False}
    return bench.make_step(
        name, train=mode == "train", batch=batch, dtype=dtype, image_size=info.input_size[0],
        model=create_model(name, dtype=dtype, remat=remat, **aux), metrics=False, **options,
    )  # fmt: skip


def jaxcnn_form(
    name: str, mode: str, batch: int, dtype: str, **options: Any
) -> tuple[Callable, dict]:
    """`run(count) -> seconds a step`, and what the network is like.

    `first_seconds` is the time to the step's program, `cached` whether no program was compiled;
    `options` are further ones of `bench.make_step`.
    """
    import jax

    from jaxcnn.models.costs import count_params

    events: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    call, arguments = peer_step(name, mode, batch, dtype, **options)
    lowered = call.lower(*arguments)
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    read, made = (f"/jax/compilation_cache/cache_{kind}" for kind in ("hits", "misses"))
    cached = read in events and made not in events
    held = list(arguments)
    params = count_params(held[0].params if mode == "train" else held[0]["params"])

    def run(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            out = compiled(*held)
            if mode == "train":
                held[0], out = out
        jax.block_until_ready((held[0], out))
        return (time.perf_counter() - began) / count

    return run, {"params": params, "first_seconds": seconds, "cached": cached}


def measure(
    python: str, threads: int, name: str, mode: str, batch: int, dtype: str, forms: list[str],
    seconds: float, rounds: int, limit: float,
) -> tuple[dict[str, dict], dict[str, list[float]]]:  # fmt: skip
    """A pair's rounds: how each form was built, and its seconds a step by round.

    Wants a process that has run no network yet: what an earlier one left of the heap makes the
    steps of the next up to half as long again. So does a compiler; after one no round is made.
    """
    import harness  # noqa: F401  keeps the heap, before JAX's first array

    from jaxcnn import model_info

    runs: dict[str, Callable[[int], float]] = {}
    runs["jaxcnn"], about = jaxcnn_form(name, mode, batch, dtype)
    built = {"jaxcnn": about}
    if not about["cached"]:
        return built, {}
    times: dict[str, list[float]] = {form: [] for form in ("jaxcnn", *forms)}
    with Torch(python, threads) as torch:
        for form in forms:
            built[form] = torch(
                "build", form=form, model=name, mode=mode, batch=batch, dtype=dtype,
                shape=list(model_info(name).input_size),
            )  # fmt: skip
            runs[form] = lambda count, form=form: torch("run", form=form, count=count)["seconds"]
        calls = {form: max(1, round(seconds / run(WARM))) for form, run in runs.items()}
        began = time.perf_counter()
        for made in range(rounds):
            if made > 2 and time.perf_counter() - began > limit:
                break
            for form, run in runs.items():
                time.sleep(0.05)  # the other side's threads stop spinning
                times[form].append(run(calls[form]))
    return built, times


def measure_pairs(
    pairs: int, rounds: int, limit: float, forms: list[str], measured: Callable[..., tuple]
) -> dict:
    """One row: seconds of each form, and jaxcnn's ratio to each, over the rounds of all pairs.

    `measured(rounds=, limit=)` makes a pair's. One of its processes may have to compile.
    """
    found: list[dict[str, list[float]]] = []
    for _ in range(pairs + 1):
        made = len(found[0]["jaxcnn"]) if found else None
        built, times = measured(rounds=made or rounds, limit=math.inf if made else limit)
        found += [times] if times else []
        if len(found) == pairs:
            break
    else:
        raise RuntimeError("programs were compiled again: the cache does not keep them")
    times = {form: [value for one in found for value in one[form]] for form in found[0]}
    row = {"pairs": pairs, "date": datetime.date.today().isoformat()} | figures(built, times)
    fastest = min(forms, key=lambda form: row["forms"][form]["seconds"])
    return row | {"ratio": row["forms"]["eager" if "eager" in forms else fastest]["ratio"],
                  "ratio_to_best": row["forms"][fastest]["ratio"], "best": fastest}  # fmt: skip


def figures(built: dict[str, dict], times: dict[str, list[float]]) -> dict[str, Any]:
    """What a row says of its forms; RuntimeError where their networks differ."""
    counts = {about["params"] for about in built.values()}
    if len(counts) > 1:
        raise RuntimeError(f"parameters differ: {built}")
    forms = {
        form: {
            "seconds": statistics.median(values),
            "first_seconds": built[form]["first_seconds"],
            **ratio_to(times["jaxcnn"], values),
        }
        for form, values in times.items()
    }
    return {"params": counts.pop(), "rounds": len(times["jaxcnn"]), "forms": forms}


def ratio_to(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median, least and largest ratio by round."""
    by_round = [a / b for a, b in zip(ours, theirs)]
    ends = {"ratio_min": min(by_round), "ratio_max": max(by_round)}
    return {"ratio": statistics.median(by_round), **ends}


def in_new_process(function: Callable, *arguments, **options):
    """`function(*arguments, **options)`, in a process that ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments, **options).result()


def summary(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Geometric means and the worst ratio of each mode and type."""
    found: dict[str, dict[str, float]] = {}
    for key in sorted({(row["mode"], row["dtype"]) for row in rows}):
        chosen = [row for row in rows if (row["mode"], row["dtype"]) == key]
        found[" ".join(key)] = {
            "models": len(chosen),
            "ratio": statistics.geometric_mean(row["ratio"] for row in chosen),
            "ratio_to_best": statistics.geometric_mean(row["ratio_to_best"] for row in chosen),
            "worst": max(row["ratio"] for row in chosen),
        }
    return found


def kept(path: Path, machine: dict, new: list[dict]) -> list[dict]:
    """The file's rows that `new` does not replace, if of this machine and these versions."""
    if not path.exists():
        return []
    old = json.loads(path.read_text())
    if {**old["machine"], "date": None} != {**machine, "date": None}:
        return []
    same = {(r["model"], r["mode"], r["dtype"]) for r in new}
    return [r for r in old["rows"] if (r["model"], r["mode"], r["dtype"]) not in same]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", required=True, help="an interpreter that has PyTorch")
    parser.add_argument("--models", nargs="+", choices=list(BATCHES), metavar="MODEL")
    parser.add_argument("--modes", nargs="+", default=["train", "infer"])
    parser.add_argument("--forms", nargs="+", default=["eager", "channels_last"])
    parser.add_argument("--batch", type=int, help="for all models (default: a table)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2, help="cores that either side may use")
    parser.add_argument("--pairs", type=int, help="of processes (default: 3)")
    parser.add_argument("--rounds", type=int, help="of a pair (default: 5)")
    parser.add_argument("--seconds", type=float, help="of a form's turn in a round (default: 0.7)")
    parser.add_argument(
        "--limit", type=float, default=12, help="seconds of the first pair's rounds (default: 12)"
    )
    parser.add_argument("--quick", action="store_true", help="one pair, two small models")
    parser.add_argument("--name", default="against_torch", help="of the result file")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both sides on one GPU
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxcnn.runtime import compilation_cache

    if compilation_cache.use() is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        sys.exit("a cache of programs is needed: JAXCNN_CACHE is 0 or its folder cannot be written")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    import harness
    import jax

    with Torch(args.torch_python, args.threads) as torch:
        about = torch.about
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu != (about["device"] == "cpu"):
        sys.exit(f"jaxcnn is on {jax.default_backend()}, PyTorch on {about['device']}")
    machine = harness.machine() | {"torch": about}
    path = harness.RESULTS / f"{args.name}.json"
    rows: list[dict] = []
    failed = []
    pairs = args.pairs or (1 if args.quick else 3)
    rounds = args.rounds or (3 if args.quick else 5)
    seconds = args.seconds or (0.3 if args.quick else 0.7)
    names = args.models or (SHORT if args.quick else list(BATCHES))
    for name, mode in itertools.product(names, args.modes):
        batch = args.batch or BATCHES[name][0 if on_cpu else 1]
        measured = functools.partial(
            in_new_process, measure, args.torch_python, args.threads, name, mode, batch,
            args.dtype, args.forms, seconds,
        )  # fmt: skip
        row = {"model": name, "mode": mode, "batch": batch, "dtype": args.dtype}
        try:
            row |= measure_pairs(pairs, rounds, args.limit, args.forms, measured)
        except RuntimeError as error:
            failed.append(f"{name} {mode}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
            continue
        rows.append(row)
        together = kept(path, machine, rows) + rows
        harness.save(args.name, together, machine=machine, summary=summary(together))
        parts = [f"{form} {1e3 * f['seconds']:.1f} ms (x {f['ratio']:.2f}"
                 f" [{f['ratio_min']:.2f}, {f['ratio_max']:.2f}])"
                 for form, f in row["forms"].items()]  # fmt: skip
        print(f"{name} {mode} b{batch}: " + ", ".join(parts), flush=True)
    for key, mean in summary(rows).items():
        print(
            f"{key}: geometric mean {mean['ratio']:.2f} of eager, {mean['ratio_to_best']:.2f} of "
            f"the best form, worst {mean['worst']:.2f}"
        )
    print(f"written to {path}")
    if failed:
        sys.exit(f"{len(failed)} failed")


if __name__ == "__main__":
    main()
