"""`jaxcnn compare`: accuracy against cost of the networks; errors of ILSVRC by year."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="draw accuracy against cost, or ILSVRC's errors by year",
        description="Prints and draws published top-1 accuracy against multiply-adds, bubbles as "
        "large as the number of parameters. With --measure also the inference time, memory and "
        "images/s of some networks on this machine; with --history ILSVRC's errors by year.",
        epilog="example: jaxcnn compare --measure resnet18 vgg16 --batch 8",
    )
    parser.add_argument(
        "patterns", metavar="PATTERN", nargs="*", help="shell patterns of ids or aliases"
    )
    parser.add_argument(
        "--data", default="imagenet", choices=("imagenet", "cifar10", "mnist"), help="of the errors"
    )
    parser.add_argument("--history", action="store_true", help="errors of ILSVRC's entries by year")
    parser.add_argument("--measure", metavar="MODEL", nargs="+", default=(), help="measure these")
    parser.add_argument("--batch", type=int, metavar="N", help="images at once, for --measure")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="for --measure (default: the network's own)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help=".png, .svg or .pdf (default: complexity.png, history.png)"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the figures to FILE as well")


def run(args: argparse.Namespace) -> None:
    import csv
    import dataclasses
    from pathlib import Path

    from jaxcnn.analysis import bench, complexity, history

    out = Path(args.out or ("history.png" if args.history else "complexity.png"))
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--out is {out}; it must end in .png, .svg or .pdf")
    for option, path in (("--out", out), ("--csv", Path(args.csv or "."))):
        if not path.parent.is_dir():
            raise ValueError(f"{option} is {path}; there is no directory {path.parent}")
    if args.history:
        if args.patterns or args.measure:
            raise ValueError("--history takes neither patterns nor --measure")
        entries = history.history()
        print(history.to_text(entries))
        history.draw(entries, out)
        print(f"\n{out}")
        if args.csv:
            with open(args.csv, "w", newline="", encoding="utf-8") as stream:
                table = csv.DictWriter(stream, [f.name for f in dataclasses.fields(history.Entry)])
                table.writeheader()
                table.writerows(map(dataclasses.asdict, entries))
        return
    found = complexity.points(args.patterns or ("*",), args.data)
    measured = list(
        bench.bench(args.measure, train=False, batch=args.batch, image_size=args.image_size)
        if args.measure
        else ()
    )
    print(complexity.to_text(found, measured))
    complexity.draw(found, out)
    print(f"\n{out}")
    if measured:
        beside = out.with_name(f"{out.stem}_measured{out.suffix}")
        complexity.draw_measured(measured, beside)
        print(beside)
    if args.csv:
        Path(args.csv).write_text(complexity.to_csv(found, measured), encoding="utf-8")
