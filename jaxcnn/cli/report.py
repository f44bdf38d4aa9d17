"""`jaxcnn report`: compares runs in one table and one figure, or on one page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.reporting.compare_runs import Run

_PAGE = "index.html"
_SECONDS, _LONGEST = 10.0, 86_400


def register(subparsers) -> None:
    """Adds `jaxcnn report` to the commands."""
    parser = subparsers.add_parser(
        "report",
        help="compare runs in one table and one figure, or on an HTML page",
        description="Plots the errors and losses of several runs, finished or in progress, in one "
        "figure, and prints their last and best errors and the fields in which they differ. --html "
        "writes a page instead, which opens from a file without a server or a network (the extra "
        "report: pip install 'jaxcnn[report]'): charts that can be zoomed, tables that sort, "
        "predictions, times, configuration, environment and links to checkpoints. With --watch, "
        "the page follows runs that are being trained.",
        epilog="example: jaxcnn report runs/resnet20 runs/plain20 --out both.svg; "
        "jaxcnn report runs/residual_vs_plain --html page/",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="directory of a run, an ensemble or a study"
    )
    parser.add_argument("--out", metavar="FILE", help="the figure (default: report.png)")
    parser.add_argument(
        "--html", metavar="PATH", help=f"write a page: a .html file, or a folder for {_PAGE}"
    )
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=_SECONDS,
        help="with --html: write the page again when there are new rows, until the runs are "
        "finished or Ctrl-C; the open page reloads itself (default: every %(const)g s)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints a table of the runs, and draws their curves or writes a page."""
    from jaxcnn._files import check_distinct
    from jaxcnn.reporting import compare_runs
    from jaxcnn.reporting.figures import picture_path
    from jaxcnn.training.output import records

    _check_options(args)
    out = None
    if args.out or not args.html:
        out = picture_path(args.out or "report.png")
    page = _page_path(args.html) if args.html else None
    check_distinct(out, page)
    runs = records.open_runs(_run_directories(args.runs))
    if not runs:
        raise ValueError(f"{' '.join(args.runs)}: no run has started")
    print(compare_runs.table(runs))
    if out is not None:
        compare_runs.draw(runs, out)
        print(f"\n{out}: errors and losses")
    if page is not None:
        _write_pages(args.runs, page, args.watch)


def _check_options(args: argparse.Namespace) -> None:
    from jaxcnn._checks import optional_package

    if args.watch is not None:
        if not args.html:
            raise ValueError("--watch writes a page: give its path, such as --html page/")
        if not 1 <= args.watch <= _LONGEST:
            raise ValueError(f"--watch is {args.watch:g}; it must be 1 to {_LONGEST:,} seconds")
    if args.html:
        optional_package("plotly", "report")


def _page_path(text: str) -> Path:
    """The path of the page; makes the folder if one is given."""
    from jaxcnn._files import any_path, is_local, output_path

    if text.endswith((".html", ".htm")):
        return output_path(text)
    folder = any_path(text)
    if is_local(folder):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--html is {text!r}, a file; give a folder, or a path with .html")
        folder.mkdir(parents=True, exist_ok=True)
    return folder / _PAGE


def _run_directories(texts: Sequence[str]) -> list[str]:
    """Replaces the directories of studies by those of their runs; each directory once."""
    from jaxcnn._files import any_path
    from jaxcnn.studies import files

    found: list[str] = []
    for text in dict.fromkeys(texts):
        path = any_path(text)
        found += map(str, files.run_directories(path)) if files.is_study(path) else [text]
    return list(dict.fromkeys(found))


def _write_pages(texts: Sequence[str], page: Path, watch: float | None) -> None:
    """Writes the page once; with `watch`, again whenever the runs have changed."""
    import time

    print(f"\n{page}", flush=True)
    if watch is None:
        _write_page(texts, page, None)
        return
    shown = None
    try:
        for state, is_finished in _states(texts):
            if state != shown:
                _write_page(texts, page, watch)
            elif is_finished:
                break
            shown = state
            time.sleep(watch)
    except KeyboardInterrupt:
        print("stopped; the page no longer reloads itself")
    _write_page(texts, page, None)


def _states(texts: Sequence[str]) -> Iterator[tuple[Any, bool]]:
    """Yields again and again what can change of runs, and whether all of them are finished."""
    from jaxcnn._files import any_path
    from jaxcnn.reporting.samples import PREDICTIONS
    from jaxcnn.studies import files
    from jaxcnn.training.output import records

    while True:
        runs = records.open_runs(_run_directories(texts))
        places = [any_path(run.name) / n for run in runs for n in (PREDICTIONS, records.SUMMARY)]
        studies = [path for path in map(any_path, texts) if files.is_study(path)]
        places += [folder / files.RESULTS for folder in studies]
        times = [path.stat().st_mtime if path.is_file() else None for path in places]
        open_studies = any(not (folder / files.RESULTS).is_file() for folder in studies)
        state = ([(run.name, len(run.rows)) for run in runs], times)
        yield state, all(map(_is_finished, runs)) and not open_studies


def _is_finished(run: Run) -> bool:
    total = run.manifest.get("total_steps")
    return bool(run.rows) and total is not None and run.rows[-1]["step"] >= total


def _write_page(texts: Sequence[str], page: Path, watch: float | None) -> None:
    """Reads the runs and the studies, and writes the page."""
    import datetime

    from jaxcnn._files import any_path, write_output
    from jaxcnn.reporting.html.content import StudyContent
    from jaxcnn.reporting.html.page import library, make_page
    from jaxcnn.studies import files
    from jaxcnn.training.output import records, run_files

    runs = [
        run_files.read_contents(run, page) for run in records.open_runs(_run_directories(texts))
    ]
    studies = []
    for folder in map(any_path, dict.fromkeys(texts)):
        if files.is_study(folder):
            figure = folder / files.FIGURE
            picture = figure.read_bytes() if figure.is_file() else None
            link = run_files.link_to(folder, page)
            studies.append(StudyContent(link, files.read_results(folder), picture))
    when = f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"
    text = make_page(runs, studies, script=library(), when=when, reload_seconds=watch)
    write_output(page, text)
