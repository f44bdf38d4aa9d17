"""jaxcnn against PyTorch on one GPU, in minutes: all compile at once, then they take turns.

    python benchmarks/gpu_against_torch.py                      # training steps, bfloat16
    python benchmarks/gpu_against_torch.py --models resnet50
    python benchmarks/gpu_against_torch.py --mode infer
    python benchmarks/gpu_against_torch.py --torch-python PYTHON    # that has PyTorch

What `against_torch.py` compares, with its batches for a GPU. Row by row that takes hours, nearly
all of them in compilers. Here each network gets a process at the start, which compiles its step,
and another one for `torch.compile`; when all have ended, or `--deadline` seconds
have passed, they make their steps: a network after the other, jaxcnn and the forms of PyTorch in
turn, `--rounds` times. PyTorch's eager form is channels-last, its autocast bfloat16, its choice of
convolutions `cudnn.benchmark`; `torch.compile` is that of the network in its default mode, the loss
and the optimizer outside it. Compilers that share a GPU may choose slower kernels than alone;
PyTorch's eager form chooses in its turn. Weights are drawn by NumPy, which compiles nothing.

What is not ready at the deadline, or fails, is named and ended: a network without jaxcnn's form has
no row, one without `torch.compile` a row of the others. Writes results/gpu_against_torch.json after
every row; rows of other models stay in it.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import against_torch
import jax
import numpy as np

# torch.compile builds by running; this number of networks fits in the memory at once.
ROOM = threading.Semaphore(4)


def drawn_state(model, optimizer, key, images_shape):
    """A state of random kernels, without a program that draws them."""
    from jaxcnn.training.state import abstract_state

    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        values = np.zeros(leaf.shape)
        if "opt_state" not in name:
            if name.endswith(("['scale']", "['var']")):
                values = np.ones(leaf.shape)
            elif leaf.ndim > 1:
                values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        return jax.numpy.asarray(values, leaf.dtype)

    abstract = abstract_state(model, optimizer, images_shape)
    return jax.tree_util.tree_map_with_path(draw, abstract)


def serve(pipe, *what) -> None:
    """jaxcnn's process: builds, reports what it built, then makes the requested number of steps."""
    try:
        run, about = against_torch.jaxcnn_form(*what, make_state=drawn_state)
        pipe.send(about)
        while True:
            pipe.send(run(pipe.recv()))
    except EOFError:
        return
    except Exception as error:
        pipe.send(RuntimeError(f"jaxcnn: {type(error).__name__}: {str(error)[:500]}"))


class Jaxcnn:
    """jaxcnn's process for one network."""

    def __init__(self, *what):
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(theirs, *what), daemon=True)
        self.process.start()
        theirs.close()

    def answer(self):
        try:
            found = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"jaxcnn's process ended: {self.process.exitcode}") from None
        if isinstance(found, RuntimeError):
            raise found
        return found

    def run(self, count: int) -> float:
        self.pipe.send(count)
        return self.answer()


def build(torch: against_torch.Torch, form: str, name: str, *what) -> dict:
    from jaxcnn import model_info

    mode, batch, dtype = what
    shape = list(model_info(name).input_size)
    return torch("build", form=form, model=name, mode=mode, batch=batch, dtype=dtype,
                 shape=shape)  # fmt: skip


class Compiled:
    """PyTorch's process for one compiled network."""

    def __init__(self, python: str, *what):
        self.what = what
        self.torch = against_torch.Torch(python, threads=4)

    def build(self) -> dict:
        self.torch("info", threads=4)
        with ROOM:
            return build(self.torch, "compile", *self.what)


def turns(
    runs: dict[str, Callable[[int], float]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds a step of each form by round."""
    calls = {}
    for form, run in runs.items():
        run(against_torch.WARM)
        calls[form] = max(against_torch.WARM, round(seconds / run(against_torch.WARM)))
    times: dict[str, list[float]] = {form: [] for form in runs}
    for _ in range(rounds):
        for form, run in runs.items():
            times[form].append(run(calls[form]))
    return times


def row_of(built: dict[str, dict], times: dict[str, list[float]]) -> dict:
    """Both sides' figures; `ratio` is jaxcnn's time over that of PyTorch's fastest form."""
    row = against_torch.figures(built, times)
    forms = row["forms"]
    best = min(set(forms) - {"jaxcnn"}, key=lambda form: forms[form]["seconds"])
    ends = {key: forms[best][key] for key in ("ratio", "ratio_min", "ratio_max")}
    return row | {"best": best, **ends}


def steps(torch: against_torch.Torch, form: str, count: int) -> float:
    return torch("run", form=form, count=count)["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable, help="that has PyTorch")
    known = list(against_torch.BATCHES)
    parser.add_argument("--models", nargs="+", choices=known, default=known, metavar="MODEL")
    parser.add_argument("--compile", nargs="*", choices=known, metavar="MODEL",
                        help="networks to measure with torch.compile as well (all)")  # fmt: skip
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, help="for all models (default: a table)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a form's turn")
    parser.add_argument("--deadline", type=float, default=1800, help="seconds to compile in")
    args = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # all on one GPU
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import harness

    def what(name: str) -> tuple[str, str, int, str]:
        return name, args.mode, args.batch or against_torch.BATCHES[name][1], args.dtype

    compiled = args.models if args.compile is None else args.compile
    pool = ThreadPoolExecutor(2 * len(args.models))
    ours = {name: Jaxcnn(*what(name)) for name in args.models}
    theirs = {name: Compiled(args.torch_python, *what(name))
              for name in args.models if name in compiled}  # fmt: skip
    ready = {("jaxcnn", name): pool.submit(process.answer) for name, process in ours.items()}
    ready |= {("compile", name): pool.submit(process.build) for name, process in theirs.items()}
    wait(ready.values(), args.deadline)
    late = [key for key, future in ready.items() if not future.done()]
    for form, name in late:
        (ours[name] if form == "jaxcnn" else theirs[name].torch).process.kill()

    def about(form: str, name: str) -> dict:
        if (form, name) in late:
            raise RuntimeError(f"{form} did not compile within {args.deadline:.0f} s")
        return ready[form, name].result()

    rows: list[dict] = []
    failed = 0
    path = harness.RESULTS / "gpu_against_torch.json"
    with against_torch.Torch(args.torch_python, threads=4) as eager:
        machine = harness.machine() | {"torch": eager.about}
        for name in args.models:
            runs: dict[str, Callable[[int], float]] = {}
            try:
                built = {"jaxcnn": about("jaxcnn", name)}
                runs["jaxcnn"] = ours[name].run
                built["channels_last"] = build(eager, "channels_last", *what(name))
                runs["channels_last"] = functools.partial(steps, eager, "channels_last")
                if name in theirs:
                    try:
                        built["compile"] = about("compile", name)
                        runs["compile"] = functools.partial(steps, theirs[name].torch, "compile")
                    except RuntimeError as error:
                        failed += 1
                        print(f"{name}: {error}", file=sys.stderr, flush=True)
                row = dict(zip(("model", "mode", "batch", "dtype"), what(name)))
                row |= row_of(built, turns(runs, args.rounds, args.seconds))
            except RuntimeError as error:
                failed += 1
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            finally:
                ours[name].process.kill()
                if name in theirs:
                    theirs[name].torch.process.kill()
            rows.append(row)
            together = against_torch.kept(path, machine, rows) + rows
            harness.save("gpu_against_torch", together, machine=machine)
            shown = [f"{form} {1e3 * f['seconds']:.2f} ms (x {f['ratio']:.2f})"
                     for form, f in row["forms"].items()]  # fmt: skip
            print(f"{name} b{row['batch']}: " + ", ".join(shown), flush=True)
    if failed:
        sys.exit(f"{failed} failed")


if __name__ == "__main__":
    main()
