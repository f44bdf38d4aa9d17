"""`jaxcnn report`: several runs in one figure and one table."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn report` to the commands."""
    parser = subparsers.add_parser(
        "report",
        help="show several runs in one figure and one table",
        description="Draws the errors and losses of several runs, finished or under way, into one "
        "figure, and prints their last and best errors and the fields in which they differ.",
        epilog="example: jaxcnn report runs/resnet20 runs/plain20 --out both.svg",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="directory of a run, or of members")
    parser.add_argument(
        "--out", metavar="FILE", default="report.png", help="the figure (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Prints a table of the runs and draws their curves."""
    from jaxcnn.reporting import compare_runs
    from jaxcnn.reporting.figures import picture_path
    from jaxcnn.training.output import records

    out = picture_path(args.out)
    found = records.open_runs(args.runs)
    print(compare_runs.table(found))
    compare_runs.draw(found, out)
    print(f"\n{out}: errors and losses")
