"""Training on small sets of photos, three seeds each: from scratch, and from weights.

    python benchmarks/small_photos.py --tiny DIR                      # ten classes of 64 pixels
    python benchmarks/small_photos.py --tiny DIR --checkout OLD       # with another version
    python benchmarks/small_photos.py --tiny DIR --pets DIR           # then cats and dogs

A DIR has the folders train/ and val/, with one folder per class. `--tiny` trains a narrow VGG-11
with BatchNorm and a narrow ResNet-18. `--checkout` does so in the checkout of another version,
which has its environment in .venv: it shows what a change of the code does to the errors. `--pets`
trains a ResNet-18 on the photos of --tiny, fine-tunes it on a few photos of two classes, trains it
on them from scratch, and draws docs/_static/finetuning.svg. Finished runs are not repeated; the
rows of results/small_photos.json name the commit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path

import harness
import page_parts

from jaxcnn.reporting import figures
from jaxcnn.training.output.metrics_files import read_rows

ROOT = Path(__file__).parents[1]
CONFIG = Path(__file__).with_name("photo_recipes.py")
RECIPES = ("vgg_a_bn", "resnet18")
FIGURE = ROOT / "docs" / "_static" / "finetuning.svg"
SEEDS = range(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", required=True, type=Path, metavar="DIR")
    parser.add_argument("--pets", type=Path, metavar="DIR")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=RECIPES)
    parser.add_argument("--checkout", default=ROOT, type=Path, help="of another version")
    parser.add_argument("--workdir", default=Path("runs/small_photos"), type=Path)
    args = parser.parse_args()
    commit = git(args.checkout, "rev-parse", "--short", "HEAD")
    folder = args.workdir.absolute() / commit
    for recipe in args.recipes:
        keep(commit, recipe, [train(args.checkout, recipe, args.tiny, folder, s) for s in SEEDS])
    if args.pets:
        keep(commit, "pretrain", [train(args.checkout, "pretrain", args.tiny, folder, 0)])
        weights = folder / "pretrain.safetensors"
        if not weights.exists():
            command = [".venv/bin/jaxcnn", "export", str(folder / "pretrain_0"), str(weights)]
            subprocess.run(command, cwd=args.checkout, check=True)
        for recipe, start in (("scratch", []), ("finetuned", [f"model.weights={weights}"])):
            runs = [train(args.checkout, recipe, args.pets, folder, s, *start) for s in SEEDS]
            keep(commit, recipe, runs)
        draw([row for row in page_parts.load("small_photos")["rows"] if row["commit"] == commit])


def git(folder: Path, *command: str) -> str:
    run = subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def train(
    checkout: Path, recipe: str, photos: Path, folder: Path, seed: int, *fields: str
) -> list[dict]:
    """Trains to the end, resuming an unfinished run; returns the rows of its evaluations."""
    run = folder / f"{recipe}_{seed}"
    fields = (f"data.source=folder:{photos.absolute()}", f"train.seed={seed}", *fields)
    command = [".venv/bin/python", "train.py", f"--config={CONFIG}:{recipe}", "--resume"]
    command += [f"--workdir={run}", *(f"--config.{field}" for field in fields)]
    subprocess.run(command, cwd=checkout, check=True)
    return [row for row in read_rows(run) if row["kind"] == "eval"]


def draw(rows: list[dict]) -> None:
    """Draws the test errors from scratch and of fine-tuning against epochs, with all seeds."""
    figure = figures.make_figure(6, 3.6)
    axes = figure.add_subplot()
    kinds = (("scratch", "from scratch", "vermilion"), ("finetuned", "fine-tuned", "blue"))
    for recipe, label, color in kinds:
        (row,) = (row for row in rows if row["recipe"] == recipe)
        epochs, color = row["epochs"], figures.OKABE_ITO[color]
        for errors in row["errors"]:
            axes.plot(epochs, errors, color=color, alpha=0.3, linewidth=0.8)
        means = [statistics.fmean(errors) for errors in zip(*row["errors"])]
        axes.plot(epochs, means, color=color, label=label, linewidth=2)
    axes.set(xlabel="epoch", ylabel="test error, %", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, FIGURE)


def keep(commit: str, recipe: str, runs: list[list[dict]]) -> None:
    """Puts the test errors of all seeds, by epoch, into the result file."""
    kept = page_parts.load("small_photos")
    rows = kept["rows"] if kept else []
    rows = [row for row in rows if (row["commit"], row["recipe"]) != (commit, recipe)]
    rows.append({
        "commit": commit,
        "recipe": recipe,
        "epochs": [round(row["epoch"], 2) for row in runs[0]],
        "errors": [[100 * row["top1_error"] for row in run] for run in runs],
        "machine": harness.machine(),
    })  # fmt: skip
    print(harness.save("small_photos", rows))


if __name__ == "__main__":
    main()
