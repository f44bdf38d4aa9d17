"""`jaxcnn history`: plots the errors and depths of ILSVRC entries by year."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn history` to the commands."""
    parser = subparsers.add_parser(
        "history",
        help="plot the errors and depths of ILSVRC entries by year",
        description="Prints and plots the top-5 error and the number of layers of entries to "
        "ILSVRC's classification task, as published.",
        epilog="example: jaxcnn history --out winners.svg",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="history.png",
        help=".png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the table to FILE")


def run(args: argparse.Namespace) -> None:
    """Prints and draws the errors and depths by year."""
    from jaxcnn._files import check_distinct, output_path, write_output
    from jaxcnn.analysis import history
    from jaxcnn.reporting import figures

    out = figures.picture_path(args.out)
    table = args.csv and output_path(args.csv)
    check_distinct(out, table)
    entries = history.history()
    print(history.to_text(entries))
    history.draw(entries, out)
    print(f"\n{out}")
    if table:
        write_output(table, history.to_csv(entries))
