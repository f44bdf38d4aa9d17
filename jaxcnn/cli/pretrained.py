"""`jaxcnn pretrained`: lists the published weights."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn pretrained` to the commands."""
    parser = subparsers.add_parser(
        "pretrained",
        help="list the published weights",
        description="Lists the weights that `predict`, `evaluate` and load_pretrained download by "
        "name from the Hugging Face Hub: the network, and the size, crop and interpolation of its "
        "images. The file of weights NAME is hf.co/timm/NAME.",
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
    from jaxcnn.weights.pretrained import WEIGHTS

    chosen = [
        weights
        for weights in WEIGHTS.values()
        if any(fnmatchcase(name, args.pattern) for name in (weights.name, weights.model))
    ]
    if not chosen:
        raise ValueError(
            f"no published weights match {args.pattern!r}{near(args.pattern, WEIGHTS)}"
        )
    rows = [
        [w.name, w.model, str(p.size), f"{p.crop:g}", p.interpolation]
        for w, p in ((w, w.preprocessing) for w in chosen)
    ]
    print(text_table(["weights", "network", "pixels", "crop", "interpolation"], rows, left=2))
    print(f"\n{len(chosen)} set{'s' if len(chosen) != 1 else ''} of weights")
