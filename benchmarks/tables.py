"""Writes benchmarks/README.md, and parts of the project's README and docs, from results/*.json.

    python benchmarks/tables.py            # writes them
    python benchmarks/tables.py --check    # checks whether they are up to date
    python benchmarks/tables.py --print    # prints the page, also for BENCH_RESULTS=FOLDER

It measures nothing and does not import JAX. If a result file is missing, the page names the command
that creates it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import tables_cpu
import tables_gpu
import tables_studies
import tables_tpu
import weak_scaling
from page_parts import compiled, load, machine, rate, table, two

HERE = Path(__file__).parent
PAGE, README = HERE / "README.md", HERE.parent / "README.md"
SCALING, STUDIES = (HERE.parent / "docs" / name for name in ("scaling.md", "studies.md"))
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

HEAD = """# Benchmarks

This page is generated from the files in [results](results) by `python benchmarks/tables.py`, and
a test checks that it is up to date. The two sides of a ratio were measured alternately in one run.
Times are medians over the rounds and a ratio is the median of the rounds' ratios, so it is in
general not the quotient of the two times beside it. Each table states its machine, versions and
date; different tables were measured on different days. [NOTES.md](NOTES.md) describes
what was tried and what it gained. `make bench` runs short versions of all benchmarks.
"""


# Subject, result file, the command that creates it, and the function that renders it.
SUBJECTS: tuple[tuple[str, str, str, Callable[[dict], str]], ...] = (
    ("Against PyTorch on a CPU", "against_torch",
     "python benchmarks/against_torch.py --torch-python PYTHON", tables_cpu.against_torch),
    ("Against PyTorch on a CPU with AVX-512", "against_torch_avx512",
     "python benchmarks/against_torch.py --torch-python PYTHON --name against_torch_avx512",
     tables_cpu.against_torch),
    ("Memory of training steps on a CPU", "memory",
     "python benchmarks/memory.py --torch-python PYTHON --save", tables_cpu.memory),
    ("A run that saves often", "long_run", "python benchmarks/long_run.py --steps 8000 --save",
     tables_cpu.long_run),
    ("Small networks on a CPU", "training_cpu", "python benchmarks/training_cpu.py",
     tables_cpu.training_cpu),
    ("Operations in whole training steps on a CPU", "ops_steps", "python benchmarks/ops_steps.py",
     tables_cpu.ops_steps),
    ("Grouped convolution on a CPU", "grouped_conv", "python benchmarks/grouped_conv.py",
     tables_cpu.grouped_conv),
    ("Single operations on a CPU", "forms", "python benchmarks/forms.py", tables_cpu.forms),
    ("Kernels of XLA on a CPU", "floors", "python benchmarks/floors.py", tables_cpu.floors),
    ("Startup", "startup", "python benchmarks/startup.py", tables_cpu.startup),
    ("Small datasets, from start to first step", "small_sets",
     "python benchmarks/small_sets.py --save", tables_cpu.small_sets),
    ("Studies on CIFAR-10", "cifar_studies", "python benchmarks/cifar_studies.py --data DIR",
     tables_studies.cifar_studies),
    ("Small sets of photos", "small_photos",
     "python benchmarks/small_photos.py --tiny DIR --pets DIR", tables_studies.small_photos),
    ("Several seeds together", "members_cpu", "python benchmarks/members.py --run",
     tables_cpu.members),
    ("Input pipeline", "input_pipeline",
     "python benchmarks/input_pipeline.py --folder PHOTOS --archive 400 --archive 256 "
     "--seconds 4 --save", tables_cpu.input_pipeline),
    ("Evaluation", "evaluation", "python benchmarks/evaluation.py --folder PHOTOS --save",
     tables_cpu.evaluation),
    ("Against PyTorch on a GPU", "gpu_against_torch", "python benchmarks/gpu_against_torch.py",
     tables_gpu.gpu_against_torch),
    ("Implementations tried on a GPU", "gpu_first_forms", "", tables_gpu.gpu_first_forms),
    ("Recipes and seeds on a GPU", "gpu", "python benchmarks/gpu.py", tables_gpu.gpu),
    ("Runs planned for TPUs", "tpu_plan", "python benchmarks/tpu_plan.py", tables_tpu.tpu_plan),
    ("ResNet-50 against plain Linen on a TPU", "tpu_program",
     "python benchmarks/tpu_program.py --save", tables_tpu.tpu_program),
    ("Networks of every family on a TPU", "tpu_networks",
     "python benchmarks/tpu_networks.py --compile --save", tables_tpu.tpu_networks),
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
                      f"{ours['images_per_s']:,.0f}, {two(ours['speed'])}"])  # fmt: skip
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
        if ratios := compiled([row for row in rows if row["model"] not in without]):
            lines.append([
                f"Time of a training step, bfloat16, relative to PyTorch {version} (the faster of "
                f"eager and compiled) on {device}, {len(ratios)} networks{remark}",
                f"{two(statistics.geometric_mean(ratios))} (worst {two(max(ratios))})",
            ])  # fmt: skip
    for row in rows:
        if row["model"] == "resnet50":
            rates = [f"{rate(row, form):,.0f}" for form in ("jaxcnn", row["best"])]
            what = f"`resnet50` on {device}, images/s in training, and PyTorch's"
            lines.append([what, ", ".join(rates)])
    return lines


def _torch_means(found: dict) -> list[list[str]]:
    """A row per mode and dtype: relative to the fastest form of PyTorch and to its default one."""
    version = found["machine"]["torch"]["versions"]["torch"]
    devices = found["machine"]["devices"]
    device = found["machine"]["cpu"] if devices == ["cpu"] else ", ".join(devices)
    lines = []
    for key, mean in found["summary"].items():
        mode, dtype = key.split()
        what = f"{'training step' if mode == 'train' else 'prediction of a batch'}, {dtype}"
        rows = [r for r in found["rows"] if (r["mode"], r["dtype"]) == (mode, dtype)]
        worst = max(row["ratio_to_best"] for row in rows)
        lines.append([
            f"Time of a {what}, relative to PyTorch {version} on {device}, {len(rows)} networks",
            f"{two(mean['ratio_to_best'])} of its fastest form "
            f"(geometric mean; worst {two(worst)}); "
            f"{two(mean['ratio'])} of its default one",
        ])  # fmt: skip
    return lines


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
    studies = load("cifar_studies")
    return {
        PAGE: page(),
        README: insert(README.read_text("utf-8"), headline()),
        SCALING: insert(SCALING.read_text("utf-8"), text),
        STUDIES: insert(STUDIES.read_text("utf-8"), tables_studies.sections(studies)),
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
