"""`jaxcnn convert IN OUT [OPTION=VALUE ...]`: weights from one file format to another."""

from __future__ import annotations

import argparse
import ast
import contextlib
from typing import Any


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="convert weights of other frameworks and between torch's layout and jaxcnn's",
        description="Reads weights of torchvision, timm, Caffe, ONNX, Keras or jaxcnn and writes "
        "them again, checking that they are all that the network needs. The names of the files "
        "say the format: .safetensors, .npz, or PyTorch's .pth, .pt, .bin and .ckpt, which are "
        "written where torch is installed; of the other frameworks' files, the contents do.",
        epilog="example: jaxcnn convert resnet50.pth resnet50.safetensors --model resnet50; "
        "jaxcnn convert thin.caffemodel thin.safetensors --model resnet50_v1 width=32",
    )
    parser.add_argument(
        "source", metavar="IN", help="file, or published weights such as resnet50.tv_in1k"
    )
    parser.add_argument("target", metavar="OUT", help="file")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="OPTION=VALUE",
        help="fields of the network's module, such as width=32",
    )
    parser.add_argument(
        "--model", metavar="ID", help="network, as `jaxcnn list` prints it, unless IN says"
    )
    parser.add_argument(
        "--num-classes", type=int, metavar="N", help="0 leaves out the classifier (default: IN's)"
    )
    parser.add_argument(
        "--images",
        choices=("caffe", "tf", "torch", "unit", "raw"),
        help="how another framework's network was shown its images: BGR less a mean, in [-1,1], by "
        "ImageNet's mean and deviation, in [0,1], in [0,255] (default: as is usual there)",
    )
    parser.add_argument(
        "--to", choices=("jaxcnn", "torch"), default="jaxcnn", help="layout (default: jaxcnn)"
    )


def run(args: argparse.Namespace) -> None:
    from jaxcnn.weights import loading

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
        raise ValueError("num_classes is no option of convert: write --num-classes")
    if not equals:
        raise ValueError(f"{text!r} is no option of a network: write NAME=VALUE")
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value
