"""`jaxcnn export WORKDIR OUT`: the weights of a training run in one file."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write the weights of a training run to a file",
        description="Writes the network of a run's checkpoint, with the names of its classes and "
        "how its images are normalized, to a file that `jaxcnn predict` and load_pretrained take.",
        epilog="example: jaxcnn export runs/r56 r56.safetensors",
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="directory of the run")
    parser.add_argument("target", metavar="OUT", help=".safetensors, .npz or .pth file")
    parser.add_argument(
        "--checkpoint", choices=("best", "newest"), default="best", help="which (default: best)"
    )
    parser.add_argument(
        "--to", choices=("jaxcnn", "torch"), default="jaxcnn", help="layout (default: jaxcnn)"
    )


def run(args: argparse.Namespace) -> None:
    from absl import logging

    from jaxcnn.training.output import trained
    from jaxcnn.weights import loading

    logging.set_verbosity(logging.ERROR)  # Orbax's
    learnt = trained.load_run(args.workdir, args.checkpoint)
    loading.save(
        args.target,
        learnt.model,
        learnt.variables,
        to=args.to,
        preprocessing=learnt.preprocessing,
        class_names=learnt.class_names,
        **learnt.options,
    )
    print(f"wrote {args.target}: {learnt.model} after step {learnt.step}, layout of {args.to}")
