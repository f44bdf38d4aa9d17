"""`jaxcnn prepare SOURCE [OUT]`: writes an archive of images, or builds a TFDS dataset."""

from __future__ import annotations

import argparse
import contextlib


def register(subparsers) -> None:
    """Adds `jaxcnn prepare` to the commands."""
    parser = subparsers.add_parser(
        "prepare",
        help="write an archive of images, or build a TFDS dataset",
        description="Writes all splits of a dataset of image files to ArrayRecord files in the "
        "directory OUT; data.source=archive:OUT trains on them. Archives of earlier versions are "
        "converted. Repeat an interrupted command to continue. Without OUT, SOURCE must be "
        "tfds:NAME, and the dataset is built; this needs TensorFlow.",
        epilog="example: jaxcnn prepare folder:photos photos_256 --side 256 --quality 90",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="such as folder:PATH or hf:NAME; see `jaxcnn data`"
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="directory of the archive; created if it does not exist",
    )
    parser.add_argument("--data-dir", metavar="PATH", help="directory of the data")
    parser.add_argument(
        "--side", type=int, metavar="PIXELS", help="resize larger images to this shorter side"
    )
    parser.add_argument(
        "--quality", type=int, metavar="1-100", help="re-encode all images as JPEGs of this quality"
    )


def run(args: argparse.Namespace) -> None:
    """Writes an archive, or builds a TFDS dataset."""
    from jaxcnn._files import local_path
    from jaxcnn.data import prepare

    kind, _, name = args.source.partition(":")
    if args.out is None:
        if kind != "tfds" or not name:
            raise ValueError("OUT is missing; only a TFDS dataset, tfds:NAME, is built without it")
        for option in ("side", "quality"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} is for an archive, but OUT is missing")
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
    import sys

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    # with redirected output, the bar is on standard error
    shown = bool(sys.stdout and sys.stdout.isatty())
    console = Console(stderr=not shown, highlight=False, soft_wrap=True)
    bad = total = 0
    bar = Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=shown,
    )
    # rich ends even a hidden display with an empty line
    with bar if console.is_terminal else contextlib.nullcontext():
        task = None
        for at in progresses:
            if task is None:
                task, total = bar.add_task("images", total=at.total, completed=at.done), at.total
                if at.done:
                    console.print(f"{at.done:,} of {at.total:,} already written", markup=False)
            bar.update(task, completed=at.done)
            if at.bad:
                bad += 1
                console.print(f"copied unchanged: {at.bad}", markup=False)
    size = sum(file.stat().st_size for file in out.iterdir())
    text = f"{out}: {total:,} images, {size / 2**20:,.1f} MiB"
    print(f"{text}, {bad:,} of them unreadable" if bad else text)
