"""`jaxcnn pretrained`: lists the published weights."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers) -> None:
    """Adds `jaxcnn pretrained` to the commands."""
    parser = subparsers.add_parser(
        "pretrained",
        help="list the published weights",
        description="Lists the weights that `predict`, `evaluate` and load_pretrained find by "
        "name: the network, and the size, crop and interpolation of its images. A few come with "
        "the package; the others are downloaded from the Hugging Face Hub, hf.co/timm/NAME. Then "
        "lists the files of other frameworks that `convert` reads after a download, with the "
        "accuracy on ImageNet that their publishers state.",
        epilog="example: jaxcnn pretrained 'resnet50*'",
    )
    parser.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        default="*",
        help="shell pattern of weights or networks",
    )


def run(args: argparse.Namespace) -> None:
    """Prints tables of published weights."""
    from fnmatch import fnmatchcase

    from jaxcnn._checks import near
    from jaxcnn.reporting.tables import text_table
    from jaxcnn.weights import elsewhere
    from jaxcnn.weights.pretrained import SHIPPED, WEIGHTS, shipped

    def matches(weights: Any) -> bool:
        return any(fnmatchcase(name, args.pattern) for name in (weights.name, weights.model))

    known = {**{name: shipped(name) for name in SHIPPED}, **WEIGHTS}
    chosen = list(filter(matches, known.values()))
    files = list(filter(matches, elsewhere.FILES.values()))
    if not chosen and not files:
        names = [*known, *elsewhere.FILES]
        raise ValueError(f"no published weights match {args.pattern!r}{near(args.pattern, names)}")
    if chosen:
        rows = [
            [w.name, w.model, str(p.size), f"{p.crop:g}", p.interpolation,
             *(("-", "in the package") if w.name in SHIPPED else (w.license, "hub"))]
            for w, p in ((w, w.preprocessing) for w in chosen)
        ]  # fmt: skip
        titles = ["weights", "network", "pixels", "crop", "interpolation", "license", "from"]
        print(text_table(titles, rows, left=2) + "\n")
    if files:
        rows = [[f.name, f.model, f.format, f"{f.top1:.1f}", f.license or "-"] for f in files]
        titles = ["files of other frameworks", "network", "format", "top-1 %", "license"]
        print(text_table(titles, rows, left=3) + "\n")
        for file in files:
            print(f"{file.url} {file.checksum}".rstrip())
        print()
    count = len(chosen) + len(files)
    print(f"{count} set{'s' if count != 1 else ''} of weights")
