"""Measures contenders in turn in one process, so that their ratio holds when the machine drifts."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from page_parts import RESULTS

from jaxcnn.runtime import heap

heap.keep()  # as the commands do, and before JAX's first array
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def alternate(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int = 7, seconds: float = 0.5
) -> dict[str, list[float]]:
    """Seconds per call of each contender, one figure a round, the contenders taking turns.

    Args:
      contenders: functions of nothing that return what has to be waited for. Each is called once
        beforehand, which compiles it, and then as often a round as fills about `seconds`.
    """
    calls = {}
    for name, run in contenders.items():
        jax.block_until_ready(run())
        start = time.perf_counter()
        jax.block_until_ready(run())
        calls[name] = max(1, round(seconds / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                out = run()
            jax.block_until_ready(out)
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def ratios(times: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Of each contender: median seconds, and median, least and largest ratio to `base` by round."""
    table = {}
    for name, values in times.items():
        by_round = [value / of for value, of in zip(values, times[base])]
        table[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(by_round),
            "ratio_min": min(by_round),
            "ratio_max": max(by_round),
        }
    return table


def machine() -> dict[str, Any]:
    """What a figure depends on: processor, devices, versions, date."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        names = [x for x in text.splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
        flags = text.split()
        vectors = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}
        model += next((f" ({name})" for flag, name in vectors.items() if flag in flags), "")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "devices": sorted({d.device_kind for d in jax.devices()}),
        "device_count": jax.device_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "date": datetime.date.today().isoformat(),
    }


def save(name: str, rows: Any, **more: Any) -> Path:
    """Writes `results/NAME.json`: the rows, the machine and the versions, and `more` entries."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    entries = {"machine": machine(), **more, "rows": rows}
    path.write_text(json.dumps(entries, indent=1) + "\n")
    return path


def show(title: str, table: Mapping[str, Mapping[str, float]]) -> None:
    """Prints what `ratios` returned."""
    print(title)
    for name, row in table.items():
        print(
            f"  {name:38s} {row['seconds'] * 1e3:9.2f} ms   x {row['ratio']:.2f}"
            f"  [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]"
        )
