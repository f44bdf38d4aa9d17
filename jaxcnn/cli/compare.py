"""`jaxcnn compare`: plots the accuracy of networks against their cost."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn compare` to the commands."""
    parser = subparsers.add_parser(
        "compare",
        help="plot the accuracy of networks against their cost",
        description="Prints and plots published top-1 accuracy against multiply-adds. The area of "
        "a bubble is the number of parameters. --measure adds the inference time, memory use and "
        "throughput of some networks on this machine.",
        epilog="example: jaxcnn compare --measure resnet18 vgg16 --batch-size 8",
    )
    parser.add_argument(
        "patterns", metavar="PATTERN", nargs="*", help="shell patterns of ids or aliases"
    )
    parser.add_argument(
        "--data", default="imagenet", choices=("imagenet", "cifar10", "mnist"), help="dataset"
    )
    parser.add_argument(
        "--measure", metavar="MODEL", nargs="+", default=(), help="networks to measure"
    )
    parser.add_argument(
        "--batch-size", dest="batch", type=int, metavar="N", help="batch size, for --measure"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="for --measure (default: the network's own)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="complexity.png",
        help=".png, .svg or .pdf (default: %(default)s); --measure also writes STEM_measured",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the table to FILE")


def run(args: argparse.Namespace) -> None:
    """Prints and draws accuracy against cost."""
    from jaxcnn._files import check_distinct, output_path, write_output
    from jaxcnn.analysis import complexity
    from jaxcnn.cli import common
    from jaxcnn.reporting import figures

    out = figures.picture_path(args.out)
    table = args.csv and output_path(args.csv)
    beside = None
    if args.measure:
        beside = figures.picture_path(str(out.with_name(f"{out.stem}_measured{out.suffix}")))
    check_distinct(out, table, beside)
    for option, value in (("--batch-size", args.batch), ("--image-size", args.image_size)):
        if value is not None and not args.measure:
            raise ValueError(f"{option} is for --measure, which is not given")
    points = complexity.points(args.patterns or ("*",), args.data)
    measured = []
    if args.measure:
        from jaxcnn.analysis import bench

        options = {"batch": args.batch, "image_size": args.image_size}
        rows = bench.bench(args.measure, train=False, **options)
        measured = list(common.track("networks", rows, len(args.measure)))
    print(complexity.to_text(points, measured))
    complexity.draw(points, out)
    print(f"\n{out}")
    if beside:
        complexity.draw_measured(measured, beside)
        print(beside)
    if table:
        write_output(table, complexity.to_csv(points, measured))
