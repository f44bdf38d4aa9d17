"""Writes benchmarks/README.md, and parts of the project's README and docs, from results/*.json.

    python benchmarks/tables.py            # writes them
    python benchmarks/tables.py --check    # checks whether they are up to date
    python benchmarks/tables.py --print    # prints the page, also for BENCH_RESULTS=FOLDER

It measures nothing and does not import JAX. If a result file is missing, the page names the command
that creates it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import weak_scaling

HERE = Path(__file__).parent
RESULTS = Path(os.environ.get("BENCH_RESULTS") or HERE / "results")
PAGE, README = HERE / "README.md", HERE.parent / "README.md"
SCALING = HERE.parent / "docs" / "scaling.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

HEAD = """# Benchmarks

This page is generated from the files in [results](results) by `python benchmarks/tables.py`, and
a test checks that it is up to date. The two sides of a ratio were measured alternately in one run.
Each table states its machine, versions and date; different tables were measured on different days.
[NOTES.md](NOTES.md) describes what was tried and what it gained. `make bench` runs short versions
of all benchmarks.
"""


def against_torch(found: dict) -> str:
    """Step times of jaxcnn and PyTorch, in training and inference, by dtype."""
    torch = found["machine"]["torch"]
    parts = [
        "Time of a step of jaxcnn relative to the same step of PyTorch "
        f"{torch['versions']['torch']} ({torch['threads']} threads); below 1, jaxcnn is faster. "
        "*best* is the faster layout of PyTorch in that row. Brackets give the smallest and the "
        f"largest ratio of a round. {_processes(found['rows'])} LeNet-5 and the CIFAR networks "
        "use 32 x 32 images."
    ]
    for mode, title in (("train", "Training step"), ("infer", "Inference")):
        for dtype in sorted({row["dtype"] for row in found["rows"]}):
            rows = [r for r in found["rows"] if (r["mode"], r["dtype"]) == (mode, dtype)]
            if rows:
                mean = found["summary"][f"{mode} {dtype}"]
                header = ["network", "batch", "jaxcnn ms", "PyTorch eager ms", "best ms", "best",
                          "ratio to eager", "", "ratio to best"]  # fmt: skip
                lines = [_torch_row(row) for row in rows]
                lines.append(["geometric mean", "", "", "", "", "", _two(mean["ratio"]),
                              "", _two(mean["ratio_to_best"])])  # fmt: skip
                parts += [f"{title}, {dtype}:", table(header, lines, left=(0, 5))]
    return "\n\n".join([*parts, *_note(found)])


def _processes(rows: list[dict]) -> str:
    """How many processes a row comes from, and how they started: both affect a ratio."""
    counts = sorted({row["pairs"] for row in rows})
    pairs = " or ".join(map(str, counts)) + (" pair" if counts == [1] else " pairs")
    return (
        f"Each row comes from {pairs} of new processes; jaxcnn's processes read their compiled "
        "step from the cache."
    )


def _torch_row(row: dict) -> list[str]:
    forms = row["forms"]
    eager = forms.get("eager", forms[row["best"]])
    ends = f"[{_two(eager['ratio_min'])}, {_two(eager['ratio_max'])}]"
    times = [_ms(forms["jaxcnn"]), _ms(eager), _ms(forms[row["best"]])]
    return [f"`{row['model']}`", str(row["batch"]), *times, row["best"],
            _two(row["ratio"]), ends, _two(row["ratio_to_best"])]  # fmt: skip


def training_cpu(found: dict) -> str:
    """What each optimization of a small network's step gains."""
    lines = []
    for name, row in found["rows"].items():
        base = row["all optimizations"]
        lines.append([f"`{name}`", "all optimizations", _ms(base), "1", ""])
        lines += [["", form, _ms(one), *_ratio(one)] for form, one in row.items() if one != base]
    text = (
        "Steps with batch size 128 as in `train.py`, and with one optimization turned off. A ratio "
        "above 1 is the gain from that optimization."
    )
    return text + "\n\n" + table(["network", "variant", "ms", "ratio", ""], lines, 2)


def ops_steps(found: dict) -> str:
    """What each implementation of `jaxcnn.ops` gains in a whole training step."""
    lines = []
    for given, row in found["rows"].items():
        name, batch, size = given.split(",")
        base = row["all optimizations"]
        lines.append([f"`{name}`", batch, size, "all implementations", _ms(base), "1", ""])
        lines += [
            ["", "", "", kind, _ms(one), *_ratio(one)] for kind, one in row.items() if one != base
        ]
    text = (
        "Training steps in float32, and with the plain operations in place of one kind of "
        "implementation. A ratio above 1 is what that kind gains. GoogLeNet comes from three "
        "rounds, the others from five. In ResNet-20, 16 to 16 channels were still folded."
    )
    header = ["network", "batch", "pixels", "variant", "ms", "ratio", ""]
    return text + "\n\n" + table(header, lines, (0, 3))


def grouped_conv(found: dict) -> str:
    """XLA's grouped convolution and the package's."""
    header = ["layer", "groups", "forward: XLA ms", "jaxcnn ms", "ratio",
              "gradients: XLA ms", "jaxcnn ms", "ratio"]  # fmt: skip
    lines = []
    for row in found["rows"]:
        line = [row["layer"], str(row["groups"])]
        for part in (row["forward"], row["gradients"]):
            line += [_ms(part["native"]), _ms(part["ours"]), f"{part['native']['ratio']:.1f}"]
        lines.append(line)
    batch = found["rows"][0]["batch"]
    text = f"Time of XLA's implementation relative to that of `jaxcnn.ops`, batch size {batch}."
    return text + "\n\n" + table(header, lines)


def forms(found: dict) -> str:
    """Single operations with the usual implementation and with the package's."""
    lines = [
        [row["operation"], _ms(row["usual"]), _ms(row["ours"]), *_ratio(row["usual"])]
        for row in found["rows"]
    ]
    text = (
        "Forward and backward pass of a single operation; above 1, the package's implementation is "
        "faster."
    )
    return text + "\n\n" + table(["operation", "usual ms", "jaxcnn ms", "ratio", ""], lines)


def floors(found: dict) -> str:
    """XLA's own convolution kernels compared with a matrix product."""
    kinds = {"forward": "forward", "kernel": "gradient of the kernel", "images": "of the images"}
    lines = []
    for row in found["rows"]:
        batch, size, channels, features, kernel, stride = row["case"]
        shape = f"{batch}x{size}x{size}x{channels} to {features}, {kernel}x{kernel}/{stride}"
        shares = [f"{row[kind]['share']:.0%}" for kind in kinds]
        lines.append([row["convolution"], shape, f"{row['peak_gflops']:.0f}", *shares])
    text = (
        "The rate of each convolution on its own, with XLA's kernel, as a fraction of the rate of "
        "a matrix product on one core. No implementation built on that kernel can be faster."
    )
    header = ["convolution", "shape", "product GFLOP/s", *kinds.values()]
    return text + "\n\n" + table(header, lines, 2)


def startup(found: dict) -> str:
    """Import, initialization, compilation, and what the compilation cache saves."""
    rows = dict(found["rows"])
    took = rows.pop("import")
    text = (
        f"`import jaxcnn` takes {took['jaxcnn']:.2f} s and `import jax, flax.linen` "
        f"{took['jax, flax.linen']:.2f} s: JAX is imported when jaxcnn is first used."
    )
    if "jaxcnn.create_model" in took:
        text += (
            f" Importing it and creating a network takes {took['jaxcnn.create_model']:.2f} s, "
            f"{took['ratio']:.2f} times as long as importing JAX and Flax."
        )
    if whole := rows.pop("command", None):
        kinds = {"off": "without a cache", "cold": "with an empty one", "warm": "with a full one"}
        times = [f"{whole[f'first step, {k}']:.1f} s {how}" for k, how in kinds.items()]
        text += f" A short `jaxcnn train` makes its first step after {', '.join(times)}."
    header = ["network", "initialize: `jit` s", "jaxcnn s", "from the cache s",
              "compile the step s", "from the cache s"]  # fmt: skip
    keys = ("initialize, usual", "initialize, cold", "initialize, warm", "compile, cold",
            "compile, warm")  # fmt: skip
    lines = [[f"`{name}`", *(f"{row[key]:.2f}" for key in keys)] for name, row in rows.items()]
    return text + "\n\n" + table(header, lines)


def members(found: dict) -> str:
    """Several seeds in one program."""
    lines = []
    for name, row in found["rows"].items():
        for way, one in row.items():
            compiled = one.get("compile_seconds")
            seconds = f"{one['seconds']:.1f} s" if compiled is None else f"{_ms(one)} ms"
            compiling = "" if compiled is None else f"{compiled:.1f}"
            lines.append([name, way, str(one.get("members", "")), seconds, *_ratio(one), compiling])
    text = "A step of all members, one after another (*turn*) and in one program (*vmap*)."
    header = ["network", "variant", "members", "time", "ratio", "", "compile s"]
    return text + "\n\n" + table(header, lines, 2)


def small_sets(found: dict) -> str:
    """Time from the start of Python to the first step."""
    lines = [
        [f"`{row['source']}`", f"{row['examples']:,}", f"{row['first_step_seconds']:.1f}",
         f"{row['images_per_s']:,.0f}"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["dataset", "images", "first step after s", "images/s"]
    text = (
        f"`{found['network']}`, batch size {found['batch']}; times are measured from the start of "
        "Python."
    )
    return text + "\n\n" + table(header, lines)


def input_pipeline(found: dict) -> str:
    """Decoding and cropping on one core."""
    lines = [
        [row["name"], f"{row['images_per_s']:,.0f}", _two(row["speed"]),
         f"[{_two(row['speed_min'])}, {_two(row['speed_max'])}]"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["pipeline", "images/s on one core", "speed relative to Pillow", ""]
    size = found["size"]
    text = f"{found['files']} photos, resized to {size} x {size} pixels, on one core."
    return "\n\n".join(part for part in (text, table(header, lines), limits(found)) if part)


def limits(pipeline: dict) -> str:
    """One sentence: whether decoding or the step limits a run on photos, for each network."""
    found = load("against_torch")
    if found is None:
        return ""
    decoded = next(r["images_per_s"] for r in pipeline["rows"] if r["name"] == "jaxcnn")
    rates = {
        row["model"]: row["batch"] / row["forms"]["jaxcnn"]["seconds"]
        for row in found["rows"]
        if row["mode"] == "train" and row["dtype"] == "float32" and row["model"] not in SMALL
    }
    if not rates:
        return ""
    cores = found["machine"]["torch"]["threads"]
    device = " ".join(found["machine"]["devices"]).replace("cpu", "a CPU")
    listed = ", ".join(
        f"`{name}` {rate:,.1f}" for name, rate in sorted(rates.items(), key=lambda r: -r[1])
    )
    by_input = [f"`{name}`" for name, rate in rates.items() if rate > decoded]
    verdict = (
        f"one core of decoding limits {', '.join(by_input)}, the step all others"
        if by_input
        else "the step limits all of them, and decoding takes at most "
        f"{max(rates.values()) / decoded:.0%} of a core"
    )
    return (
        f"One core decodes {decoded:,.0f} images/s. Training on {device} with {cores} threads "
        f"consumes, in images/s: {listed}. So {verdict}."
    )


SMALL = ("lenet5", "resnet20_cifar")  # their images are not decoded


def gpu(found: dict) -> str:
    """Small networks, large ones in bfloat16, and seeds under vmap."""
    lines = []
    for row in found["rows"]:
        note = ""
        if "minutes" in row:
            note = f"{row['minutes']:.2f} min for {row['steps']:,} steps"
        elif row["subject"] == "run":
            first, error = row["first_step_seconds"], 100 * row["test_error"]
            note = (
                f"{row['steps']:,} steps in {row['seconds']:.0f} s, the first after {first:.0f} s: "
            )
            note += f"test error {error:.2f} %"
        elif row["subject"] == "seeds":
            note = f"{row['members']} seeds at {_two(row['ratio'])} of as many runs"
            note += f" ({row['form']})" if "form" in row else ""
        lines.append([
            row["subject"], f"`{row['model']}`", str(row["batch"]), row["dtype"],
            f"{row['steps_per_s']:,.1f}" if "steps_per_s" in row else "",
            f"{row['images_per_s']:,.0f}" if "images_per_s" in row else "", note,
        ])  # fmt: skip
    header = ["subject", "network", "batch", "type", "steps/s", "images/s", ""]
    return "\n\n".join([table(header, lines, 2), *_note(found)])


def gpu_against_torch(found: dict) -> str:
    """Step times of jaxcnn and PyTorch on a GPU, and throughput relative to ResNet-50."""
    torch = found["machine"]["torch"]["versions"]["torch"]
    parts = []
    for mode, name in (("train", "training"), ("infer", "inference")):
        if rows := [row for row in found["rows"] if row["mode"] == mode]:
            parts.append(_gpu_steps(rows, name, torch))
    return "\n\n".join([*parts, *_note(found)])


def _gpu_steps(rows: list[dict], name: str, torch: str) -> str:
    """Step times of one mode."""
    text = (
        f"Time of a step of jaxcnn in {name} relative to the same step of PyTorch {torch}; below "
        "1, jaxcnn is faster. The reference is the faster of eager channels-last and "
        "`torch.compile` "
        "of the network (default mode, without CUDA graphs). Where no compiled time is given, it "
        "was not measured and the ratio is to eager. Medians of "
        f"{rows[0]['rounds']} alternating rounds. *relative to ResNet-50*: images/s divided by "
        "those of ResNet-50, for jaxcnn, PyTorch eager "
        "and PyTorch compiled."
    )
    base = next((row for row in rows if row["model"] == "resnet50"), None)
    forms = ("jaxcnn", "channels_last", "compile")
    lines = []
    for row in rows:
        relative = [
            _two(_rate(row, form) / _rate(base, form))
            for form in forms
            if base and form in row["forms"] and form in base["forms"]
        ]
        times = [_ms(row["forms"][form]) if form in row["forms"] else "" for form in forms]
        lines.append([
            f"`{row['model']}`", str(row["batch"]), row["dtype"], *times,
            f"{_rate(row, 'jaxcnn'):,.0f}", *_ratio(row), ", ".join(relative),
        ])  # fmt: skip
    header = ["network", "batch", "type", "jaxcnn ms", "eager ms", "compile ms",
              "images/s", "ratio", "", "relative to ResNet-50"]  # fmt: skip
    if ratios := _compiled(rows):
        mean = _two(geometric_mean(ratios))
        lines.append(["geometric mean where both", *[""] * 6, mean, "", ""])
    return f"{text}\n\n{table(header, lines, left=(0, 2))}"


def gpu_first_forms(found: dict) -> str:
    """Steps before there were GPU implementations, and with some that were tried."""
    header = ["network and variant", "batch", "type", "jaxcnn ms", "eager ms", "compile ms"]
    lines = []
    for row in found["rows"]:
        times = row["milliseconds"]
        shown = [f"{times[form]:,.1f}" if form in times else ""
                 for form in ("jaxcnn", "channels_last", "compile")]  # fmt: skip
        lines.append([row["form"], str(row["batch"]), row["dtype"], *shown])
    text = (
        "Times before there were GPU implementations (except of max pooling), and with single "
        "candidates. NOTES.md describes the outcome."
    )
    return "\n\n".join([text, table(header, lines, left=(0, 2)), *_note(found)])


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
        [name, f"{amount(ours):,.3f}", f"{amount(plain):,.3f}", _two(amount(ours) / amount(plain))]
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
            _two(train["memory"]["temporaries"] / kept), _two(train["traffic"] / kept),
            f"{train['flops'] / 1e9:,.0f}", ", ".join(kinds), _two(evaluate["traffic"] / kept),
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
        [f"`{row['name']}`", row["on"], _two(train["bytes"] / row["train"]["bytes"]),
         _two(train["traffic"] / row["train"]["traffic"]),
         _two(train["memory"]["temporaries"] / row["train"]["memory"]["temporaries"]),
         _two(train["flops"] / row["train"]["flops"])]
        for train, row in pairs
    ]  # fmt: skip
    text = (
        "The same steps relative to those with BatchNorm, shortcut and ReLU as in plain Flax Linen "
        "(`--plain`); below 1, this package needs less:"
    )
    header = ["network", "slice", "bytes by XLA's count", "traffic", "temporaries", "FLOPs"]
    return [text, table(header, lines, left=(0, 1))]


def evaluation(found: dict) -> str:
    """Evaluations and predictions relative to the network alone."""
    text = (
        "Views a second of whole evaluations relative to the network alone on batches that are "
        "there: 50,000 random images in memory, and photos that threads read, decode and resize "
        "on the cores on which the network computes."
    )
    lines = [
        [f"`{row['model']}`", row["source"], row["protocol"], f"{row['alone']:,.1f}",
         f"{row['whole']:,.1f}", _two(row["ratio"]),
         f"[{_two(row['ratio_min'])}, {_two(row['ratio_max'])}]"]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["network", "images", "protocol", "views/s alone", "views/s in all", "ratio", ""]
    return f"{text}\n\n{table(header, lines, left=(0, 1, 2))}"


def memory(found: dict) -> str:
    """Peak memory of training steps relative to PyTorch's, with and without rematerialization."""
    torch = found["machine"]["torch"]["versions"]["torch"]
    text = (
        "Peak memory of a training step in float32, by the allocators of XLA and of PyTorch "
        f"{torch} (in the layout that needs less). *cheap* is `remat=cheap`, which stores only the "
        "outputs of convolutions; its time is that of a step of 4 images relative to the step "
        "without it."
    )
    lines = []
    for row in found["rows"]:
        sizes = {form: one["bytes"] for form, one in row["forms"].items()}
        least = min(sizes["eager"], sizes["channels_last"])
        cheap = row["forms"]["cheap"]
        lines.append([
            f"`{row['model']}`", str(row["batch"]),
            *(f"{size / 2**20:,.0f}" for size in (least, sizes["jaxcnn"], sizes["cheap"])),
            _two(sizes["jaxcnn"] / least), _two(sizes["cheap"] / least), *_ratio(cheap),
        ])  # fmt: skip
    header = ["network", "batch", "PyTorch MiB", "jaxcnn MiB", "cheap MiB", "ratio",
              "ratio of cheap", "time of cheap", ""]  # fmt: skip
    return f"{text}\n\n{table(header, lines)}"


def long_run(found: dict) -> str:
    """A long run that logs, evaluates and saves all the time."""
    often, rarely = (found["rows"][kind] for kind in ("often", "rarely"))
    text = (
        f"`{found['network']}`, {found['steps']:,} steps of {found['batch']} digits. *often* logs, "
        f"evaluates and saves a checkpoint every {found['every']} steps, *rarely* at the end only. "
        "Resident memory and open files of the process are medians of the second and of the last "
        "quarter of the run."
    )
    lines = [
        [kind, f"{row['steps_s']:.1f}", f"{1e3 * row['steps_s'] / found['steps']:.2f}",
         f"{row['evaluation_s']:.1f}", f"{row['checkpoints_s']:.1f}", f"{row['whole_s']:.1f}",
         f"{row['memory_mib'][0]:,.0f}, {row['memory_mib'][1]:,.0f}",
         f"{row['files'][0]:.0f}, {row['files'][1]:.0f}"]
        for kind, row in (("often", often), ("rarely", rarely))
    ]  # fmt: skip
    header = ["kind", "steps s", "ms a step", "evaluation s", "checkpoints s", "run s", "MiB",
              "open files"]  # fmt: skip
    return f"{text}\n\n{table(header, lines)}"


def _note(found: dict) -> list[str]:
    """A result file's remarks on how it was measured."""
    return [found["note"]] if "note" in found else []


def _compiled(rows: list[dict]) -> list[float]:
    """The ratios of rows for which both eager and compiled PyTorch were measured."""
    return [row["ratio"] for row in rows if "compile" in row["forms"]]


def _rate(row: dict, form: str) -> float:
    return row["batch"] / row["forms"][form]["seconds"]


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


# Subject, result file, the command that creates it, and the function that renders it.
SUBJECTS: tuple[tuple[str, str, str, Callable[[dict], str]], ...] = (
    ("Against PyTorch on a CPU", "against_torch",
     "python benchmarks/against_torch.py --torch-python PYTHON", against_torch),
    ("Against PyTorch on a CPU with AVX-512", "against_torch_avx512",
     "python benchmarks/against_torch.py --torch-python PYTHON --name against_torch_avx512",
     against_torch),
    ("Memory of training steps on a CPU", "memory",
     "python benchmarks/memory.py --torch-python PYTHON --save", memory),
    ("A run that saves often", "long_run", "python benchmarks/long_run.py --save", long_run),
    ("Small networks on a CPU", "training_cpu", "python benchmarks/training_cpu.py", training_cpu),
    ("Operations in whole training steps on a CPU", "ops_steps", "python benchmarks/ops_steps.py",
     ops_steps),
    ("Grouped convolution on a CPU", "grouped_conv", "python benchmarks/grouped_conv.py",
     grouped_conv),
    ("Single operations on a CPU", "forms", "python benchmarks/forms.py", forms),
    ("Kernels of XLA on a CPU", "floors", "python benchmarks/floors.py", floors),
    ("Startup", "startup", "python benchmarks/startup.py", startup),
    ("Small datasets, from start to first step", "small_sets",
     "python benchmarks/small_sets.py --save", small_sets),
    ("Several seeds together", "members_cpu", "python benchmarks/members.py --run", members),
    ("Input pipeline", "input_pipeline",
     "python benchmarks/input_pipeline.py --folder PHOTOS --archive 400 --archive 256 "
     "--seconds 4 --save", input_pipeline),
    ("Evaluation", "evaluation", "python benchmarks/evaluation.py --folder PHOTOS --save",
     evaluation),
    ("Against PyTorch on a GPU", "gpu_against_torch", "python benchmarks/gpu_against_torch.py",
     gpu_against_torch),
    ("Implementations tried on a GPU", "gpu_first_forms", "", gpu_first_forms),
    ("Recipes and seeds on a GPU", "gpu", "python benchmarks/gpu.py", gpu),
    ("Runs planned for TPUs", "tpu_plan", "python benchmarks/tpu_plan.py", tpu_plan),
    ("ResNet-50 against plain Linen on a TPU", "tpu_program",
     "python benchmarks/tpu_program.py --save", tpu_program),
    ("Networks of every family on a TPU", "tpu_networks",
     "python benchmarks/tpu_networks.py --compile --save", tpu_networks),
)  # fmt: skip


def page() -> str:
    """benchmarks/README.md."""
    parts = [HEAD]
    for title, name, command, show in SUBJECTS:
        found = load(name)
        parts.append(f"## {title}\n")
        if found is None:
            parts.append(f"Not measured yet: `{command}` writes results/{name}.json.\n")
        else:
            made_by = f" `{command}`" if command else ""
            parts += [f"{machine(found['machine'])}{made_by}\n", show(found) + "\n"]
    return "\n".join(parts)


def headline() -> str:
    """The rows of the project's README."""
    lines = []
    for name in ("against_torch", "against_torch_avx512"):
        if found := load(name):
            lines += _torch_means(found)
    if found := load("gpu_against_torch"):
        lines += _gpu_lines(found)
    if found := load("grouped_conv"):
        gains = [row["gradients"]["native"]["ratio"] for row in found["rows"]]
        lines.append(["Speedup of a grouped convolution's gradients over XLA's own",
                      f"{min(gains):.0f} to {max(gains):.0f}"])  # fmt: skip
    if found := load("startup"):
        kinds = ("cold", "warm")
        rows = {k: v for k, v in found["rows"].items() if k not in ("import", "command")}
        for name, row in rows.items():
            cold, warm = (row[f"initialize, {k}"] + row[f"compile, {k}"] for k in kinds)
            lines.append([f"`{name}`: time to initialize and compile, on the first start and later",
                          f"{cold:.1f} s, {warm:.1f} s"])  # fmt: skip
    if found := load("input_pipeline"):
        ours = next(row for row in found["rows"] if row["name"] == "jaxcnn")
        lines.append(["JPEG files to batches: images/s on one core, and speedup over Pillow",
                      f"{ours['images_per_s']:,.0f}, {_two(ours['speed'])}"])  # fmt: skip
    if found := load("gpu"):
        device = ", ".join(found["machine"]["devices"])
        for row in found["rows"]:
            what = f"`{row['model']}`, {row['dtype']}, "
            if "minutes" in row:
                what += f"{row['steps']:,} steps of {row['batch']} on {device}"
                lines.append([what, f"{row['minutes']:.1f} min"])
            elif row["subject"] == "run":
                what += f"CIFAR-10 on {device}: a whole run, test error"
                lines.append([what, f"{row['seconds']:.0f} s, {100 * row['test_error']:.2f} %"])
    else:
        lines.append(
            ["The CIFAR recipes on a GPU", "not measured yet (`python benchmarks/gpu.py`)"]
        )
    return table(["measured", "figure"], lines, left=(0, 1))


def _gpu_lines(found: dict) -> list[list[str]]:
    """Mean ratios with and without LeNet-5, whose step is mostly launches; ResNet-50's rates."""
    device = ", ".join(found["machine"]["devices"])
    rows = [row for row in found["rows"] if row["mode"] == "train"]
    version = found["machine"]["torch"]["versions"]["torch"]
    lines = []
    for without, remark in (((), ""), (("lenet5",), ", without LeNet-5")):
        if ratios := _compiled([row for row in rows if row["model"] not in without]):
            lines.append([
                f"Time of a training step, bfloat16, relative to PyTorch {version} (the faster of "
                f"eager and compiled) on {device}, {len(ratios)} networks{remark}",
                f"{_two(geometric_mean(ratios))} (worst {_two(max(ratios))})",
            ])  # fmt: skip
    for row in rows:
        if row["model"] == "resnet50":
            rates = [f"{_rate(row, form):,.0f}" for form in ("jaxcnn", row["best"])]
            what = f"`resnet50` on {device}, images/s in training, and PyTorch's"
            lines.append([what, ", ".join(rates)])
    return lines


def _torch_means(found: dict) -> list[list[str]]:
    """A row per mode and dtype: relative to eager PyTorch in its faster and its default layout."""
    version = found["machine"]["torch"]["versions"]["torch"]
    devices = found["machine"]["devices"]
    device = found["machine"]["cpu"] if devices == ["cpu"] else ", ".join(devices)
    lines = []
    for key, mean in found["summary"].items():
        mode, dtype = key.split()
        what = f"{'training step' if mode == 'train' else 'prediction'}, {dtype}"
        rows = [r for r in found["rows"] if (r["mode"], r["dtype"]) == (mode, dtype)]
        worst = max(row["ratio_to_best"] for row in rows)
        lines.append([
            f"Time of a {what}, relative to PyTorch {version} on {device}, {len(rows)} networks",
            f"{_two(mean['ratio_to_best'])} of its faster layout (worst {_two(worst)}); "
            f"{_two(mean['ratio'])} of its default one",
        ])  # fmt: skip
    return lines


def machine(found: dict) -> str:
    """A sentence: where and when, and with which versions."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    devices = f"{found['device_count']} x {', '.join(found['devices'])}"
    cores = f"{found['cores']} core{'s' if found['cores'] != 1 else ''}"
    where = f"{found['cpu']}, {cores}" + ("" if found["devices"] == ["cpu"] else f", {devices}")
    return f"{where}; Python {found['python']}, {versions}; {found['date']}."


def load(name: str) -> dict[str, Any] | None:
    """A result file, None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def table(header: list[str], rows: Iterable[list[str]], left: int | tuple[int, ...] = 1) -> str:
    """Markdown. `left` columns, a number from the left or their indices, are text."""
    text = range(left) if isinstance(left, int) else left
    rule = ["---" if i in text else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def _two(value: float) -> str:
    return f"{value:.2f}"


def _ms(form: dict) -> str:
    return f"{1e3 * form['seconds']:,.1f}"


def _ratio(form: dict) -> tuple[str, str]:
    return _two(form["ratio"]), f"[{_two(form['ratio_min'])}, {_two(form['ratio_max'])}]"


def insert(document: str, text: str) -> str:
    """The document with `text` between its two marks.

    Raises:
      ValueError: a mark is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README.name} lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def made() -> dict[Path, str]:
    """Each file and what it should hold."""
    plans = load("tpu_plan")
    text = "Not compiled yet."
    if plans:
        text = weak_scaling.tables(plans, load("tpu_networks"), load("input_pipeline"))
    return {
        PAGE: page(),
        README: insert(README.read_text("utf-8"), headline()),
        SCALING: insert(SCALING.read_text("utf-8"), text),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    parser.add_argument("--print", action="store_true", help="print the page, write nothing")
    args = parser.parse_args()
    if args.print:
        print(page())
        return
    for path, text in made().items():
        same = path.exists() and path.read_text("utf-8") == text
        if not (same or args.check):
            path.write_text(text, "utf-8")
        print(f"{path.relative_to(HERE.parent)}: {'as it was' if same else 'stale'}"
              f"{'' if same or args.check else ', written'}")  # fmt: skip
        if args.check and not same:
            sys.exit(1)


if __name__ == "__main__":
    main()
