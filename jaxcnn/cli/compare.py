"""`jaxcnn compare`: accuracy against cost of the networks."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn compare` to the commands."""
    parser = subparsers.add_parser(
        "compare",
        help="draw accuracy against cost of the networks",
        description="Prints and draws published top-1 accuracy against multiply-adds, bubbles as "
        "large as the number of parameters. With --measure also the inference time, memory and "
        "images/s of some networks on this machine.",
        epilog="example: jaxcnn compare --measure resnet18 vgg16 --batch 8",
    )
    parser.add_argument(
        "patterns", metavar="PATTERN", nargs="*", help="shell patterns of ids or aliases"
    )
    parser.add_argument(
        "--data", default="imagenet", choices=("imagenet", "cifar10", "mnist"), help="of the errors"
    )
    parser.add_argument("--measure", metavar="MODEL", nargs="+", default=(), help="measure these")
    parser.add_argument("--batch", type=int, metavar="N", help="images at once, for --measure")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="for --measure (default: the network's own)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="complexity.png",
        help=".png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the figures to FILE as well")


def run(args: argparse.Namespace) -> None:
    """Prints and draws accuracy against cost."""
    from jaxcnn.analysis import complexity
    from jaxcnn.cli import common
    from jaxcnn.reporting import figures

    out = figures.picture_path(args.out)
    table = args.csv and figures.table_path(args.csv)
    found = complexity.points(args.patterns or ("*",), args.data)
    measured = []
    if args.measure:
        from jaxcnn.analysis import bench

        options = {"batch": args.batch, "image_size": args.image_size}
        made = bench.bench(args.measure, train=False, **options)
        measured = list(common.track("networks", made, len(args.measure)))
    print(complexity.to_text(found, measured))
    complexity.draw(found, out)
    print(f"\n{out}")
    if measured:
        beside = out.with_name(f"{out.stem}_measured{out.suffix}")
        complexity.draw_measured(measured, beside)
        print(beside)
    if table:
        table.write_text(complexity.to_csv(found, measured), encoding="utf-8")
