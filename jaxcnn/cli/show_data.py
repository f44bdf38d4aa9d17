"""`jaxcnn show-data CONFIG`: a sheet of training samples as the network sees them."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "show-data",
        help="draw training samples as the network sees them",
        description="Writes a PNG of the first training samples of a run, cropped, augmented and "
        "labelled as they reach the network.",
        epilog="example: jaxcnn show-data configs/cifar_resnet.py data.source=synthetic",
    )
    parser.add_argument("config", metavar="CONFIG", help="path of a configuration file")
    parser.add_argument(
        "overrides", metavar="FIELD=VALUE", nargs="*", help="a field of the configuration to set"
    )
    parser.add_argument("--out", metavar="PNG", default="samples.png", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    from jaxcnn._files import any_path, has_folder
    from jaxcnn.analysis.samples import first_samples
    from jaxcnn.reporting.samples import plot_samples
    from jaxcnn.training.config import files as config_files

    out = any_path(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {args.out!r}; it must end in .png")
    if not has_folder(out):
        raise FileNotFoundError(f"there is no folder {out.parent}")
    fields = config_files.read_config(args.config, args.overrides)
    images, labels = first_samples(fields)
    plot_samples(images, labels, out, f"{fields.data.source}, as {fields.model.name} sees it")
    size = " x ".join(map(str, images.shape[1:3]))
    print(f"{out}: the first {len(images)} samples of the run, {size} pixels")
