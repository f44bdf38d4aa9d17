"""`jaxcnn data`: the kinds of data sources; `jaxcnn data check SOURCE` tries one."""

from __future__ import annotations

import argparse

_MOST_CLASSES = 8  # whose names are printed


def register(subparsers) -> None:
    """Adds `jaxcnn data` to the commands."""
    parser = subparsers.add_parser(
        "data",
        help="list the kinds of data sources, or check one",
        description="Lists the kinds of data sources, with an example of each. `data check SOURCE` "
        "opens a source, decodes a hundred images of each split, and prints the classes, the "
        "counts, the sizes of images, the images per second in one thread, and those that cannot "
        "be read; if there are any, the exit code is 3. `show-data` draws what a network sees.",
        epilog="example: jaxcnn data check folder:photos",
    )
    parser.add_argument("action", metavar="check", choices=("check",), nargs="?", help="check one")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="such as hf:uoft-cs/cifar10")
    parser.add_argument("--data-dir", metavar="DIR", help="directory of the data")


def run(args: argparse.Namespace) -> int:
    """Lists the kinds of data sources, or checks one."""
    if args.action is None:
        if args.data_dir is not None:
            raise ValueError("--data-dir is for `jaxcnn data check SOURCE`; no source is given")
        _list()
        return 0
    if args.source is None:
        raise ValueError("no source is given: jaxcnn data check SOURCE")
    return _check(args.source, args.data_dir)


def _list() -> None:
    from jaxcnn.data.kinds import EXAMPLES
    from jaxcnn.reporting.tables import text_table

    print(text_table(["data.source", "contents"], EXAMPLES, left=2))
    print("\n`jaxcnn data check SOURCE` opens one and tries its images.")


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
    """The height and width of images, or the range of each: "48 x 64-80"."""
    sides = [f"{min(s):,}" if min(s) == max(s) else f"{min(s)}-{max(s)}" for s in zip(*shapes)]
    return " x ".join(sides)
