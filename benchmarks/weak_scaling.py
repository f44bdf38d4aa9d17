"""Weak scaling on paper: what bounds a step on more and more chips, from the counts of a plan.

`tables.py` writes its tables into docs/scaling.md. A chip keeps its number of images, so that its
arithmetic and its memory traffic stay those of the compiled program; only the ring of the
all-reduce grows. Nothing here was run.
"""

from __future__ import annotations

import math

from jaxcnn.analysis.chips import CHIPS

COUNTS = (1, 4, 16, 64, 256, 1024)
CHIPS_OF_A_WORKER = 4  # of a slice of several workers, of every generation
# ILSVRC2012's training images: the size of their archive over their number.
BYTES_PER_IMAGE = 147_897_477_120 / 1_281_167


def tables(plans: dict, pipeline: dict | None) -> str:
    """A table for each plan of photos."""
    rows = [row for row in plans["rows"] if row["plan"]["streamed"]]
    parts = [_table(row, _images_per_core(pipeline)) for row in rows]
    return "\n\n".join(["", *parts, ""])


def _images_per_core(pipeline: dict | None) -> float | None:
    """Photos that a core decodes, crops and resizes in a second, as measured."""
    rows = pipeline["rows"] if pipeline else []
    return next((row["images_per_s"] for row in rows if row["name"] == "jaxcnn"), None)


def _table(row: dict, per_core: float | None) -> str:
    plan = row["plan"]
    chip = CHIPS[plan["chip"]]
    images = plan["batch_size"] // plan["devices"]
    reduced = sum(found["bytes"] for found in plan["train"]["collectives"].values())
    lines = [
        f"`{row['name']}` on {chip.name}, {images} images a chip, {plan['dtype']}, counts of "
        f"`{row['command']}`:",
        "",
        "| chips | batch size | arithmetic ms | memory ms | all-reduce ms | bound by | images/s at "
        "most | images/s a worker | cores a worker | storage GB/s |",
        "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for count in COUNTS:
        if count > chip.most:
            break
        seconds = {
            "arithmetic": plan["seconds"]["arithmetic"],
            "memory": plan["seconds"]["memory"],
            "all-reduce": 2 * (count - 1) / count * reduced / chip.link_bytes_per_s,
        }
        bound = max(seconds, key=lambda name: seconds[name])
        rate = count * images / seconds[bound]
        worker = rate / math.ceil(count / CHIPS_OF_A_WORKER)
        cells = [
            f"{count:,}", f"{count * images:,}",
            *(f"{1e3 * value:.2f}" for value in seconds.values()), bound, f"{rate:,.0f}",
            f"{worker:,.0f}", f"{math.ceil(worker / per_core):,}" if per_core else "",
            f"{rate * BYTES_PER_IMAGE / 1e9:,.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
