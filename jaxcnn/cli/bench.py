"""`jaxcnn bench MODEL...`: measures the speed of networks on this machine."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn bench` to the commands."""
    parser = subparsers.add_parser(
        "bench",
        help="measure a network's speed on this machine",
        description="Measures networks on the first device: compile time, step time and its "
        "spread, images per second, memory use, and the fractions of the device's measured matmul "
        "rate and memory bandwidth that the step reaches.",
        epilog="example: jaxcnn bench lenet5 resnet20_cifar --train --batch-size 128",
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="id or alias, as `jaxcnn list` prints them"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="the training step (default)")
    mode.add_argument("--infer", action="store_true", help="the logits of a batch")
    parser.add_argument(
        "--batch-size",
        dest="batch",
        type=int,
        metavar="N",
        help="images per step (default: by image size and device)",
    )
    parser.add_argument("--dtype", default="float32", metavar="D", help="float32 or bfloat16")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="height and width (default: the network's own)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="how long to measure each network (default: 3)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to FILE")
    parser.set_defaults(compiles_anew=True)  # compile time is one of the results


def run(args: argparse.Namespace) -> None:
    """Measures networks and prints a table."""
    import dataclasses
    import json
    import sys

    from jaxcnn._files import output_path, write_output
    from jaxcnn.analysis import bench
    from jaxcnn.cli import common

    options = {"batch": args.batch, "dtype": args.dtype, "image_size": args.image_size}
    # checks the arguments before anything is measured
    bench.bench(args.models, seconds=args.seconds, **options)
    file = args.json and output_path(args.json)
    [machine] = common.track("device", map(bench.measure_machine, [(args.dtype,)]), 1)
    measured = bench.bench(
        args.models, train=not args.infer, seconds=args.seconds, machine=machine, **options
    )
    rows = []
    for row in common.track("networks", measured, len(args.models)):
        rows.append(row)
        if len(args.models) > 1:
            print(f"{row.model}: {row.images_per_s:,.1f} images/s", file=sys.stderr, flush=True)
    print(bench.to_text(machine, rows))
    if file:
        results = {"machine": machine, "rows": rows}
        text = json.dumps(results, default=dataclasses.asdict, indent=1)
        write_output(file, text + "\n")
