"""Collects what a page shows of a run: metrics, pictures, checkpoints. Changes nothing there."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from jaxcnn._files import any_path, is_local
from jaxcnn.reporting.compare_runs import Run
from jaxcnn.reporting.html.content import Link, RunContent
from jaxcnn.reporting.html.predictions import SAMPLES
from jaxcnn.reporting.samples import PREDICTIONS
from jaxcnn.training.output.metrics_files import CSV
from jaxcnn.training.output.records import complete_steps, read_summary

INSIDE = "inside"  # a folder that `jaxcnn inspect` may have written

_FOLDERS = ("best", "checkpoints")


def read_contents(run: Run, page: Path) -> RunContent:
    """Reads what a page shows of a run.

    Args:
      run: as read by `records.open_runs`.
      page: path of the page, to which links are relative.

    Raises:
      ValueError: a file of the run is damaged.
    """
    workdir = any_path(run.name)
    files = [_link(name, workdir / name, page) for name in (CSV,) if (workdir / name).is_file()]
    for name in _FOLDERS:
        folder = workdir / name
        for step in complete_steps(folder):
            files.append(_link(f"{name}/{step}", folder / str(step), page))
    found = [workdir / name for name in (PREDICTIONS, SAMPLES)]
    if (workdir / INSIDE).is_dir():
        found += sorted(p for p in (workdir / INSIDE).iterdir() if p.suffix == ".png")
    pictures = {
        path.relative_to(workdir).as_posix(): path.read_bytes() for path in found if path.is_file()
    }
    folder_link = _link("directory", workdir, page)
    return RunContent(run, folder_link, files, pictures, read_summary(workdir))


def link_to(folder: Path, page: Path) -> Link:
    """Returns a link from a page to a directory, with its path as text."""
    return _link(str(folder), folder, page)


def _link(text: str, target: Path, page: Path) -> Link:
    """A relative link; text only if one of the two is in a bucket, or on another drive."""
    if not (is_local(target) and is_local(page)):
        return Link(text, None)
    try:
        # without following symbolic links, since browsers do not follow them before "..", either
        path = os.path.relpath(target, page.parent)
    except ValueError:  # another drive
        return Link(text, None)
    url = urllib.parse.quote(Path(path).as_posix())
    return Link(text, f"{url}/" if target.is_dir() else url)
