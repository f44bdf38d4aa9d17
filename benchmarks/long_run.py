"""A long run of a small network that logs, evaluates and saves a checkpoint every 50 steps.

    python benchmarks/long_run.py                     # 20,000 steps, a few minutes
    python benchmarks/long_run.py --steps 2000

The run has the recipe `lenet_digits`, whose step of some milliseconds is like that of a larger
network on an accelerator. It is compared with a run that does all of this at its end only. The
process is watched from outside: its resident memory and open files must not grow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

NETWORK, BATCH = "lenet5_modern", 64
TRAIN = """
import json, sys
from jaxcnn.runtime import heap
heap.keep_before_jax()
from jaxcnn.training import read_config, train
for report in train(read_config("lenet_digits", sys.argv[2:]), sys.argv[1]):
    pass
print(json.dumps(dict(report.values)))
"""
PARTS = {"steps_s": "training", "evaluation_s": "evaluation", "checkpoints_s": "checkpoints"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=50, help="steps (50)")
    parser.add_argument("--save", action="store_true", help="write results/long_run.json")
    args = parser.parse_args()
    rows = {
        "rarely": watched(args.steps, args.steps),
        "often": watched(args.steps, args.every),
    }
    for kind, row in rows.items():
        print(kind, json.dumps(row))
    if args.save:
        facts = {"network": NETWORK, "batch": BATCH, "steps": args.steps, "every": args.every}
        print(harness.save("long_run", rows, **facts))


def watched(steps: int, every: int) -> dict:
    """Trains; returns the seconds of each part, and memory and files of its second and last
    quarter."""
    with tempfile.TemporaryDirectory() as folder:
        fields = [f"{name}.every_steps={every}" for name in ("log", "eval", "checkpoint")]
        fields += [f"train.length_steps={steps}", f"train.batch_size={BATCH}"]
        began = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-c", TRAIN, f"{folder}/run", *fields],
            stdout=subprocess.PIPE,
            text=True,
        )
        seen = []
        while run.poll() is None:
            seen.append(state_of(run.pid))
            time.sleep(0.2)
        whole = time.perf_counter() - began
        assert run.stdout
        last = json.loads(run.stdout.read().splitlines()[-1])
    seen = [state for state in seen if state]
    count = len(seen)
    early, late = (
        [statistics.median(values) for values in zip(*part)]
        for part in (seen[count // 4 : count // 2], seen[3 * count // 4 :])
    )
    return {
        **{name: last["seconds"] * last["time_shares"][part] for name, part in PARTS.items()},
        "whole_s": whole,
        "memory_mib": [early[0], late[0]],
        "files": [early[1], late[1]],
    }


def state_of(pid: int) -> tuple[float, int] | None:
    """(resident MiB, open files) of a process; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return (int(lines[0].split()[1]) / 1024, files) if lines else None


if __name__ == "__main__":
    main()
