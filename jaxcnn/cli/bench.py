"""`jaxcnn bench MODEL...`: what a network's step costs on this machine."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure a network's speed on this machine",
        description="Measures networks on the first device: time to compile, time of a step and "
        "its spread, images per second, the share of the measured rates of a matrix product and of "
        "the memory that the step reaches, and the memory that it takes.",
        epilog="example: jaxcnn bench lenet5 resnet20_cifar --train --batch 128",
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="id or alias, as `jaxcnn list` prints them"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="the training step (default)")
    mode.add_argument("--infer", action="store_true", help="the logits of a batch")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images of a step (default: by image size, device)"
    )
    parser.add_argument("--dtype", default="float32", metavar="D", help="float32 or bfloat16")
    parser.add_argument(
        "--image-size", type=int, metavar="S", help="height and width (default: the network's own)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="how long to measure each network (default: 3)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    parser.set_defaults(compiles_anew=True)  # the time that takes is one of the figures


def run(args: argparse.Namespace) -> None:
    import dataclasses
    import json
    import sys

    from jaxcnn._files import any_path, has_folder
    from jaxcnn.analysis import bench
    from jaxcnn.cli import common

    options = {"batch": args.batch, "dtype": args.dtype, "image_size": args.image_size}
    # asks for everything that may be wrong before anything is measured
    bench.bench(args.models, seconds=args.seconds, **options)
    if args.json and not has_folder(args.json):
        raise ValueError(
            f"--json is {args.json}; there is no directory {any_path(args.json).parent}"
        )
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
    if args.json:
        found = {"machine": machine, "rows": rows}
        any_path(args.json).write_text(
            json.dumps(found, default=dataclasses.asdict, indent=1) + "\n", encoding="utf-8"
        )
