"""Draws what each layer of a network costs: memory, parameters and multiply-adds over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcnn.reporting.figures import OKABE_ITO, make_figure

if TYPE_CHECKING:
    from jaxcnn.analysis.layer_rows import Row
    from jaxcnn.analysis.summary import Summary

_PANELS = (
    ("activation_bytes", "activations", "MB", 1e6),
    ("params", "parameters", "M", 1e6),
    ("macs", "multiply-adds", "G", 1e9),
)
_KINDS = {
    "convolution": (OKABE_ITO["sky blue"], lambda kind: kind.startswith("conv")),
    "dense": (OKABE_ITO["orange"], lambda kind: kind == "dense"),
    "pooling": (OKABE_ITO["green"], lambda kind: "pool" in kind),
    "other": ("0.6", lambda kind: True),
}
_NAMED = 45  # layers; with more, only the first layer of each module is named


def draw_costs(summary: Summary) -> Any:
    """Draws the memory for activations, the parameters and the multiply-adds of each layer.

    Args:
      summary: see `jaxcnn.summarize`.

    Returns:
      The Matplotlib figure.
    """
    rows = [row for row in summary.rows if row.activations or row.params]
    figure = make_figure(min(13, max(7, 1.5 + 0.22 * len(rows))), 7)
    axes = figure.subplots(3, 1, sharex=True)
    colors = [_color(row.kind) for row in rows]
    for one, (field, title, unit, scale) in zip(axes, _PANELS):
        values = [getattr(row, field) for row in rows]
        one.bar(range(len(rows)), [value / scale for value in values], width=0.8, color=colors)
        total = sum(values)
        one.set_ylabel(f"{title} ({unit})")
        one.set_title(_most(rows, values, title, total / scale, unit), fontsize=9, loc="left")
        one.grid(axis="y", alpha=0.3)
        one.set_axisbelow(True)
        one.margins(x=0.01)
    named = _named(rows)
    axes[-1].set_xticks(list(named), list(named.values()), rotation=90, fontsize=7)
    figure.align_ylabels(axes)
    size = "×".join(map(str, summary.input_size))
    figure.suptitle(f"{summary.model}, one image of {size}, layer by layer")
    handles = [
        axes[0].bar([0], [0], color=color, label=name)
        for name, (color, _) in _KINDS.items()
        if color in colors
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _color(kind: str) -> str:
    return next(color for color, matches in _KINDS.values() if matches(kind))


def _most(rows: Sequence[Row], values: Sequence[int], title: str, total: float, unit: str) -> str:
    """The total, and how much of it the largest layer has."""
    most = max(range(len(values)), key=values.__getitem__)
    share = values[most] / max(sum(values), 1)
    return f"{title}: {total:.3g} {unit}, {share:.0%} of it in {rows[most].name}"


def _named(rows: Sequence[Row]) -> Mapping[int, str]:
    """The positions and names of the layers that are named on the axis."""
    if len(rows) <= _NAMED:
        return {i: row.name for i, row in enumerate(rows)}
    firsts: dict[str, int] = {}
    for i, row in enumerate(rows):
        firsts.setdefault(row.name.split("/")[0], i)
    step = -(-len(firsts) // _NAMED)
    return {i: name for name, i in list(firsts.items())[::step]}
