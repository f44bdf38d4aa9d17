"""Tables of what was compiled for TPUs."""

from __future__ import annotations

from page_parts import table, two


def tpu_plan(found: dict) -> str:
    """What runs need on TPU slices, as compiled without them."""
    text = (
        "Programs that were compiled for TPU slices without the slices, and never run. Counts are "
        "those of XLA, for one chip and one training step. The time is the least that the chip's "
        "published peaks allow for the largest of arithmetic, memory traffic and collectives, so "
        "the images per second of a chip are at most those. Traffic is the part of the bytes that "
        "the program does not keep in on-chip memory. Compilation shared two busy cores."
    )
    header = ["run", "slice", "images a chip", "type", "memory GiB", "GFLOP", "GB by XLA",
              "traffic GB", "all-reduce MB", "bound by", "ms at least", "images/s at most",
              "compiled in s"]  # fmt: skip
    lines = []
    for row in found["rows"]:
        plan = row["plan"]
        train, seconds = plan["train"], plan["seconds"]
        reduced = train["collectives"].get("all-reduce", {"bytes": 0})["bytes"]
        lines.append([
            f"`{row['name']}`", plan["target"], f"{plan['batch_size'] // plan['devices']:,}",
            plan["dtype"], f"{sum(train['memory'].values()) / 2**30:.2f}",
            f"{train['flops'] / 1e9:,.1f}", f"{train['bytes'] / 1e9:,.2f}",
            f"{train['traffic'] / 1e9:,.2f}", f"{reduced / 1e6:,.1f}",
            max(seconds, key=seconds.get), f"{1e3 * plan['step_seconds']:,.2f}",
            f"{plan['images_per_s'] / plan['devices']:,.0f}", f"{row['seconds']:,.0f}",
        ])  # fmt: skip
    commands = "\n".join(row["command"] for row in found["rows"])
    return "\n\n".join([text, table(header, lines, left=(0, 1, 3, 9)), f"```sh\n{commands}\n```"])


def tpu_program(found: dict) -> str:
    """ResNet-50 of jaxcnn and in plain Linen, compiled for the same chips."""
    ours, plain = (next(r for r in found["rows"] if r["name"] == n) for n in ("jaxcnn", "linen"))
    text = (
        f"ResNet-50 for {ours['on']}, {ours['images']} images a chip, bfloat16, BatchNorm "
        "statistics of each chip, the same step and optimizer; `plain_linen.py` has the network in "
        "plain Flax Linen. Compiled without the chips and never run; XLA's counts for one chip and "
        "step."
    )
    amounts = {
        "FLOPs (TFLOP)": lambda row: row["flops"] / 1e12,
        "bytes by XLA's count (GB)": lambda row: row["bytes"] / 1e9,
        "traffic outside the chip (GB)": lambda row: row["traffic"] / 1e9,
        "temporaries (GiB)": lambda row: row["memory"]["temporaries"] / 2**30,
        "collectives": lambda row: sum(c["count"] for c in row["collectives"].values()),
    }
    lines = [
        [name, f"{amount(ours):,.3f}", f"{amount(plain):,.3f}", two(amount(ours) / amount(plain))]
        for name, amount in amounts.items()
    ]
    return f"{text}\n\n{table(['count', 'jaxcnn', 'plain Linen', 'ratio'], lines)}"


def tpu_networks(found: dict) -> str:
    """What a training step of networks of each family needs, in relation to its activations."""
    rows = [row for row in found["rows"] if row["form"] == "jaxcnn"]
    text = (
        f"Training and evaluation steps in bfloat16 of {len(rows)} networks, with "
        "BatchNorm statistics of each chip, compiled without the chips and never run. Activations "
        "are the outputs of convolutions, pools and dense layers (`jaxcnn summary`), which the "
        "backward pass needs; temporaries and traffic outside the chip are multiples of them. The "
        "parameters and their optimizer are part of the traffic. "
        "Collectives are all-reduces, unless another kind is named."
    )
    header = ["network", "slice", "images a chip", "activations MiB", "temporaries", "traffic",
              "GFLOP", "collectives", "traffic of evaluation", "compiled in s"]  # fmt: skip
    lines = []
    for row in rows:
        train, evaluate, kept = row["train"], row["evaluate"], row["activation_bytes"]
        kinds = [
            f"{c['count']:.0f}" + ("" if kind == "all-reduce" else f" {kind}")
            for kind, c in train["collectives"].items()
        ]
        lines.append([
            f"`{row['name']}`", row["on"], str(row["images"]), f"{kept / 2**20:,.0f}",
            two(train["memory"]["temporaries"] / kept), two(train["traffic"] / kept),
            f"{train['flops'] / 1e9:,.0f}", ", ".join(kinds), two(evaluate["traffic"] / kept),
            f"{train['seconds'] + evaluate['seconds']:,.0f}",
        ])  # fmt: skip
    parts = [text, table(header, lines, left=(0, 1, 7)), *_against_plain(found["rows"])]
    return "\n\n".join(parts)


def _against_plain(rows: list[dict]) -> list[str]:
    """Training steps of this package relative to those with plain BatchNorm."""
    ours = {(row["name"], row["on"]): row for row in rows if row["form"] == "jaxcnn"}
    pairs = [(ours[row["name"], row["on"]]["train"], row) for row in rows if row["form"] == "plain"]
    if not pairs:
        return []
    lines = [
        [f"`{row['name']}`", row["on"], two(train["bytes"] / row["train"]["bytes"]),
         two(train["traffic"] / row["train"]["traffic"]),
         two(train["memory"]["temporaries"] / row["train"]["memory"]["temporaries"]),
         two(train["flops"] / row["train"]["flops"])]
        for train, row in pairs
    ]  # fmt: skip
    text = (
        "The same steps relative to those with BatchNorm, shortcut and ReLU as in plain Flax Linen "
        "(`--plain`); below 1, this package needs less:"
    )
    header = ["network", "slice", "bytes by XLA's count", "traffic", "temporaries", "FLOPs"]
    return [text, table(header, lines, left=(0, 1))]
