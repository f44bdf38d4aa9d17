"""`jaxcnn report`: compares runs in one table and one figure."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn report` to the commands."""
    parser = subparsers.add_parser(
        "report",
        help="compare runs in one table and one figure",
        description="Plots the errors and losses of several runs, finished or in progress, in one "
        "figure, and prints their last and best errors and the fields in which they differ.",
        epilog="example: jaxcnn report runs/resnet20 runs/plain20 --out both.svg",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="directory of a run or of an ensemble"
    )
    parser.add_argument(
        "--out", metavar="FILE", default="report.png", help="the figure (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Prints a table of the runs and draws their curves."""
    from jaxcnn.reporting import compare_runs
    from jaxcnn.reporting.figures import picture_path
    from jaxcnn.training.output import records

    out = picture_path(args.out)
    runs = records.open_runs(args.runs)
    print(compare_runs.table(runs))
    compare_runs.draw(runs, out)
    print(f"\n{out}: errors and losses")
