"""Small sets that live on the device: seconds from the start of Python to the first step, images/s.

    python small_sets.py                                         # digits and synthetic
    python small_sets.py files:cifar10=DIR files:mnist=DIR       # and these, from their files

Each set is trained on by LeNet-5 in a process of its own, batch 128, by the loop of `train.py`;
images/s are those of the steps after the first ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

import harness

STEPS = 300
CHILD = """
import json, sys, time, tempfile
from jaxcnn.studies.study import make_config
from jaxcnn.data import catalog
from jaxcnn.training import train

began, steps = float(sys.argv[1]), int(sys.argv[4])
source, folder = sys.argv[2], sys.argv[3] or None
channels = catalog.load(source, "train[:1]", data_dir=folder).images.shape[-1]
config = make_config({
    "model.name": "lenet5", "model.options.channels": channels, "data.source": source,
    "data.dir": folder, "data.augment": (("pad_crop", 2),), "train.batch_size": 128,
    "train.length_steps": steps, "eval.every_steps": steps, "checkpoint.every_steps": steps,
    "log.every_steps": 100,
})
rates, first = [], None
with tempfile.TemporaryDirectory() as workdir:
    for report in train(config, workdir + "/run"):
        if report.kind == "step" and first is None:
            first = time.time() - began
        if report.kind == "train":
            rates.append(report.values["images_per_second"])
        if report.kind == "start":
            examples = report.values["train_examples"]
print(json.dumps({"examples": examples, "first_step_seconds": first, "images_per_s": rates[-1]}))
"""


def measure(source: str, folder: str) -> dict[str, float]:
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(time.time()), source, folder, str(STEPS)],
            capture_output=True, text=True, cwd=empty, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{source}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SOURCE[=DIR]", help="besides the two built in")
    parser.add_argument("--runs", type=int, default=2, help="the quickest counts")
    parser.add_argument("--save", action="store_true", help="write results/small_sets.json")
    args = parser.parse_args()
    rows = []
    for text in ["digits", "synthetic", *args.sets]:
        source, _, folder = text.partition("=")
        found = [measure(source, folder) for _ in range(args.runs)]
        row = {"source": source, "examples": found[0]["examples"]}
        row["first_step_seconds"] = min(one["first_step_seconds"] for one in found)
        row["images_per_s"] = max(one["images_per_s"] for one in found)
        rows.append(row)
        print(
            f"{source:20s} {row['examples']:7,} images   first step after "
            f"{row['first_step_seconds']:5.1f} s   {row['images_per_s']:9,.0f} images/s"
        )
    if args.save:
        print(harness.save("small_sets", rows, network="lenet5", batch=128, steps=STEPS))


if __name__ == "__main__":
    main()
