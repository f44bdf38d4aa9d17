"""A plan as the text that `jaxcnn plan` prints, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxcnn.analysis.chips import CHIPS
from jaxcnn.reporting.tables import text_table

if TYPE_CHECKING:
    from jaxcnn.analysis.plan import Plan
    from jaxcnn.analysis.program_counts import Counts

_LIMITS = {"arithmetic": "arithmetic", "memory": "memory traffic", "collectives": "collectives"}


def to_text(plan: Plan) -> str:
    """Formats a plan.

    Args:
      plan: the plan.
    """
    lines = [_title(plan), *_notes(plan), ""]
    for name, counts, seconds in (
        ("training step", plan.train, plan.seconds),
        ("evaluation step", plan.evaluate, plan.eval_seconds),
    ):
        lines += [f"{name}, for one {_unit(plan)}, as counted by XLA", _memory(counts, plan)]
        lines += [_needs(counts, seconds, plan), ""]
    return "\n".join([*lines, *_rates(plan)])


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns the fields of a plan and what follows from them, for `json.dump`.

    Args:
      plan: the plan.
    """
    derived = ("step_seconds", "images_per_s", "hours")
    return dataclasses.asdict(plan) | {name: getattr(plan, name) for name in derived}


def _title(plan: Plan) -> str:
    units = _several(plan.devices, _unit(plan))
    hosts = f" of {plan.processes} hosts" if plan.processes > 1 else ""
    each = plan.batch_size // plan.devices
    together = f", {plan.members} runs together" if plan.members > 1 else ""
    return (
        f"{plan.model} on {plan.target} ({plan.device_kind}): {units}{hosts}, batch size "
        f"{plan.batch_size:,} ({each:,} for each), {plan.dtype}, {plan.mode}, BatchNorm "
        f"{plan.bn_sync}{together}"
    )


def _unit(plan: Plan) -> str:
    if plan.chip is None:
        return "device"
    return "chip" if CHIPS[plan.chip].devices == 1 else "core"


def _several(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'s' * (count > 1)}"


def _notes(plan: Plan) -> list[str]:
    notes = []
    if plan.stand_in:
        notes.append("note: the data are not available; their published sizes are used")
    if plan.runs > plan.members:
        together = "one" if plan.members == 1 else f"{plan.members}"
        notes.append(f"note: the times are those of {together} of {plan.runs} runs")
    if plan.chip is None:
        notes.append(
            "note: no published peak rates of this device are known; only counts are printed"
        )
    return notes


def _memory(counts: Counts, plan: Plan) -> str:
    kinds = ", ".join(f"{kind} {_binary(size)}" for kind, size in counts.memory.items())
    limit = "" if plan.memory_limit is None else f" of {_binary(plan.memory_limit)}"
    return f"  memory {_binary(counts.memory_bytes)}{limit}: {kinds}"


def _needs(counts: Counts, seconds: Mapping[str, float], plan: Plan) -> str:
    """A row for each of arithmetic, memory traffic and collectives, with its minimum time."""
    sent = sum(found.bytes for found in counts.collectives.values())
    amounts = {
        "arithmetic": _decimal(counts.flops, "FLOP"),
        "memory": _decimal(counts.traffic, "B"),
        "collectives": _decimal(sent, "B"),
    }
    kinds = ", ".join(
        f"{found.count:,.0f} {kind} of {_decimal(found.bytes, 'B')}"
        for kind, found in counts.collectives.items()
    )
    rows, header = [], ["", "amount"]
    if seconds:
        header += ["at", "ms at least", ""]
    for limit, amount in amounts.items():
        row = [f"  {_LIMITS[limit]}", amount]
        if seconds:
            bounds = "<- bounds" if seconds[limit] == max(seconds.values()) else ""
            row += [_peak(limit, plan), _readable(1e3 * seconds[limit]), bounds]
        rows.append(row)
    lines = [text_table(header, rows), f"  collectives: {kinds or 'none'}"]
    if counts.traffic < 0.99 * counts.bytes:
        inside = _decimal(counts.bytes - counts.traffic, "B")
        lines.append(f"  not included: {inside} that operations move within on-chip memory")
    return "\n".join(lines)


def _decimal(amount: float, unit: str) -> str:
    """An amount with a decimal prefix, such as "3.08 TFLOP"."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:,.2f} {prefix}{unit}"
    return f"{amount:,.0f} {unit}"


def _binary(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**29 else f"{size / 2**20:,.1f} MiB"


def _duration(hours: float) -> str:
    return f"{hours:,.2f} hours" if hours >= 0.1 else f"{_readable(3600 * hours)} seconds"


def _readable(value: float) -> str:
    """A number with three digits at least that are not leading zeros."""
    return f"{value:,.3f}" if value >= 0.1 or not value else f"{value:.3g}"


def _peak(limit: str, plan: Plan) -> str:
    assert plan.chip is not None
    chip = CHIPS[plan.chip]
    if limit == "arithmetic":
        return f"{chip.flops_per_s[plan.dtype] / chip.devices / 1e12:,.4g} TFLOP/s"
    rate = chip.bytes_per_s if limit == "memory" else chip.link_bytes_per_s
    return f"{rate / chip.devices / 1e9:,.4g} GB/s"


def _rates(plan: Plan) -> list[str]:
    run = (
        f"the run: {plan.total_steps:,} steps and {plan.evaluations:,} evaluations of "
        f"{plan.eval_steps:,} batches"
    )
    if plan.images_per_s is None or plan.hours is None:
        return [run]
    each, whole = plan.images_per_s / plan.devices, plan.images_per_s
    lines = [
        f"at most {each:,.0f} images/s for one {_unit(plan)} and {whole:,.0f} images/s in all",
        f"{run} take at least {_duration(plan.hours)}",
    ]
    if plan.streamed:
        hosts = f"each of {plan.processes:,} hosts" if plan.processes > 1 else "the host"
        lines.append(
            f"input: at this rate, {hosts} must decode {whole / plan.processes:,.0f} images/s"
        )
    return lines
