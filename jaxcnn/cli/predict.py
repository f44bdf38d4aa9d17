"""`jaxcnn predict MODEL IMAGE...`: classifies image files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jaxcnn.runtime import exit_codes

if TYPE_CHECKING:
    from jaxcnn.data.preprocessing import Preprocessing
    from jaxcnn.evaluation import Prediction


def register(subparsers) -> None:
    """Adds `jaxcnn predict` to the commands."""
    parser = subparsers.add_parser(
        "predict",
        help="classify image files",
        usage="%(prog)s [OPTIONS] MODEL IMAGE [IMAGE ...]",
        description="Prints the most probable classes of each image. MODEL is a run's directory, a "
        "file of weights, or published weights of the Hugging Face hub. Images are preprocessed to "
        "match the weights. If a file cannot be read, an error names it, the other files are "
        "predicted, and the exit code is 2.",
        epilog="example: jaxcnn predict resnet50.tv_in1k cat.jpg dog.jpg",
    )
    parser.add_argument(
        "what",
        metavar="MODEL",
        help="a run's directory, a .safetensors, .npz or .pth file, or published weights",
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*",  # empty with the former options --model and --weights
        help="image files, folders of them, or - for paths on standard input",
    )
    parser.add_argument(
        "--id", metavar="MODEL", help="network of a weights file that does not name it"
    )
    parser.add_argument("--model", help=argparse.SUPPRESS)  # former options
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument(
        "--checkpoint",
        choices=("best", "newest"),
        default="best",
        help="checkpoint of a run (default: best)",
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="number of classes to print (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--draw", metavar="DIR", help="draw the boxes of a box head into copies of the images"
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write figures: Grad-CAM of each image's most probable class, and the image patches "
        "that activate each stage of the network most",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the classes of each image; returns the exit code."""
    from jaxcnn._files import any_path
    from jaxcnn.cli import common
    from jaxcnn.evaluation import evaluate, localization, predict

    common.quiet()
    what, images = _what(args)
    paths = predict.image_paths(images, sys.stdin)
    if args.draw:
        localization.check_drawings(paths, args.draw)
    entry = evaluate.open_entry(what, args.checkpoint, model=args.id)
    model, variables, preprocessing = entry.make(), entry.variables, entry.preprocessing
    names = entry.class_names or predict.default_names(entry.classes)
    top = min(5, len(names)) if args.top is None else args.top
    if not 1 <= top <= len(names):
        raise ValueError(f"--top is {top}; it must be 1 to {len(names)}, the number of classes")
    explain = any_path(args.explain) if args.explain else None
    if explain and explain.exists() and not explain.is_dir():
        raise ValueError(f"--explain is {args.explain}, which is not a directory")
    has_boxes = localization.has_box_head(model)
    if args.draw and not has_boxes:
        raise ValueError("--draw is for networks with a box head; this one has none")
    if explain:
        explain.mkdir(parents=True, exist_ok=True)
    bad = []

    def on_bad(path, error):
        bad.append(path)
        print(f"jaxcnn: error: {error}", file=sys.stderr)

    answers = predict.predict_files(
        model, variables, paths, preprocessing, names, top=top, on_bad=on_bad
    )
    tracked = common.track("images", answers, len(paths))
    results: Any = ((path, predictions) for predictions, path in zip(tracked, paths) if predictions)
    if has_boxes:
        results = localization.add_boxes(model, variables, results, preprocessing, top, args.draw)
    results = list(results) if args.explain else results
    _print_results(results, args.json)
    if args.explain and results:
        _explain(args, model, variables, preprocessing, results)
    return exit_codes.MISTAKE if bad else exit_codes.DONE


def _print_results(results: Iterable[tuple[Any, Sequence[Prediction]]], as_json: bool) -> None:
    """Prints (path, predictions) of each image."""
    import json

    from jaxcnn.evaluation import predict

    if as_json:
        rows = [{"image": path, "top": [*map(predict.as_row, top)]} for path, top in results]
        print(json.dumps(rows, indent=1))
        return
    for path, predictions in results:
        print(path)
        for prediction in predictions:
            box = f"  {prediction.box}" if prediction.box else ""
            print(f"  {100 * prediction.probability:6.2f} %  {prediction.name}{box}")


def _explain(
    args: argparse.Namespace,
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    results: Sequence[tuple[Any, Sequence[Prediction]]],
) -> None:
    """Draws what the first prediction of each image is based on, and prints the files."""
    from jaxcnn.analysis import explain_pictures
    from jaxcnn.cli import common

    paths = [path for path, _ in results]
    first = [predictions[0] for _, predictions in results]
    pictures = explain_pictures.explain_images(
        model, variables, paths, preprocessing, first, args.explain
    )
    for picture in common.track("pictures", pictures, None):
        print(picture, file=sys.stderr if args.json else sys.stdout, flush=True)


def _what(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Returns the model and the images; accepts the former options --model and --weights."""
    from pathlib import Path

    from jaxcnn.data.readers.folders import EXTENSIONS

    if args.model is None and args.weights is None:
        if Path(args.what).suffix.lower() in EXTENSIONS:
            raise ValueError(
                f"{args.what} is an image; the first argument is the model: a run, a file of "
                "weights, or published weights such as resnet50.tv_in1k"
            )
        return args.what, args.images
    what = args.weights or args.model
    if args.weights and args.model:
        args.id = args.model
    print(
        f"note: --model and --weights are now the first argument: jaxcnn predict {what} IMAGE...",
        file=sys.stderr,
    )
    return what, [args.what, *args.images]
