"""`jaxcnn export WHAT OUT`: exports a trained network as weights or as a program."""

from __future__ import annotations

import argparse
from pathlib import Path

_SUFFIXES = ".safetensors, .npz or .pth"
_LAYOUTS = {"jaxcnn": "jaxcnn", "safetensors": "jaxcnn", "torch": "torch"}


def register(subparsers) -> None:
    """Adds `jaxcnn export` to the commands."""
    parser = subparsers.add_parser(
        "export",
        help="export a trained network as weights, StableHLO or ONNX",
        description="Exports the network of a run's checkpoint or of weights. If OUT ends in "
        ".safetensors, .npz or .pth, one file is written with the weights, the class names and the "
        "normalization of images, which `jaxcnn predict` and load_pretrained accept. Any other OUT "
        "is a folder for use without jaxcnn: the network as StableHLO, ONNX or weights, its "
        "description model.json, and example.py, which shows how to use it.",
        epilog="example: jaxcnn export runs/r56 r56.safetensors, or jaxcnn export runs/r56 r56 "
        "--to onnx --pixels",
    )
    parser.add_argument(
        "what",
        metavar="WHAT",
        help="a run's directory, a .safetensors, .npz or .pth file, or published weights",
    )
    parser.add_argument("target", metavar="OUT", help=f"{_SUFFIXES} file, or folder")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of a run (default: best)",
    )
    parser.add_argument(
        "--to",
        choices=("jaxcnn", "torch", "safetensors", "stablehlo", "onnx"),
        default="jaxcnn",
        help="layout of the weights, jaxcnn (or safetensors, the same) or torch; or a program, "
        "stablehlo or onnx (default: jaxcnn)",
    )
    parser.add_argument(
        "--id", metavar="MODEL", help="network of a weights file that does not name it"
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="the program takes pixels u8[N,size,size,C] and returns probabilities, instead of "
        "normalized images f32[N,size,size,C] and logits",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the network to OUT."""
    from jaxcnn._files import any_path, check_not_input
    from jaxcnn.cli import common
    from jaxcnn.deploy import artifacts
    from jaxcnn.evaluation import evaluate
    from jaxcnn.weights import files

    common.quiet()
    target, is_file = any_path(args.target), files.is_weights(args.target)
    if args.to not in _LAYOUTS and (is_file or _looks_like_a_file(target)):
        raise ValueError(
            f"OUT is {target}; with --to {args.to} it must be a folder, whose name has no suffix"
        )
    if not is_file and _looks_like_a_file(target):
        raise ValueError(f"OUT is {target}; it must be a folder or a {_SUFFIXES} file")
    if args.pixels and args.to in _LAYOUTS:
        raise ValueError(f"--pixels is for --to stablehlo and --to onnx, not for --to {args.to}")
    check_not_input(target, args.what)
    if not is_file:
        artifacts.check_folder("OUT", target)
    entry = evaluate.open_entry(args.what, args.checkpoint, model=args.id)
    network = entry.model if entry.step is None else f"{entry.model} after step {entry.step}"
    if is_file:
        artifacts.save_weights(entry, args.target, _LAYOUTS[args.to])
        print(f"wrote {target}: {network}, layout of {_LAYOUTS[args.to]}")
        return
    to = "safetensors" if args.to == "jaxcnn" else args.to
    path = artifacts.export_model(entry, target, to, pixels=args.pixels)
    print(f"wrote {path}, {artifacts.DESCRIPTION} and {artifacts.EXAMPLE}: {network}")


def _looks_like_a_file(target: Path) -> bool:
    return target.suffix[1:].isalpha() and not target.is_dir()
