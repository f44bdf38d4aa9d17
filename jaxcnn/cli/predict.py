"""`jaxcnn predict IMAGE...`: the most probable classes of image files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "predict",
        help="name what is in image files",
        description="Prints the most probable classes of each image, by weights from the Hugging "
        "Face hub or a file, or by a training run. Images are prepared as the weights want it. A "
        "file that cannot be read is named, the others are answered, and the exit code is 2.",
        epilog="example: jaxcnn predict cat.jpg dog.jpg --model resnet50.tv_in1k",
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image file, a folder of them, or - for paths on standard input",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="published weights such as resnet50.tv_in1k; with --weights the network's id, which "
        "files written by jaxcnn know",
    )
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="a run's directory, or a .safetensors, .npz or .pth file (default: the hub's)",
    )
    parser.add_argument("--top", type=int, metavar="N", default=5, help="classes (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--draw", metavar="DIR", help="write the images there with the boxes of a box head"
    )
    parser.add_argument(
        "--explain",
        metavar="DIR",
        help="write pictures there: Grad-CAM of each image's first class, and the patches that "
        "each stage of the network answers to most",
    )


def run(args: argparse.Namespace) -> int:
    import json
    import sys
    from pathlib import Path

    from jaxcnn.cli import common
    from jaxcnn.evaluation import localization, predict
    from jaxcnn.models.registry import create_model
    from jaxcnn.training.output import trained
    from jaxcnn.weights import loading, pretrained

    common.quiet()

    if args.model is None and args.weights is None:
        raise ValueError(
            "neither --model nor --weights is given; example: --model resnet50.tv_in1k, or "
            "--weights RUN for what a run has learnt"
        )
    published = pretrained.WEIGHTS.get(args.model)
    if args.weights is not None and Path(args.weights).is_dir():
        learnt = trained.load_run(args.weights)
        how, variables, names = learnt.preprocessing, learnt.variables, learnt.class_names
        model = create_model(learnt.model, num_classes=len(names), **learnt.options)
    else:
        if args.weights is None:
            opened = loading.open_weights(args.model)
        else:
            opened = loading.open_weights(
                args.weights, published.model if published else args.model
            )
        how = published.preprocessing if published else opened.preprocessing
        model, variables = loading.build(opened)
        names = opened.class_names or predict.default_names(model.num_classes)
    if not 1 <= args.top <= len(names):
        raise ValueError(f"--top is {args.top}; it can be 1 to {len(names)}, the number of classes")
    paths = predict.image_paths(args.images, sys.stdin)
    if args.explain and Path(args.explain).exists() and not Path(args.explain).is_dir():
        raise ValueError(f"--explain is {args.explain}, which is no directory")
    bad = []

    def on_bad(path, error):
        bad.append(path)
        print(f"jaxcnn: error: {error}", file=sys.stderr)

    answers = predict.predict(model, variables, paths, how, names, top=args.top, on_bad=on_bad)
    given = ((path, found) for path, found in zip(paths, answers) if found)
    if args.draw and not localization.has_box_head(model):
        raise ValueError("--draw is for networks with a box head; this one has none")
    answered: Iterable = given
    if localization.has_box_head(model):
        answered = localization.with_boxes(model, variables, given, how, args.top, args.draw)
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
        for picture in explain_pictures.explain_images(
            model, variables, read, how, first, args.explain
        ):
            print(picture, file=sys.stderr if args.json else sys.stdout, flush=True)
    return 2 if bad else 0
