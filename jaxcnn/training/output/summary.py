"""`run_summary.json`: predictions for test examples and the cost of the step, of a finished run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._files import read_json, write_text

SUMMARY = "run_summary.json"

_MOST_CLASSES = 100_000  # a damaged file does not make a huge confusion matrix


def write_summary(
    workdir: Path,
    step: int,
    labels: np.ndarray,
    predicted: np.ndarray,
    compiled: Mapping[str, Any],
) -> None:
    """Writes the summary of a finished run.

    Args:
      workdir: directory of the run.
      step: number of its steps.
      labels: i32[N], of the first test examples.
      predicted: i32[N], the predicted classes after the last step.
      compiled: values of the report "compiled"; empty if this process compiled nothing.
    """
    numbers = {k: v for k, v in compiled.items() if v is not None and math.isfinite(v)}
    content = {
        **{"step": step, "labels": labels.tolist(), "predicted": predicted.tolist()},
        "compiled": numbers,
    }
    write_text(workdir / SUMMARY, json.dumps(content) + "\n")


def read_summary(workdir: Path) -> dict[str, Any]:
    """Reads the summary of a run.

    Args:
      workdir: directory of the run.

    Returns:
      {"step", "labels", "predicted", "compiled"}, see `write_summary`; {} if the run has none.

    Raises:
      ValueError: the file is damaged.
    """
    path = workdir / SUMMARY
    if not path.is_file():
        return {}
    content = read_json(path)
    if not _is_summary(content):
        raise ValueError(f"{path} is damaged; delete it to read the run without its predictions")
    return content


def _is_summary(content: Any) -> bool:
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        return False
    lists = [content.get(name) for name in ("labels", "predicted")]
    if not all(isinstance(one, list) for one in lists) or len(lists[0]) != len(lists[1]):
        return False
    classes = [value for one in lists for value in one]
    whole = all(type(value) is int and 0 <= value < _MOST_CLASSES for value in classes)
    return whole and isinstance(content.get("compiled"), dict)
