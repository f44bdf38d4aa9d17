"""`jaxcnn export WHAT OUT`: a trained network as weights or as a program, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

_SUFFIXES = ".safetensors, .npz or .pth"
_LAYOUTS = {"jaxcnn": "jaxcnn", "safetensors": "jaxcnn", "torch": "torch"}


def register(subparsers) -> None:
    """Adds `jaxcnn export` to the commands."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained network to a file or folder for other programs",
        description="Writes the network of a run's checkpoint, or of weights. If OUT ends in "
        ".safetensors, .npz or .pth, it is one file with the weights, the names of the classes and "
        "how images are normalized, which `jaxcnn predict` and load_pretrained take. Any other OUT "
        "is a folder that is used without jaxcnn: the network as StableHLO, ONNX or weights, "
        "model.json, which describes it, and example.py, which uses it.",
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
        help="of a run (default: best)",
    )
    parser.add_argument(
        "--to",
        choices=("jaxcnn", "torch", "safetensors", "stablehlo", "onnx"),
        default="jaxcnn",
        help="names and layout of weights: jaxcnn, which safetensors also stands for, or torch; "
        "or a program: stablehlo or onnx (default: jaxcnn)",
    )
    parser.add_argument("--id", metavar="MODEL", help="the network, for files that do not name it")
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="of a program: take pixels u8[N,size,size,C] and give probabilities; otherwise it "
        "takes normalized images f32[N,size,size,C] and gives logits",
    )


def run(args: argparse.Namespace) -> None:
    """Writes the network to OUT."""
    from jaxcnn.cli import common
    from jaxcnn.deploy import artifacts
    from jaxcnn.evaluation import evaluate
    from jaxcnn.weights import files

    common.quiet()
    target, is_file = Path(args.target), files.is_weights(args.target)
    if args.to not in _LAYOUTS and (is_file or _looks_like_a_file(target)):
        raise ValueError(
            f"OUT is {target}; with --to {args.to} it is a folder for the network, its description "
            "and an example"
        )
    if not is_file and _looks_like_a_file(target):
        raise ValueError(f"OUT is {target}; it must be a folder or a {_SUFFIXES} file")
    if args.pixels and args.to in _LAYOUTS:
        raise ValueError(f"--pixels is for --to stablehlo and --to onnx, not for --to {args.to}")
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
