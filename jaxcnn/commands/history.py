"""`jaxcnn history`: the winners of ILSVRC by year."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "history",
        help="draw the error and the depth of ILSVRC's winners by year",
        description="Prints and draws the top-5 error of the winners of ILSVRC's classification "
        "task with the number of their layers. All figures are published ones.",
        epilog="example: jaxcnn history --figure winners.svg",
    )
    parser.add_argument(
        "--figure",
        metavar="FILE",
        default="history.png",
        help="a .png, .svg or .pdf (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    from jaxcnn.analysis import history

    history.draw(args.figure)
    print(history.to_text())
    print(f"\n{args.figure}: error and depth by year")
