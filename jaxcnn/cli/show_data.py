"""`jaxcnn show-data CONFIG`: draws training samples as the network sees them."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn show-data` to the commands."""
    parser = subparsers.add_parser(
        "show-data",
        help="draw training samples as the network sees them",
        description="Draws the first training samples of a run with their labels, cropped and "
        "augmented as in training. `jaxcnn report --html` shows the samples.png in a run's "
        "directory.",
        epilog="example: jaxcnn show-data configs/cifar_resnet.py data.source=synthetic",
    )
    parser.add_argument(
        "config", metavar="CONFIG", help="name of a recipe, path of a file, or a run's directory"
    )
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument("--out", metavar="PNG", default="samples.png", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Draws the first training samples."""
    from jaxcnn._files import any_path, output_path
    from jaxcnn.analysis.samples import first_samples
    from jaxcnn.reporting.samples import plot_samples
    from jaxcnn.training.config import files as config_files
    from jaxcnn.training.output import records

    out = output_path(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {args.out!r}; it must end in .png")
    if (any_path(args.config) / records.MANIFEST).is_file():
        fields = records.read_run_config(any_path(args.config))
        config_files.apply_overrides(fields, config_files.split_overrides(args.overrides))
    else:
        fields = config_files.read_config(args.config, args.overrides)
    images, labels = first_samples(fields)
    plot_samples(images, labels, out, f"{fields.data.source}, as {fields.model.name} sees it")
    size = " x ".join(map(str, images.shape[1:3]))
    print(f"{out}: the first {len(images)} samples of the run, {size} pixels")
