"""`jaxcnn ablate`: runs a study and draws its results."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def register(subparsers) -> None:
    """Adds `jaxcnn ablate` to the commands."""
    parser = subparsers.add_parser(
        "ablate",
        help="run a study: several settings and seeds, one table and one figure",
        description="Trains every setting of a study and writes table.txt, results.json and "
        "figure.png. By default, runs a small version on data that needs no download, scaled to "
        "--budget minutes on this machine, and prints what was scaled. Rerun to continue: finished "
        "runs are not repeated.",
        epilog="example: jaxcnn ablate residual_vs_plain --budget 10; without STUDY: the list",
    )
    parser.add_argument(
        "study", metavar="STUDY", nargs="?", help="name of a study, or your own file.py"
    )
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field to set in all runs"
    )
    parser.add_argument("--workdir", help="directory for all results (default: runs/STUDY)")
    parser.add_argument("--full", action="store_true", help="the study as published, unscaled")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="time budget for all runs of the small version (default: 10)",
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="number of runs of each setting")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of runs at a time")
    parser.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="(default: local)"
    )
    parser.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs per run, with ray")


def run(args: argparse.Namespace) -> int:
    """Runs a study, or lists the studies; returns the exit code."""
    from jaxcnn._files import any_path
    from jaxcnn.studies import catalog, study

    if args.study is None:
        values = (args.workdir, args.budget, args.seeds)
        if args.full or any(value is not None for value in values):
            raise ValueError("STUDY is missing; `jaxcnn ablate` without options lists the studies")
        for name, make in catalog.STUDIES.items():
            print(f"{name:20s} {(make.__doc__ or '').splitlines()[0]}")
        return 0
    if args.full and args.budget is not None:
        raise ValueError(f"--budget is {args.budget:g}; --full is not scaled to a budget")
    if args.budget is not None and not 0 < args.budget < math.inf:
        raise ValueError(f"--budget is {args.budget:g}; it must be above 0 and finite")
    for name, value in (("--jobs", args.jobs), ("--seeds", args.seeds)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if args.executor == "ray" and args.jobs != 1:
        raise ValueError(f"--jobs is {args.jobs}; with --executor ray, the cluster decides")
    if args.gpus and args.executor != "ray":
        raise ValueError(f"--gpus is {args.gpus:g}; it is for --executor ray")
    if not 0 <= args.gpus < math.inf:
        raise ValueError(f"--gpus is {args.gpus:g}; it must be 0 or more and finite")
    from jaxcnn.studies import console

    return console.run(
        catalog.load_study(args.study),
        any_path(args.workdir or Path("runs") / Path(args.study).stem),
        full=args.full,
        minutes=10 if args.budget is None else args.budget,
        seeds=args.seeds,
        overrides=study.read_overrides(args.overrides),
        jobs_at_once=args.jobs,
        executor=args.executor,
        gpus=args.gpus,
    )
