"""What a page shows: the contents of runs and of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcnn.reporting.compare_runs import Run


class Link(NamedTuple):
    """A place that a page links to.

    Attributes:
      text: of the link.
      target: relative URL; None for a place that a page cannot link to, such as one in a bucket.
    """

    text: str
    target: str | None


class RunContent(NamedTuple):
    """Everything that a page shows of a run.

    Attributes:
      run: its manifest and its rows.
      folder: its directory.
      files: its checkpoints and other files.
      pictures: {title: content of a PNG file}.
      summary: content of `run_summary.json`; {} if the run has none.
    """

    run: Run
    folder: Link
    files: Sequence[Link]
    pictures: Mapping[str, bytes]
    summary: Mapping[str, Any]


class StudyContent(NamedTuple):
    """The results of a study.

    Attributes:
      folder: its directory.
      results: content of `results.json`; {} before the study is finished.
      figure: content of `figure.png`; None if there is none.
    """

    folder: Link
    results: Mapping[str, Any]
    figure: bytes | None


def short_names(names: Sequence[str]) -> list[str]:
    """Shortens paths by the directories that all of them share.

    >>> short_names(["runs/study/a", "runs/study/b"]), short_names(["runs/a"])
    (['a', 'b'], ['a'])
    """
    parts = [name.replace("\\", "/").rstrip("/").split("/") for name in names]
    shared = 0
    while all(len(one) > shared + 1 for one in parts) and (
        len({one[shared] for one in parts}) == 1
    ):
        shared += 1
    return ["/".join(one[shared:]) for one in parts]
