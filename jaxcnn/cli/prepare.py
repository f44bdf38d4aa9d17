"""`jaxcnn prepare SOURCE [OUT]`: a set of images as an archive, or TFDS's building of a set."""

from __future__ import annotations

import argparse
import contextlib


def register(subparsers) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="write a set of images as an archive, or build a TFDS set",
        description="Writes all parts of a set of image files as ArrayRecord files in the folder "
        "OUT, which data.source=archive:OUT trains on; archives of earlier versions are converted. "
        "After a stop, the same command continues. Without OUT, SOURCE is tfds:NAME and is "
        "built where TensorFlow is installed.",
        epilog="example: jaxcnn prepare folder:photos photos_256 --side 256 --quality 90",
    )
    parser.add_argument("source", metavar="SOURCE", help="folder:PATH, tfds:NAME or archive:PATH")
    parser.add_argument("out", metavar="OUT", nargs="?", help="the archive's folder, to be made")
    parser.add_argument("--data-dir", metavar="PATH", help="folder of the TFDS sets")
    parser.add_argument(
        "--side", type=int, metavar="PIXELS", help="resize larger images to this shorter side"
    )
    parser.add_argument(
        "--quality", type=int, metavar="1-100", help="re-encode all images as JPEGs of this quality"
    )


def run(args: argparse.Namespace) -> None:
    from jaxcnn._files import local_path
    from jaxcnn.data import prepare

    kind, _, name = args.source.partition(":")
    if args.out is None:
        if kind != "tfds" or not name:
            raise ValueError("OUT is not given; only a set of TFDS, tfds:NAME, is built without it")
        for option in ("side", "quality"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} is for an archive; OUT is not given")
        print(f"tfds:{name} is in {prepare.build_tfds(name, args.data_dir)}")
        return
    _write(
        prepare.write_archive(
            args.source,
            local_path(args.out),
            data_dir=args.data_dir,
            side=args.side,
            quality=args.quality,
        ),
        local_path(args.out),
    )


def _write(progresses, out) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(highlight=False, soft_wrap=True)
    bad = total = 0
    bar = Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    # rich ends a display with an empty line, also one that is not shown
    with bar if console.is_terminal else contextlib.nullcontext():
        task = None
        for at in progresses:
            if task is None:
                task, total = bar.add_task("images", total=at.total, completed=at.done), at.total
                if at.done:
                    console.print(f"{at.done:,} of {at.total:,} are there already", markup=False)
            bar.update(task, completed=at.done)
            if at.bad:
                bad += 1
                console.print(f"kept as it is: {at.bad}", markup=False)
    size = sum(file.stat().st_size for file in out.iterdir())
    text = f"{out}: {total:,} images, {size / 2**20:,.1f} MiB"
    console.print(f"{text}, {bad:,} of them unreadable" if bad else text, markup=False)
