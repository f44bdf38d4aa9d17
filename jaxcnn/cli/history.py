"""`jaxcnn history`: error and depth of ILSVRC's entries by year."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn history` to the commands."""
    parser = subparsers.add_parser(
        "history",
        help="draw ILSVRC's errors and depths by year",
        description="Prints and draws the top-5 error of the entries to ILSVRC's classification "
        "task, with the number of their layers. All figures are published ones.",
        epilog="example: jaxcnn history --out winners.svg",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="history.png",
        help=".png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the figures to FILE as well")


def run(args: argparse.Namespace) -> None:
    """Prints and draws the errors and depths by year."""
    from jaxcnn.analysis import history
    from jaxcnn.reporting import figures

    out = figures.picture_path(args.out)
    table = args.csv and figures.table_path(args.csv)
    entries = history.history()
    print(history.to_text(entries))
    history.draw(entries, out)
    print(f"\n{out}")
    if table:
        table.write_text(history.to_csv(entries), encoding="utf-8")
