"""`jaxcnn list`: lists networks, filtered and sorted."""

from __future__ import annotations

import argparse

SORTS = ("params", "macs", "year", "top1", "top5", "name")


def register(subparsers) -> None:
    """Adds `jaxcnn list` to the commands."""
    parser = subparsers.add_parser(
        "list",
        help="list the networks",
        description="Lists the networks: aliases, year of the paper, parameters, multiply-adds per "
        "image, and published errors in percent.",
        epilog="example: jaxcnn list '*resnet50*' --sort top1",
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="shell pattern of ids or aliases"
    )
    parser.add_argument("--family", help="only the networks of one family, such as vgg")
    parser.add_argument(
        "--sort",
        choices=SORTS,
        help="sort in ascending order, unknown last (default: families by age)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")


def run(args: argparse.Namespace) -> None:
    """Prints a table of networks."""
    from jaxcnn.analysis import networks

    chosen = networks.select(args.pattern, family=args.family, sort=args.sort)
    if args.json:
        print(networks.to_json(chosen))
    elif args.markdown:
        print(networks.to_markdown(chosen))
    else:
        print(networks.to_text(chosen))
