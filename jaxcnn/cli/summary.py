"""`jaxcnn summary MODEL`: lists the cost of each layer of a network."""

from __future__ import annotations

import argparse
import sys


def register(subparsers) -> None:
    """Adds `jaxcnn summary` to the commands."""
    parser = subparsers.add_parser(
        "summary",
        help="list the cost of each layer of a network",
        description="Lists each layer of a network: output shape, receptive field, activation "
        "memory, parameters and multiply-adds for one image. The network is only traced, which "
        "takes about a second.",
        epilog="example: jaxcnn summary vgg16 --plot vgg16.png",
    )
    parser.add_argument("model", metavar="MODEL", help="id or alias, as `jaxcnn list` prints them")
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="S",
        help="height and width of the image (default: native)",
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="N", help="width of the classifier; 0 for none"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw memory, parameters and multiply-adds over depth, as .png, .svg or .pdf",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the table of a network and draws its costs."""
    from jaxcnn.reporting.figures import picture_path, save

    plot = picture_path(args.plot) if args.plot else None
    from jaxcnn.analysis.summary import summarize

    options = {} if args.num_classes is None else {"num_classes": args.num_classes}
    summary = summarize(args.model, args.image_size, **options)
    if args.json:
        print(summary.to_json())
    elif args.markdown:
        print(summary.to_markdown())
    else:
        print(summary)
    if plot:
        save(summary.plot(), plot)
        print(plot, file=sys.stderr if args.json or args.markdown else sys.stdout)
