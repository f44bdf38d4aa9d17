"""`jaxcnn pretrained`: lists the published weights."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn pretrained` to the commands."""
    parser = subparsers.add_parser(
        "pretrained",
        help="list the published weights",
        description="Lists the weights that `predict`, `evaluate` and load_pretrained find by "
        "name: the network, and the size, crop and interpolation of its images. A few come with "
        "the package; the others are downloaded from the Hugging Face Hub, hf.co/timm/NAME.",
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
    """Prints a table of published weights."""
    from fnmatch import fnmatchcase

    from jaxcnn._checks import near
    from jaxcnn.reporting.tables import text_table
    from jaxcnn.weights.pretrained import SHIPPED, WEIGHTS, shipped

    known = {**{name: shipped(name) for name in SHIPPED}, **WEIGHTS}
    chosen = [
        weights
        for weights in known.values()
        if any(fnmatchcase(name, args.pattern) for name in (weights.name, weights.model))
    ]
    if not chosen:
        raise ValueError(f"no published weights match {args.pattern!r}{near(args.pattern, known)}")
    rows = [
        [w.name, w.model, str(p.size), f"{p.crop:g}", p.interpolation,
         "in the package" if w.name in SHIPPED else "hub"]
        for w, p in ((w, w.preprocessing) for w in chosen)
    ]  # fmt: skip
    titles = ["weights", "network", "pixels", "crop", "interpolation", "from"]
    print(text_table(titles, rows, left=2))
    print(f"\n{len(chosen)} set{'s' if len(chosen) != 1 else ''} of weights")
