"""`jaxcnn predict MODEL IMAGE...`: the most probable classes of image files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="name what is in image files",
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
        nargs="*",  # empty where --model and --weights are given as before
        help="image files, folders of them, or - for paths on standard input",
    )
    parser.add_argument("--id", metavar="MODEL", help="the network, for files that do not name it")
    parser.add_argument("--model", help=argparse.SUPPRESS)  # how MODEL was given before
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument(
        "--checkpoint", choices=("best", "newest"), default="best", help="of a run (default: best)"
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="number of classes to print (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--draw", metavar="DIR", help="write the images there with the boxes of a box head"
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write pictures there: Grad-CAM of each image's first class, and the image patches "
        "that activate each stage of the network most",
    )


def run(args: argparse.Namespace) -> int:
    import json

    from jaxcnn._files import any_path
    from jaxcnn.cli import common
    from jaxcnn.evaluation import evaluate, localization, predict

    common.quiet()
    what, images = _what(args)
    entry = evaluate.open_entry(what, args.checkpoint, model=args.id)
    model, variables, how = entry.make(), entry.variables, entry.preprocessing
    names = entry.class_names or predict.default_names(entry.classes)
    top = min(5, len(names)) if args.top is None else args.top
    if not 1 <= top <= len(names):
        raise ValueError(f"--top is {top}; it can be 1 to {len(names)}, the number of classes")
    paths = predict.image_paths(images, sys.stdin)
    explain = any_path(args.explain) if args.explain else None
    if explain and explain.exists() and not explain.is_dir():
        raise ValueError(f"--explain is {args.explain}, which is not a directory")
    bad = []

    def on_bad(path, error):
        bad.append(path)
        print(f"jaxcnn: error: {error}", file=sys.stderr)

    answers = predict.predict_files(model, variables, paths, how, names, top=top, on_bad=on_bad)
    tracked = common.track("images", answers, len(paths))
    given = ((path, found) for path, found in zip(paths, tracked) if found)
    if args.draw and not localization.has_box_head(model):
        raise ValueError("--draw is for networks with a box head; this one has none")
    answered: Iterable = given
    if localization.has_box_head(model):
        answered = localization.add_boxes(model, variables, given, how, top, args.draw)
    found = list(answered) if args.explain else answered
    if args.json:
        rows = [
            {"image": path, "top": [predict.as_row(a) for a in answers]} for path, answers in found
        ]
        print(json.dumps(rows, indent=1))
    else:
        for path, answers in found:
            print(path)
            for answer in answers:
                box = f"  {answer.box}" if answer.box else ""
                print(f"  {100 * answer.probability:6.2f} %  {answer.name}{box}")
    if args.explain and found:
        from jaxcnn.analysis import explain_pictures

        first = [answers[0] for _, answers in found]
        read = [path for path, _ in found]
        pictures = explain_pictures.explain_images(model, variables, read, how, first, args.explain)
        for picture in common.track("pictures", pictures, None):
            print(picture, file=sys.stderr if args.json else sys.stdout, flush=True)
    return 2 if bad else 0


def _what(args: argparse.Namespace) -> tuple[str, list[str]]:
    """What predicts, and the images; --model and --weights are how it was given before."""
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
