"""`jaxcnn convert IN OUT`: weights from one layout or file format to another."""

from __future__ import annotations

import argparse


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="convert weights between torch's layout and jaxcnn's",
        description="Reads weights of torchvision, timm or jaxcnn and writes them again, checking "
        "that they are all that the network needs. Formats follow from the names: .safetensors, "
        ".npz, or PyTorch's .pth, .pt, .bin and .ckpt, which are written where torch is installed.",
        epilog="example: jaxcnn convert resnet50.pth resnet50.safetensors --model resnet50",
    )
    parser.add_argument(
        "source", metavar="IN", help="file, or published weights such as resnet50.tv_in1k"
    )
    parser.add_argument("target", metavar="OUT", help="file")
    parser.add_argument(
        "--model", metavar="ID", help="network, as `jaxcnn list` prints it, unless IN says"
    )
    parser.add_argument(
        "--to", choices=("jaxcnn", "torch"), default="jaxcnn", help="layout (default: jaxcnn)"
    )


def run(args: argparse.Namespace) -> None:
    from jaxcnn.weights import loading

    opened = loading.open_weights(args.source, args.model)
    model, variables = loading.build(opened)
    loading.save(
        args.target,
        opened.model,
        variables,
        to=args.to,
        preprocessing=opened.preprocessing,
        class_names=opened.class_names,
        **opened.options,
    )
    print(f"wrote {args.target}: {opened.model}, {model.num_classes} classes, layout of {args.to}")
