"""Weak scaling on paper: what bounds a step on more and more chips, from the counts of a plan.

`tables.py` writes its tables into docs/scaling.md. A chip keeps its number of images, so that its
arithmetic and its memory traffic stay those of the compiled program; only the ring of the
all-reduce grows. The programs were compiled for v5e; their counts serve for the other generations
as well, for which XLA makes other programs. Nothing here was run.
"""

from __future__ import annotations

import math

from jaxcnn.analysis.chips import CHIPS

COUNTS = (1, 4, 16, 64, 256, 1024)
KINDS = ("v4", "v5e", "v5p", "v6e")
CHIPS_OF_A_WORKER = 4  # of a slice of several workers, of every generation
# ILSVRC2012's training images: the size of their archive over their number.
BYTES_PER_IMAGE = 147_897_477_120 / 1_281_167


def tables(plans: dict, networks: dict | None, pipeline: dict | None) -> str:
    """A table for each plan of photos, and one for VGG-16."""
    per_core = _images_per_core(pipeline)
    parts = []
    for row in plans["rows"]:
        plan = row["plan"]
        if plan["streamed"]:
            images = plan["batch_size"] // plan["devices"]
            parts += _table(row["name"], plan["train"], images, row["command"], per_core)
    for row in networks["rows"] if networks else []:
        if row["name"] == "vgg_d" and row["form"] == "jaxcnn":
            command = "python benchmarks/tpu_networks.py --compile vgg_d"
            parts += _table("vgg_d", row["train"], row["images"], command, per_core)
    return "\n\n".join(["", *parts, ""])


def _images_per_core(pipeline: dict | None) -> float | None:
    """Photos that a core decodes, crops and resizes in a second, as measured."""
    rows = pipeline["rows"] if pipeline else []
    return next((row["images_per_s"] for row in rows if row["name"] == "jaxcnn"), None)


def _table(name: str, counts: dict, images: int, command: str, per_core: float | None) -> list[str]:
    """A sentence and a table: the bounds of a step of the counts on each kind of chip."""
    reduced = sum(found["bytes"] for found in counts["collectives"].values())
    held = counts["memory"]["arguments"] / 1e9
    text = (
        f"`{name}`, {images} images a chip, bfloat16, counts of `{command}`. Parameters, momentum, "
        f"statistics and the batch of a chip take {held:.2f} GB. A checkpoint, which leaves out "
        f"the batch, takes at most {held:.2f} s at 1 GB/s, while training goes on."
    )
    lines = [
        "| chip | chips | batch size | arithmetic ms | memory ms | all-reduce ms | bound by | "
        "images/s at most | images/s a worker | cores a worker | storage GB/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for chip in (CHIPS[kind] for kind in KINDS):
        for count in COUNTS:
            if count > chip.most:
                break
            seconds = {
                "arithmetic": counts["flops"] / chip.flops_per_s["bfloat16"],
                "memory": counts["traffic"] / chip.bytes_per_s,
                "all-reduce": 2 * (count - 1) / count * reduced / chip.link_bytes_per_s,
            }
            bound = max(seconds, key=lambda name: seconds[name])
            rate = count * images / seconds[bound]
            worker = rate / math.ceil(count / CHIPS_OF_A_WORKER)
            cells = [
                chip.name, f"{count:,}", f"{count * images:,}",
                *(f"{1e3 * value:.2f}" for value in seconds.values()), bound, f"{rate:,.0f}",
                f"{worker:,.0f}", f"{math.ceil(worker / per_core):,}" if per_core else "",
                f"{rate * BYTES_PER_IMAGE / 1e9:,.2f}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [text, "\n".join(lines)]
