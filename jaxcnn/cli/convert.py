"""`jaxcnn convert IN OUT [OPTION=VALUE ...]`: converts weights to another format or layout."""

from __future__ import annotations

import argparse
import ast
import contextlib
from typing import Any


def register(subparsers) -> None:
    """Adds `jaxcnn convert` to the commands."""
    parser = subparsers.add_parser(
        "convert",
        help="convert weights between frameworks, file formats and layouts",
        description="Reads weights of torchvision, timm, Caffe, ONNX, Keras, TF-Slim or jaxcnn, "
        "checks that they fit the network, and writes them to another file. The suffix determines "
        "the format: .safetensors, .npz, or PyTorch's .pth, .pt, .bin and .ckpt, which can be "
        "written only if torch is installed. Files of the other frameworks are recognized by their "
        "contents.",
        epilog="example: jaxcnn convert resnet50.pth resnet50.safetensors --model resnet50; "
        "jaxcnn convert thin.caffemodel thin.safetensors --model resnet50_v1 width=32",
    )
    parser.add_argument(
        "source", metavar="IN", help="weights file, or published weights such as resnet50.tv_in1k"
    )
    parser.add_argument("target", metavar="OUT", help="file to write")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="OPTION=VALUE",
        help="fields of the network's module, such as width=32",
    )
    parser.add_argument("--model", metavar="ID", help="id of the network, unless IN names it")
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="number of classes; 0 leaves out the classifier (default: as in IN)",
    )
    parser.add_argument(
        "--images",
        choices=("caffe", "tf", "torch", "mean", "unit", "raw"),
        help="the input normalization of another framework's network: caffe (BGR minus a mean), tf "
        "(pixels in [-1,1]), torch (ImageNet's mean and standard deviation), mean (RGB minus a "
        "mean), unit (in [0,1]) or raw (in [0,255]); by default, the one that is usual for the "
        "framework",
    )
    parser.add_argument(
        "--to",
        choices=("jaxcnn", "torch"),
        default="jaxcnn",
        help="layout of the arrays (default: jaxcnn)",
    )


def run(args: argparse.Namespace) -> None:
    """Converts the weights."""
    from jaxcnn._files import check_not_input
    from jaxcnn.weights import loading

    check_not_input(args.target, args.source)
    options = dict(map(_option, args.options))
    opened = loading.open_weights(
        args.source,
        args.model,
        num_classes=args.num_classes,
        images=args.images,
        options=options,
    )
    model, variables = loading.build(opened, args.num_classes, **options)
    names = opened.class_names
    if names is not None and len(names) != model.num_classes:
        names = None  # of the classifier that another one replaces
    for note in opened.notes:
        print(note)
    loading.save(
        args.target,
        opened.model,
        variables,
        to=args.to,
        preprocessing=opened.preprocessing,
        class_names=names,
        **{**opened.options, **options},
    )
    print(f"wrote {args.target}: {opened.model}, {model.num_classes} classes, layout of {args.to}")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if name == "num_classes":
        raise ValueError("num_classes is not an option of the network here; use --num-classes N")
    if not equals:
        raise ValueError(f"{text!r} is not an option of the network; it must be NAME=VALUE")
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value
