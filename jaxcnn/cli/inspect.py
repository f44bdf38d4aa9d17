"""`jaxcnn inspect MODEL [IMAGE...]`: draws what a trained network has learned."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    """Adds `jaxcnn inspect` to the commands."""
    parser = subparsers.add_parser(
        "inspect",
        help="draw what a trained network has learned",
        usage="%(prog)s [OPTIONS] MODEL [IMAGE ...]",
        description="Draws the filters of the first convolution and, for a run, how they changed "
        "from checkpoint to checkpoint; for each image, the feature maps of each layer; and for a "
        "test set, the confusion matrix with precision and recall, the most confident correct and "
        "wrong predictions, and a two-dimensional projection of the features before the "
        "classifier. MODEL is a run's directory, a file of weights, or published weights. A run is "
        "tested on its own test set. If an image cannot be read, an error names it, the others are "
        "drawn, and the exit code is 2.",
        epilog="example: jaxcnn inspect runs/lenet_digits --out lenet",
    )
    parser.add_argument(
        "what",
        metavar="MODEL",
        help="a run's directory, a .safetensors, .npz or .pth file, or published weights",
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="*", help="image files, or folders of them"
    )
    parser.add_argument(
        "--id",
        metavar="NETWORK",
        help='network of a weights file that does not name it; "my_nets.py:Net" for your own',
    )
    parser.add_argument("--data", metavar="SOURCE", help="test set (default: the run's own)")
    parser.add_argument("--data-dir", metavar="DIR", help="directory of the data")
    parser.add_argument(
        "--split", help="split of the data (default: the run's own test split, or test)"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=1000,
        metavar="N",
        help="number of test images (default: 1000)",
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of a run (default: best)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="inside",
        help="directory for the figures (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the figures; returns the exit code."""
    import sys

    from jaxcnn._files import any_path, writable
    from jaxcnn.analysis import inside_report
    from jaxcnn.cli import common
    from jaxcnn.evaluation import evaluate, predict
    from jaxcnn.reporting.figures import save
    from jaxcnn.runtime import exit_codes

    common.quiet()
    if args.examples < 5:
        raise ValueError(f"--examples is {args.examples}; it must be 5 or more")
    folder = any_path(args.out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out is {args.out}, which is not a directory")
    entry = evaluate.open_entry(args.what, args.checkpoint, model=args.id)
    data = entry.data
    if args.data:
        data = (args.data, args.data_dir, args.split or "test")
    elif data:
        data = (data[0], args.data_dir or data[1], args.split or data[2])
    elif args.split or args.data_dir:
        raise ValueError(f"--split and --data-dir need --data: {args.what} names no data")
    paths = predict.image_paths(args.images, sys.stdin) if args.images else []
    bad = []

    def on_bad(path, error):
        bad.append(path)
        print(f"jaxcnn: error: {error}", file=sys.stderr)

    for name, figure in inside_report.draw_inside(entry, paths, data, args.examples, on_bad):
        folder.mkdir(parents=True, exist_ok=True)
        save(figure, folder / name)
        print(folder / name, flush=True)
    if animation := inside_report.animate_run(entry):
        with writable(folder / "filters.gif") as local:
            local.write_bytes(animation)
        print(folder / "filters.gif", flush=True)
    return exit_codes.MISTAKE if bad else exit_codes.DONE
