"""The data of a page's charts: the rows of runs as columns, and what is drawn from them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcnn.reporting.figures import OKABE_ITO

_MOST_ROWS = 2000  # of a kind and a run; of more rows every second, third, ... is drawn
_DIGITS = 6
_COLORS = [color for name, color in OKABE_ITO.items() if name != "yellow"]
_SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "star")  # one for each round of them

_SECONDS = ("training", "waiting for data", "evaluation", "checkpoints")


class Series(NamedTuple):
    """A curve of each run in a chart.

    Attributes:
      kind: of the rows, "train" or "eval".
      column: of the rows.
      label: in words.
      dash: Plotly's name of the line style.
    """

    kind: str
    column: str
    label: str
    dash: str = "solid"


class Chart(NamedTuple):
    """A chart of a page.

    Attributes:
      title: of the chart.
      axis: label of the y-axis.
      scale: factor of the values.
      series: what is drawn.
      part: heading that it belongs to, "curves" or "speed".
    """

    title: str
    axis: str
    scale: float
    series: Sequence[Series]
    part: str = "curves"


def _both(column: str, what: str) -> tuple[Series, ...]:
    """A quantity on the test images, on the training images, and with the averaged weights."""
    return (
        Series("eval", column, f"test {what}"),
        Series("eval", f"train_{column}", f"training {what}", "dash"),
        Series("eval", f"ema_{column}", f"test {what}, averaged weights", "dot"),
    )


_CHARTS = (
    Chart("top-1 error", "error (%)", 100, _both("top1_error", "error")),
    Chart("loss", "loss", 1, _both("loss", "loss")),
    Chart("top-5 error", "error (%)", 100, _both("top5_error", "top-5 error")),
    Chart("localization error", "error (%)", 100, _both("localization_top1_error", "error")),
    Chart("learning rate", "learning rate", 1,
          (Series("train", "learning_rate", "learning rate"),)),
    Chart("gradient norm", "norm", 1, (Series("train", "grad_norm", "gradient norm"),)),
    Chart("images per second", "images/s", 1,
          (Series("train", "images_per_second", "images/s"),), "speed"),
    Chart("time per step", "ms", 1,
          (Series("train", "step_ms", "a step"),
           Series("train", "data_wait_ms", "of it waiting for data", "dash")), "speed"),
    Chart("peak memory of a device", "MiB", 1,
          (Series("train", "device_memory_mib", "peak memory"),), "speed"),
)  # fmt: skip


def chart_data(rows_of_runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Describes the charts that any of the runs has values for.

    Args:
      rows_of_runs: contents of each run's `metrics.jsonl`.

    Returns:
      The charts, as JSON: {"id", "title", "axis", "scale", "part", "series"}.
    """
    present = {
        (row["kind"], name)
        for rows in rows_of_runs
        for row in rows
        for name, value in row.items()
        if _is_number(value) and value != 0
    }
    charts = []
    for number, chart in enumerate(_CHARTS):
        series = [one._asdict() for one in chart.series if (one.kind, one.column) in present]
        if series:
            charts.append({"id": f"chart{number}", **chart._asdict(), "series": series})
    return charts


def run_data(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turns the rows of a run into columns for the charts.

    Args:
      name: of the run, shown in its curves.
      rows: contents of `metrics.jsonl`.

    Returns:
      {"name", "train", "eval"}; the latter two are {column: values}, with the columns "step",
      "epoch" and "hours". A value that a row lacks, or that is not finite, is None.
    """
    hours = [sum(spent.values()) / 3600 for spent in itertools.accumulate(_spent(rows), _add)]
    timed = [{**row, "hours": hour} for row, hour in zip(rows, hours)]
    columns = {"step", "epoch", "hours", *(s.column for chart in _CHARTS for s in chart.series)}
    data: dict[str, Any] = {"name": name}
    for kind in ("train", "eval"):
        chosen = thinned([row for row in timed if row["kind"] == kind])
        used = sorted(column for column in columns if any(column in row for row in chosen))
        data[kind] = {c: [_rounded(row.get(c)) for row in chosen] for c in used}
    return data


def thinned(
    rows: Sequence[Mapping[str, Any]], most: int = _MOST_ROWS
) -> Sequence[Mapping[str, Any]]:
    """Keeps every n-th of the rows and the last one, so that about `most` are left."""
    every = -(-len(rows) // most) or 1
    return rows if every == 1 else [*rows[:-1:every], rows[-1]]


def styles(names: Sequence[str]) -> list[tuple[str, str]]:
    """Assigns each run a color and a marker.

    Runs that differ in their seed only, such as "a_seed0" and "a_seed1", look alike.

    Args:
      names: of the runs.

    Returns:
      (color, Plotly's name of a marker) of each run.
    """
    settings = [re.sub(r"_seed\d+$", "", name) for name in names]
    place = {setting: i for i, setting in enumerate(dict.fromkeys(settings))}
    return [
        (
            _COLORS[place[setting] % len(_COLORS)],
            _SYMBOLS[place[setting] // len(_COLORS) % len(_SYMBOLS)],
        )
        for setting in settings
    ]


def seconds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sums the seconds that a run spent on training, waiting for data, evaluation, checkpoints."""
    total = dict.fromkeys(_SECONDS, 0.0)
    for spent in _spent(rows):
        total = _add(total, spent)
    return total


def _spent(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The seconds of each row since the row before."""
    found, step = [], 0
    for row in rows:
        steps = max(0, row["step"] - step) if row["kind"] == "train" else 0
        step += steps
        whole, wait = (steps * _number(row, f"{name}_ms") / 1e3 for name in ("step", "data_wait"))
        other = (_number(row, f"{name}_seconds") for name in ("eval", "checkpoint"))
        found.append(dict(zip(_SECONDS, (max(0.0, whole - wait), wait, *other))))
    return found


def _add(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one[name] + other[name] for name in one}


def _number(row: Mapping[str, Any], name: str) -> float:
    """A value of a row; 0 if it has none that is finite."""
    value = row.get(name)
    return float(value) if value is not None and _is_number(value) else 0.0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _rounded(value: Any) -> float | int | None:
    if not _is_number(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")
