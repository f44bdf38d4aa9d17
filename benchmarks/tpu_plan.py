"""Plans whole runs for TPU slices, `jaxcnn plan`, and keeps the counts in results/tpu_plan.json.

    pip install 'jaxcnn[tpu]'
    python benchmarks/tpu_plan.py                       # all of RUNS (an hour on two cores)
    python benchmarks/tpu_plan.py --only resnet50 --on v5e:2x2

A row that is there already is replaced. The data are not needed: their published sizes are used.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ["JAX_PLATFORMS"] = "cpu"  # of arrays that are not the program's

import harness

from jaxcnn.analysis import plan, plan_text
from jaxcnn.training.config import read_config

_PHOTOS = ("model.dtype=bfloat16", "train.bn_sync=local", "train.bn_group=none")
# (name of the row, recipe, fields, images of a chip, slices)
RUNS = (
    ("lenet5", "mnist_lenet", (), 32, ("v5e:2x2",)),
    ("resnet20", "cifar_resnet", ("train.bn_sync=local",), 32, ("v5e:2x2",)),
    ("resnet50", "resnet_imagenet:goyal", _PHOTOS, 128, ("v5e:2x2", "v4:2x2x1", "v5p:2x2x1",
                                                          "v6e:2x2")),
    ("vgg16", "vgg:d", _PHOTOS, 64, ("v5e:2x2",)),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one of the rows")
    parser.add_argument("--on", help="one of its slices")
    args = parser.parse_args()
    for name, recipe, fields, images, slices in RUNS:
        for on in slices:
            if args.only in (None, name) and args.on in (None, on):
                add(name, recipe, fields, images, on)


def add(name: str, recipe: str, fields: tuple[str, ...], images: int, on: str) -> None:
    """Plans one run and replaces its row in the results."""
    target = plan.find_target(on)
    size = images * len(target.devices)
    fields = (*fields, f"train.batch_size={size}", f"eval.batch_size={size}")
    began = time.perf_counter()
    found = plan.plan_for(read_config(recipe, list(fields)), target)
    command = " ".join(["jaxcnn plan", recipe, *fields, "--on", on])
    seconds = time.perf_counter() - began
    row = {"name": name, "on": on, "command": command, "seconds": seconds}
    row["plan"] = plan_text.to_json(found)
    path = harness.RESULTS / "tpu_plan.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    rows = [other for other in rows if (other["name"], other["on"]) != (name, on)]
    harness.save("tpu_plan", [*rows, row])
    print(plan_text.to_text(found), flush=True)


if __name__ == "__main__":
    main()
