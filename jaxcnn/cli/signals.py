"""`jaxcnn signals MODEL_OR_RUN...`: how activations and gradients pass through the layers."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "signals",
        help="draw activations and gradients layer by layer",
        description="Prints and draws for each layer the variance of its activations and the norm "
        "of its gradient, and for each block how far it is from the identity: of networks as they "
        "are initialized, and of runs before training and at every checkpoint.",
        epilog="example: jaxcnn signals plain56_cifar resnet56_cifar",
    )
    parser.add_argument(
        "given", metavar="MODEL_OR_RUN", nargs="+", help="id or alias, or the directory of a run"
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", default=16, help="images (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="for networks (default: the network's own)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="signals.png",
        help=".png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the figures to FILE as well")


def run(args: argparse.Namespace) -> None:
    import itertools

    from jaxcnn._files import any_path
    from jaxcnn.analysis import signal_states, signals
    from jaxcnn.cli import common
    from jaxcnn.models.registry import resolve
    from jaxcnn.reporting import figures

    common.quiet()
    out = figures.picture_path(args.out)
    table = args.csv and figures.table_path(args.csv)
    for given in args.given:
        if not any_path(given).is_dir():
            resolve(given)
    measured = itertools.chain.from_iterable(
        signal_states.of_run(given, batch=args.batch)
        if any_path(given).is_dir()
        else signal_states.of_network(given, batch=args.batch, image_size=args.image_size)
        for given in args.given
    )
    only_networks = not any(any_path(given).is_dir() for given in args.given)
    states = {}
    for title, found in common.track(
        "states", measured, len(args.given) if only_networks else None
    ):
        states[title] = found
        print(signals.to_text(title, found), end="\n\n", flush=True)
    signals.draw(states, out)
    print(out)
    if table:
        table.write_text(signals.to_csv(states), encoding="utf-8")
