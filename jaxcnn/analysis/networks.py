"""The table of all networks, for `jaxcnn list` and the documentation.

`python -m jaxcnn.analysis.networks PAGE` updates the table between the markers of a Markdown page.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxcnn._checks import near, near_or_all
from jaxcnn.analysis import facts
from jaxcnn.analysis.facts import Facts
from jaxcnn.reporting.tables import markdown_table, text_table

# Begin and end of the table in a Markdown page.
MARKERS = ("<!-- networks -->", "<!-- /networks -->")

_DATASETS = ("imagenet", "cifar10", "mnist")
_SORT_FIELDS = {
    "params": "params",
    "macs": "macs",
    "year": "year",
    "top1": "top1_error",
    "top5": "top5_error",
    "name": "name",
}


def select(
    pattern: str = "*", *, family: str | None = None, sort: str | None = None
) -> list[Facts]:
    """Selects networks by name and family.

    Args:
      pattern: shell pattern of ids or aliases, such as "*resnet50*".
      family: only networks of this family, such as "vgg".
      sort: "params", "macs", "year", "top1", "top5" or "name", ascending, with unknown values last;
        errors are sorted within each dataset. None keeps the order of the registry: families by
        age.

    Returns:
      The facts about each network.

    Raises:
      ValueError: nothing matches, or the family or the order is unknown.
    """
    if family is not None and family not in facts.families():
        raise ValueError(f"unknown family {family!r}{near_or_all(family, facts.families())}")
    if sort is not None and sort not in _SORT_FIELDS:
        raise ValueError(f"unknown order {sort!r}{near_or_all(sort, _SORT_FIELDS)}")
    chosen = [facts.facts(name) for name in facts.names(pattern)]
    chosen = [info for info in chosen if family in (None, info.family)]
    if not chosen:
        known = [*facts.names(), *facts.aliases()]
        within = f" in family {family!r}" if family else ""
        raise ValueError(f"no network matches {pattern!r}{within}{near(pattern, known)}")
    if sort:
        field = _SORT_FIELDS[sort]

        def key(info: Facts) -> tuple[Any, ...]:
            """Sorts errors by dataset first, since they are comparable only within one."""
            group = _DATASETS.index(info.dataset) if field.endswith("_error") else 0
            return group, getattr(info, field) is None, getattr(info, field)

        chosen.sort(key=key)
    return chosen


def to_text(networks: Sequence[Facts]) -> str:
    """Formats the networks as an aligned table, followed by their number."""
    rows = [_cells(info) for info in networks]
    count = f"{len(networks)} network{'s' if len(networks) != 1 else ''}"
    return f"{text_table(_header(), rows, left=3)}\n\n{count}; errors in percent, as published"


def to_markdown(networks: Sequence[Facts]) -> str:
    """Formats the networks as a Markdown table."""
    rows = [_cells(info) for info in networks]
    return markdown_table(_header(), [[f"`{name}`", *rest] for name, *rest in rows], left=3)


def to_json(networks: Sequence[Facts]) -> str:
    """Formats all facts about the networks as a JSON list."""
    return json.dumps([dataclasses.asdict(info) for info in networks], indent=1)


def update_page(text: str) -> str:
    """Replaces the table between the markers of a Markdown page.

    Args:
      text: of the page.

    Returns:
      The new text.

    Raises:
      ValueError: the markers are missing.
    """
    begin, end = MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"the text needs {begin} and after it {end}, once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{to_markdown(select())}\n{end}{rest.split(end)[1]}"


def _header() -> list[str]:
    return ["id", "aliases", "data", "year", "parameters", "multiply-adds", "top-1", "top-5"]


def _cells(info: Facts) -> list[str]:
    errors = ("" if error is None else str(error) for error in (info.top1_error, info.top5_error))
    counts = ("" if count is None else f"{count:,}" for count in (info.params, info.macs))
    words = [info.name, ", ".join(info.aliases), info.dataset or "", str(info.year or "")]
    return [*words, *counts, *errors]


if __name__ == "__main__":
    page = pathlib.Path(sys.argv[1])
    page.write_text(update_page(page.read_text("utf-8")), "utf-8")
