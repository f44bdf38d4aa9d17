"""`jaxcnn draw NETWORK...`: draws networks."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn draw` to the commands."""
    parser = subparsers.add_parser(
        "draw",
        help="draw networks",
        usage="%(prog)s [OPTIONS] NETWORK [NETWORK ...]",
        description="Draws networks side by side: all layers with repeated blocks folded, the "
        "feature maps of the stages as solids, or the graph of each kind of block. Networks "
        "are only traced, which takes seconds.",
        epilog="example: jaxcnn draw plain34 resnet34 vgg19 --out figure3.svg; "
        "jaxcnn draw googlenet --level block --block inception4e",
    )
    parser.add_argument(
        "models", metavar="NETWORK", nargs="+", help='ids, aliases, or your own as "my_nets.py:Net"'
    )
    parser.add_argument(
        "--level",
        choices=("network", "stage", "block"),
        default="network",
        help="what to draw (default: %(default)s)",
    )
    parser.add_argument("--block", metavar="NAME", help="the block to draw, for --level block")
    parser.add_argument(
        "--unfold", action="store_true", help="draw repeated blocks one by one, for --level network"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="S",
        help="height and width of the image (default: native)",
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="N", help="width of the classifier; 0 for none"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="network.svg",
        help=".svg, .png, .pdf or .html (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Draws the networks into a file."""
    from jaxcnn.reporting.figures import picture_path

    out = picture_path(args.out, (".svg", ".png", ".pdf", ".html"))
    from jaxcnn.analysis.drawing import draw

    options = {} if args.num_classes is None else {"num_classes": args.num_classes}
    drawing = draw(
        *args.models,
        level=args.level,
        block=args.block,
        unfold=args.unfold,
        input_size=args.image_size,
        **options,
    )
    drawing.save(out)
    print(out)
