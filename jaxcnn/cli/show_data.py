"""`jaxcnn show-data CONFIG`: draws training samples as the network sees them."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn show-data` to the commands."""
    parser = subparsers.add_parser(
        "show-data",
        help="draw training samples as the network sees them",
        description="Draws the first training samples of a run with their labels, cropped and "
        "augmented as in training.",
        epilog="example: jaxcnn show-data configs/cifar_resnet.py data.source=synthetic",
    )
    parser.add_argument("config", metavar="CONFIG", help="name of a recipe or path of a file")
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument("--out", metavar="PNG", default="samples.png", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Draws the first training samples."""
    from jaxcnn._files import output_path
    from jaxcnn.analysis.samples import first_samples
    from jaxcnn.reporting.samples import plot_samples
    from jaxcnn.training.config import files as config_files

    out = output_path(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {args.out!r}; it must end in .png")
    fields = config_files.read_config(args.config, args.overrides)
    images, labels = first_samples(fields)
    plot_samples(images, labels, out, f"{fields.data.source}, as {fields.model.name} sees it")
    size = " x ".join(map(str, images.shape[1:3]))
    print(f"{out}: the first {len(images)} samples of the run, {size} pixels")
