"""The table of all networks: for `jaxcnn list` and for the README.

`python -m jaxcnn.analysis.networks README.md` brings a README's table up to date.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

from jaxcnn._checks import near
from jaxcnn.models import registry
from jaxcnn.models.registry import ModelInfo
from jaxcnn.reporting.tables import markdown_table, text_table

# Where the README's table begins and ends.
MARKERS = ("<!-- networks -->", "<!-- /networks -->")

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
) -> list[ModelInfo]:
    """Facts of the networks whose id or alias matches a shell pattern.

    Args:
      pattern: such as "*resnet50*".
      family: only those of one family, such as "vgg".
      sort: "params", "macs", "year", "top1", "top5" or "name", ascending, unknown last. None keeps
        the order of the registry: families by age.

    Raises:
      ValueError: nothing matches, or the family or the order is unknown.
    """
    if family is not None and family not in registry.FAMILIES:
        hint = near(family, registry.FAMILIES)
        raise ValueError(f"unknown family {family!r}{hint or _known(registry.FAMILIES)}")
    if sort is not None and sort not in _SORT_FIELDS:
        raise ValueError(f"unknown order {sort!r}{_known(_SORT_FIELDS)}")
    chosen = [registry.model_info(name) for name in registry.list_models(pattern)]
    chosen = [info for info in chosen if family in (None, info.family)]
    if not chosen:
        known = [*registry.list_models(), *registry.list_aliases()]
        within = f" in family {family!r}" if family else ""
        raise ValueError(f"no network matches {pattern!r}{within}{near(pattern, known)}")
    if sort:
        field = _SORT_FIELDS[sort]
        chosen.sort(key=lambda info: (getattr(info, field) is None, getattr(info, field)))
    return chosen


def to_text(networks: Sequence[ModelInfo]) -> str:
    """Aligned table, with a line that counts the networks."""
    rows = [_cells(info) for info in networks]
    count = f"{len(networks)} network{'s' if len(networks) != 1 else ''}"
    return f"{text_table(_header(), rows, left=3)}\n\n{count}; errors in percent, as published"


def to_markdown(networks: Sequence[ModelInfo]) -> str:
    """Markdown table."""
    rows = [_cells(info) for info in networks]
    return markdown_table(_header(), [[f"`{name}`", *rest] for name, *rest in rows], left=3)


def to_json(networks: Sequence[ModelInfo]) -> str:
    """List of all facts of each network."""
    return json.dumps([dataclasses.asdict(info) for info in networks], indent=1)


def update_page(text: str) -> str:
    """A page's text with the table of all networks between its markers.

    Raises ValueError if the markers are missing.
    """
    begin, end = MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"the text needs {begin} and after it {end}, once each")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{to_markdown(select())}\n{end}{rest.split(end)[1]}"


def _header() -> list[str]:
    return ["id", "aliases", "data", "year", "parameters", "multiply-adds", "top-1", "top-5"]


def _cells(info: ModelInfo) -> list[str]:
    errors = ("" if error is None else str(error) for error in (info.top1_error, info.top5_error))
    counts = ("" if count is None else f"{count:,}" for count in (info.params, info.macs))
    words = [info.name, ", ".join(info.aliases), info.dataset or "", str(info.year or "")]
    return [*words, *counts, *errors]


def _known(words) -> str:
    return f"; known are {', '.join(words)}"


if __name__ == "__main__":
    page = pathlib.Path(sys.argv[1])
    page.write_text(update_page(page.read_text("utf-8")), "utf-8")
