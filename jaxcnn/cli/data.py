"""`jaxcnn data` lists the kinds of data sources; `jaxcnn data check SOURCE` checks one."""

from __future__ import annotations

import argparse

_MOST_CLASSES = 8  # number of class names that are printed


def register(subparsers) -> None:
    """Adds `jaxcnn data` to the commands."""
    parser = subparsers.add_parser(
        "data",
        help="list the kinds of data sources, or check one",
        description="Lists the kinds of data sources, with an example of each. `data check SOURCE` "
        "opens a source, decodes up to a hundred images of each split, and prints the classes, the "
        "number of examples, the image sizes, the images per second in one thread, and the images "
        "that cannot be read. The exit code is 3 if there are any. `show-data` draws what a "
        "network sees.",
        epilog="example: jaxcnn data check folder:photos",
    )
    parser.add_argument(
        "action", metavar="check", choices=("check",), nargs="?", help="check SOURCE"
    )
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help="data source, such as hf:uoft-cs/cifar10"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="directory of the data")


def run(args: argparse.Namespace) -> int:
    """Lists the kinds of data sources, or checks one."""
    if args.action is None:
        if args.data_dir is not None:
            raise ValueError("--data-dir needs a source: jaxcnn data check SOURCE --data-dir DIR")
        _list()
        return 0
    if args.source is None:
        raise ValueError("SOURCE is missing: jaxcnn data check SOURCE")
    return _check(args.source, args.data_dir)


def _list() -> None:
    from jaxcnn.data.kinds import EXAMPLES
    from jaxcnn.reporting.tables import text_table

    print(text_table(["data.source", "contents"], EXAMPLES, left=2))
    print("\n`jaxcnn data check SOURCE` opens a source and decodes some of its images.")


def _check(source: str, data_dir: str | None) -> int:
    from jaxcnn.data.check import check_source
    from jaxcnn.reporting.tables import text_table
    from jaxcnn.runtime import exit_codes

    found = check_source(source, data_dir)
    names = ", ".join(found.class_names[:_MOST_CLASSES])
    more = len(found.class_names) - _MOST_CLASSES
    print(f"{source}, {'kept in memory' if found.in_memory else 'streamed'}")
    print(
        f"{len(found.class_names):,} classes: {names}{f' and {more:,} more' if more > 0 else ''}\n"
    )
    rows = [
        [
            split.name,
            f"{split.size:,}",
            f"{split.tried:,}",
            _sizes(split.shapes),
            "yes" if split.has_boxes else "no",
            f"{split.tried / max(split.seconds, 1e-9):,.0f}",
            f"{len(split.unreadable):,}",
        ]
        for split in found.splits
    ]
    titles = ["split", "examples", "tried", "height x width", "boxes", "images/s", "unreadable"]
    print(text_table(titles, rows))
    bad = {name: reason for split in found.splits for name, reason in split.unreadable.items()}
    for name, reason in bad.items():
        print(f"{name} {reason}")
    return exit_codes.FAILED if bad else 0


def _sizes(shapes: tuple[tuple[int, int], ...]) -> str:
    """The height and width of the images, or their ranges: "48 x 64-80"."""
    sides = [f"{min(s):,}" if min(s) == max(s) else f"{min(s)}-{max(s)}" for s in zip(*shapes)]
    return " x ".join(sides)
