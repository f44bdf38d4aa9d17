"""The directory of a study: names of its files, its runs, and its results, read without JAX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcnn._files import read_json
from jaxcnn.training.output.records import MANIFEST

PLAN, TABLE, RESULTS, FIGURE = "plan.json", "table.txt", "results.json", "figure.png"


def is_study(folder: Path) -> bool:
    """Returns whether a directory is that of a study, finished or not."""
    names = (PLAN, RESULTS)
    return not (folder / MANIFEST).is_file() and any((folder / name).is_file() for name in names)


def run_directories(folder: Path) -> list[Path]:
    """Returns the directories of a study's runs that have started, in natural order.

    Args:
      folder: directory of the study.
    """
    found = [path for path in folder.iterdir() if (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: [_part(text) for text in re.split(r"(\d+)", path.name)])


def _part(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (-1, text)


def read_results(folder: Path) -> Mapping[str, Any]:
    """Reads the results of a study.

    Args:
      folder: directory of the study.

    Returns:
      The content of `results.json`; {} if it is not written yet.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        return {}
    content = read_json(path)
    kinds = {"rows": list, "scaled": list, "failed": dict}
    good = isinstance(content, dict) and all(
        isinstance(content.get(name, kind()), kind) for name, kind in kinds.items()
    )
    if not good or not all(isinstance(row, dict) for row in content.get("rows", ())):
        raise ValueError(f"{path} is not the results of a study")
    return content
