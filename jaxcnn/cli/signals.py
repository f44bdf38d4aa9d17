"""`jaxcnn signals MODEL_OR_RUN...`: plots activations and gradients layer by layer."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn signals` to the commands."""
    parser = subparsers.add_parser(
        "signals",
        help="plot activations and gradients layer by layer",
        description="Prints and plots the variance of each layer's activations, the norm of its "
        "gradient, and the distance of each block from the identity. Networks are measured at "
        "initialization, runs also at every checkpoint.",
        epilog="example: jaxcnn signals plain56_cifar resnet56_cifar",
    )
    parser.add_argument(
        "given", metavar="MODEL_OR_RUN", nargs="+", help="id or alias, or the directory of a run"
    )
    parser.add_argument(
        "--batch-size",
        dest="batch",
        type=int,
        metavar="N",
        default=16,
        help="batch size (default: %(default)s)",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="image size for networks (default: native)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        default="signals.png",
        help=".png, .svg or .pdf (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the table to FILE")


def run(args: argparse.Namespace) -> None:
    """Prints and draws the signals of networks and runs."""
    import itertools

    from jaxcnn._files import any_path, check_distinct, output_path, write_output
    from jaxcnn.analysis import signal_states, signals
    from jaxcnn.cli import common
    from jaxcnn.models.registry import resolve
    from jaxcnn.reporting import figures

    common.quiet()
    out = figures.picture_path(args.out)
    table = args.csv and output_path(args.csv)
    check_distinct(out, table)
    runs = [given for given in args.given if any_path(given).is_dir()]
    if args.image_size is not None and len(runs) == len(args.given):
        raise ValueError("--image-size is for networks; a run has the size of its data")
    for given in args.given:
        if given not in runs:
            resolve(given)
    measured = itertools.chain.from_iterable(
        signal_states.of_run(given, batch=args.batch)
        if given in runs
        else signal_states.of_network(given, batch=args.batch, image_size=args.image_size)
        for given in args.given
    )
    states = {}
    for title, layers in common.track("states", measured, None if runs else len(args.given)):
        states[title] = layers
        print(signals.to_text(title, layers), end="\n\n", flush=True)
    signals.draw(states, out)
    print(out)
    if table:
        write_output(table, signals.to_csv(states))
