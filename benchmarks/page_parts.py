"""What the tables of the benchmark pages are made of: result files, numbers, Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# BENCH_RESULTS keeps short runs apart from the figures that are shown.
RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).parent / "results")


def load(name: str) -> dict[str, Any] | None:
    """A result file, None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def machine(found: dict) -> str:
    """A sentence: where and when, and with which versions."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    devices = f"{found['device_count']} x {', '.join(found['devices'])}"
    cores = f"{found['cores']} core{'s' if found['cores'] != 1 else ''}"
    where = f"{found['cpu']}, {cores}" + ("" if found["devices"] == ["cpu"] else f", {devices}")
    return f"{where}; Python {found['python']}, {versions}; {found['date']}."


def table(header: list[str], rows: Iterable[list[str]], left: int | tuple[int, ...] = 1) -> str:
    """Markdown. `left` columns, a number from the left or their indices, are text."""
    text = range(left) if isinstance(left, int) else left
    rule = ["---" if i in text else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def note(found: dict) -> list[str]:
    """A result file's remarks on how it was measured."""
    return [found["note"]] if "note" in found else []


def compiled(rows: list[dict]) -> list[float]:
    """The ratios of rows for which both eager and compiled PyTorch were measured."""
    return [row["ratio"] for row in rows if "compile" in row["forms"]]


def rate(row: dict, form: str) -> float:
    return row["batch"] / row["forms"][form]["seconds"]


def two(value: float) -> str:
    return f"{value:.2f}"


def ms(form: dict) -> str:
    return f"{1e3 * form['seconds']:,.1f}"


def ratio(form: dict) -> tuple[str, str]:
    return two(form["ratio"]), f"[{two(form['ratio_min'])}, {two(form['ratio_max'])}]"
