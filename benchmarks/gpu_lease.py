"""What a GPU that is at hand for a quarter of an hour should measure, the most valuable first.

    python benchmarks/gpu_lease.py --out DIR --cifar DIR --photos DIR    # in ten minutes
    python benchmarks/gpu_lease.py --out DIR --cifar DIR --only recipes --budget 360
    python benchmarks/gpu_lease.py --out DIR --smoke                     # a minute, on a CPU too

recipes: ResNet-20, plain-20, ResNet-56 and plain-56 on CIFAR-10 as the paper trains them. A run
that does not end in time keeps its newest checkpoint and can be resumed.
inference: the networks of `against_torch.py` against `torch.compile`, if there is a PyTorch.
compiled: training steps of the networks that were never compared with `torch.compile`.
input: training of ResNet-50 from JPEG files: what the step waits for.
selfcheck: each kind of layer on this device.

Every part has a time of its own and is ended when that or the budget is used up; what it printed
and wrote is then in DIR, where runs, logs and result files go as they are made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
NEVER_COMPILED = ("se_resnet50", "dpn92", "googlenet_bn", "inception_resnet_v2")
# Recipe, depth, dtype, and the number of networks that are trained together.
RECIPES = (
    ("cifar_resnet", "20", "bfloat16", 2), ("cifar_plain", "20", "bfloat16", 2),
    ("cifar_resnet", "20", "float32", 1), ("cifar_resnet", "56", "bfloat16", 1),
    ("cifar_plain", "56", "bfloat16", 1), ("cifar_plain", "20", "float32", 1),
)  # fmt: skip
SECONDS = {"recipes": 360, "inference": 200, "compiled": 200, "input": 120, "selfcheck": 60}
GRACE = 20  # seconds that a run has to save its checkpoint


def commands(part: str, args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yields a name and a command for each run of a part; nothing if its data is missing."""
    cli = [sys.executable, "-c", "import sys; from jaxcnn.cli import main; sys.exit(main())"]
    torch = ["--torch-python", args.torch_python]
    against = [sys.executable, str(HERE / "gpu_against_torch.py"), *torch]
    if part == "recipes" and (args.smoke or args.cifar):
        for recipe, depth, dtype, members in RECIPES[: 2 if args.smoke else None]:
            name = f"{recipe}{depth}_{dtype}"
            data = ["data.source=files:cifar10", f"data.dir={args.cifar}"]
            if args.smoke:
                depth, data = f"{depth},smoke", []
            yield name, [
                *cli, "train", f"{recipe}:{depth}", *data, f"model.dtype={dtype}",
                f"train.members={members}", f"--workdir={args.out / name}",
            ]  # fmt: skip
    if part == "inference" and not args.smoke:
        yield part, [*against, "--mode", "infer", "--deadline", "120"]
    if part == "compiled" and not args.smoke:
        yield part, [*against, "--models", *NEVER_COMPILED, "--deadline", "150"]
    if part == "input" and args.photos:
        yield part, [
            *cli, "train", "resnet_imagenet", f"data.source=folder:{args.photos}",
            "model.dtype=bfloat16", "train.batch_size=256", f"--workdir={args.out / part}",
        ]  # fmt: skip
    if part == "selfcheck":
        yield part, [*cli, "selfcheck"]


def run(name: str, command: list[str], seconds: float, out: Path) -> str:
    """Runs a command for at most some seconds; returns how it ended, for the summary."""
    began = time.monotonic()
    with open(out / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"BENCH_RESULTS": str(out)},
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # a training run saves a checkpoint
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"{name}: exit code {process.returncode} after {time.monotonic() - began:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of all results")
    parser.add_argument("--cifar", type=Path, help="directory of CIFAR-10's binary files")
    parser.add_argument("--photos", type=Path, help="directory of class folders of JPEG files")
    parser.add_argument("--torch-python", default=sys.executable, help="that has PyTorch")
    parser.add_argument("--budget", type=float, default=560, help="seconds in all (560)")
    parser.add_argument("--only", nargs="+", choices=SECONDS, default=tuple(SECONDS))
    parser.add_argument("--smoke", action="store_true", help="a few steps, on a CPU too")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "results").glob("gpu*.json"):
        shutil.copy(path, args.out)  # the rows of other machines are kept beside the new ones
    end = time.monotonic() + args.budget
    for part in args.only:
        part_end = min(end, time.monotonic() + SECONDS[part])
        found = list(commands(part, args))
        if not found:
            why = "no part of --smoke" if args.smoke else "its data is not given"
            print(f"{part}: left out, {why}", flush=True)
        for name, command in found:
            left = part_end - time.monotonic() - GRACE
            if left < (0 if args.smoke else 30):
                print(f"{name}: left out, no time is left", flush=True)
                continue
            print(run(name, command, left, args.out), flush=True)


if __name__ == "__main__":
    main()
