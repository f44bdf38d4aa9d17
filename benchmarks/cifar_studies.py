"""Studies on CIFAR-10 with three seeds, shorter than published: their tables and figures.

    python benchmarks/cifar_studies.py --data DIR              # all of them: many hours
    python benchmarks/cifar_studies.py --data DIR kernels dropout

DIR has the binary files of CIFAR-10. Each study is one call of `jaxcnn ablate`, in a directory
below --workdir; finished runs are not repeated, so an interrupted call continues. A finished study
replaces its row in results/cifar_studies.json and its figure in docs/_static/studies.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import page_parts

from jaxcnn.studies import files
from jaxcnn.training.output.metrics_files import read_rows

FIGURES = Path(__file__).parents[1] / "docs" / "_static" / "studies"
SEEDS = 3
# Steps of 128 images, from 64,000 as published: what a laptop does in an hour or two.
STEPS = {
    "kernels": 3000,
    "batch_norm": 3000,
    "dropout": 3000,
    "inception_modules": 1500,
    "squeeze_excitation": 1500,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--data", required=True, metavar="DIR", help="files of CIFAR-10")
    parser.add_argument("--workdir", default="runs/cifar_studies", help="(%(default)s)")
    args = parser.parse_args()
    if unknown := set(args.studies) - set(STEPS):
        parser.error(f"unknown study {min(unknown)!r}; it must be one of {', '.join(STEPS)}")
    for name in args.studies or STEPS:
        folder = Path(args.workdir) / name
        fields = [f"train.length_steps={STEPS[name]}", "data.source=files:cifar10"]
        command = ["ablate", name, "--full", "--seeds", str(SEEDS), *fields]
        arguments = [*command, f"data.dir={args.data}", "--workdir", str(folder)]
        subprocess.run([sys.executable, "-m", "jaxcnn.cli", *arguments], check=True)
        keep(name, folder, " ".join(["jaxcnn", *command, "data.dir=DIR"]))


def keep(name: str, folder: Path, command: str) -> None:
    """Puts a finished study into the result file, and its figure into the docs."""
    kept = page_parts.load("cifar_studies")
    rows = kept["rows"] if kept else {}
    found = files.read_results(folder)
    rows[name] = {
        "command": command,
        "minutes": sum(seconds_of(run) for run in files.run_directories(folder)) / 60,
        "machine": harness.machine(),
        **{key: found[key] for key in ("title", "source", "rows")},
    }
    print(harness.save("cifar_studies", rows))
    FIGURES.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / files.FIGURE, FIGURES / f"{name}.png")


def seconds_of(run: Path) -> float:
    """Seconds that the steps, evaluations and checkpoints of a run took, compiling left out."""
    total, before = 0.0, 0
    for row in read_rows(run):
        if row["kind"] == "train":
            total += row["step_ms"] / 1000 * (row["step"] - before)
            before = row["step"]
        total += sum(row.get(key, 0) for key in ("eval_seconds", "checkpoint_seconds"))
    return total


if __name__ == "__main__":
    main()
