"""How far the gradients of two versions of the package are apart in the first step of a run.

    python benchmarks/first_step.py --tiny DIR --checkouts OLD NEW resnet18
    python benchmarks/first_step.py --tiny DIR --checkouts OLD NEW resnet18 --size 64

Each checkout, which has its environment in .venv, trains a recipe of `photo_recipes.py` for one
step. The momentum is the gradient then, plus the weight decay of the kernels, and both versions
draw the same weights and images. Printed is, for the parameters that differ most, the norm of the
difference over the norm in NEW.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

RECIPES = Path(__file__).with_name("photo_recipes.py")
# One step at a constant rate, whatever the recipe.
ONE_STEP = (
    "train.length_epochs=none",
    "train.length_steps=1",
    "eval.every_epochs=none",
    "eval.every_steps=1",
    "schedule.name=constant",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=("vgg_a_bn", "resnet18"))
    parser.add_argument("--tiny", required=True, type=Path, metavar="DIR")
    parser.add_argument("--checkouts", required=True, nargs=2, type=Path, metavar=("OLD", "NEW"))
    parser.add_argument("--size", type=int, metavar="PIXELS", help="of the images")
    args = parser.parse_args()
    old, new = (momentum(checkout, args) for checkout in args.checkouts)
    apart = {
        path: np.linalg.norm(old[path] - new[path]) / np.linalg.norm(new[path])
        for path in new
        if np.linalg.norm(new[path]) > 1e-6  # not of a bias before BatchNorm, which is 0
    }
    for path in sorted(apart, key=lambda path: -apart[path])[:8]:
        print(f"{path:30} {apart[path]:.1e}")


def momentum(checkout: Path, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Trains for one step; returns the momentum of each parameter."""
    fields = [f"data.source=folder:{args.tiny.absolute()}", *ONE_STEP]
    if args.size:
        fields += [f"data.{kind}={args.size}" for kind in ("image_size", "eval_size")]
        fields += [f"data.eval_resize={args.size}"]
        fields += [f"model.options.min_size={args.size}"] * (args.recipe == "vgg_a_bn")
    with tempfile.TemporaryDirectory() as folder:
        command = [".venv/bin/python", "train.py", f"--config={RECIPES}:{args.recipe}"]
        command += [f"--workdir={folder}/run", *(f"--config.{field}" for field in fields)]
        subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
        state = ocp.StandardCheckpointer().restore(f"{folder}/run/checkpoints/1/state")
    leaves = jax.tree_util.tree_leaves_with_path(state["opt_state"])
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    found = {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves)}
    return {name.partition("trace/")[2]: found[name] for name in found if "trace/" in name}


if __name__ == "__main__":
    main()
