"""`jaxcnn push RUN hf:user/name`: uploads a run with its model card to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys


def register(subparsers) -> None:
    """Adds `jaxcnn push` to the commands."""
    parser = subparsers.add_parser(
        "push",
        help="upload a run with its model card to the Hugging Face Hub",
        description="Uploads model.safetensors, the network of a run's checkpoint, which `jaxcnn "
        "predict` accepts; model.json with the classes and the preprocessing; the configuration; "
        "the metrics; and a model card with task, data, metrics and license. Log in first with `hf "
        "auth login`, or set HF_TOKEN.",
        epilog="example: jaxcnn push runs/r56 hf:user/resnet56-cifar10 --license apache-2.0",
    )
    parser.add_argument("workdir", metavar="RUN", help="directory of the run")
    parser.add_argument(
        "target", metavar="hf:USER/NAME", help="repository; created if it does not exist"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of the run (default: best)",
    )
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="license of the weights, as the hub calls it, such as apache-2.0 (default: unknown)",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="write the files to DIR instead of uploading"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def run(args: argparse.Namespace) -> None:
    """Uploads the run, or writes its files to a folder."""
    from jaxcnn.cli import common
    from jaxcnn.deploy.push import push_to_hub

    common.quiet()
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    where = push_to_hub(
        args.workdir,
        args.target,
        checkpoint=args.checkpoint,
        license=args.license,
        folder=args.folder,
        private=args.private,
    )
    print(f"wrote {where}" if args.folder is not None else f"uploaded {args.workdir}: {where}")
