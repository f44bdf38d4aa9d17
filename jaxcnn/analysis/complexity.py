"""Charts accuracy against multiply-adds and parameters of many networks.

The chart follows Canziani, Paszke and Culurciello 2016, "An analysis of deep neural network models
for practical applications", figure 2, and uses the published figures of the registry.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.analysis.facts import Facts
from jaxcnn.analysis.networks import select
from jaxcnn.reporting.figures import make_figure, place_labels, save
from jaxcnn.reporting.tables import text_table

if TYPE_CHECKING:
    from jaxcnn.analysis.bench import Bench

_PARAMS_SHOWN = (5e6, 25e6, 75e6, 150e6)
# Adjacent colors are easy to tell apart. The last ones are for families that overlap less.
_COLORS = (
    *(f"tab:{c}" for c in ("blue", "orange", "green", "red", "purple", "brown", "pink")),
    *("olive", "tab:cyan", "black", "gold", "navy", "teal", "gray", "crimson"),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A network in the chart.

    Attributes:
      name: id of the network.
      family: which determines the color.
      params: number of parameters.
      macs: multiply-adds for one image of the network's own input size.
      top1_accuracy: published accuracy in percent.
      protocol, source: how the accuracy was measured, and where it was published.
      one_crop: the accuracy is for a single crop of the input size, as the multiply-adds are.
    """

    name: str
    family: str
    params: int
    macs: int
    top1_accuracy: float
    protocol: str
    source: str
    one_crop: bool


def points(patterns: Sequence[str] = ("*",), dataset: str = "imagenet") -> list[Point]:
    """Selects networks with a published top-1 error, ordered by family and age.

    If several errors are published, that of a single crop is preferred, since the multiply-adds are
    for one.

    Args:
      patterns: shell patterns of ids or aliases.
      dataset: "imagenet", "cifar10" or "mnist".

    Raises:
      ValueError: a pattern matches no network, or no error is published for any of them.

      >>> [point] = points(["vgg16"])
      >>> point.top1_accuracy, point.protocol
      (71.592, 'val, single centre crop 224, shorter side 256')
    """
    chosen = {info.name: info for pattern in patterns for info in select(pattern)}
    candidates = [_point(info) for info in chosen.values() if info.dataset == dataset]
    known = [point for point in candidates if point is not None]
    if not known:
        raise ValueError(
            f"no top-1 error on {dataset} is published for {', '.join(patterns)}; `jaxcnn list` "
            "shows the published errors"
        )
    return known


def _point(info: Facts) -> Point | None:
    main = {"top1_error": info.top1_error, "protocol": info.protocol, "source": info.source}
    results = [r for r in (main, *info.other_results) if r["top1_error"] is not None]
    if not results:
        return None
    alike = [r for r in results if _is_one_crop(r["protocol"], info)]
    best: Mapping[str, Any] = (alike or results)[0]
    accuracy = round(100 - best["top1_error"], 3)
    counts = (info.params or 0, info.macs or 0)
    return Point(
        info.name, info.family, *counts, accuracy, best["protocol"], best["source"], bool(alike)
    )


def _is_one_crop(protocol: str, info: Facts) -> bool:
    """Whether a protocol is a single crop or view of the size that the multiply-adds are for."""
    if info.dataset != "imagenet":
        return "distortions" not in protocol or "no distortions" in protocol
    single = "single crop" in protocol or "single centre crop" in protocol
    return single and not any(
        f"crop {n}" in protocol for n in (320, 331) if n != info.input_size[0]
    )


def to_text(networks: Sequence[Point], measured: Iterable[Bench] = ()) -> str:
    """Formats the networks as an aligned table, followed by a table of measurements.

    Args:
      networks: the networks.
      measured: measurements on this machine, see `jaxcnn.analysis.bench`.
    """
    header = ["network", "top-1 %", "G multiply-adds", "M parameters", "protocol"]
    rows = [
        [p.name, f"{p.top1_accuracy:.2f}", f"{p.macs / 1e9:.3f}", f"{p.params / 1e6:.2f}",
         p.protocol]
        for p in networks
    ]  # fmt: skip
    protocols = [row.pop() for row in rows]
    text = text_table(header[:-1], rows)
    lines = text.splitlines()
    lines[0] += "  protocol"
    lines[2:] = [f"{line}  {protocol}" for line, protocol in zip(lines[2:], protocols)]
    measured = list(measured)
    if not measured:
        return "\n".join(lines)
    header = ["measured", "size", "batch", "ms per batch", "images/s", "MiB"]
    table = [
        [b.model, str(b.image_size), str(b.batch), f"{1e3 * b.step_seconds:,.1f}",
         f"{b.images_per_s:,.1f}", _mib(b)]
        for b in measured
    ]  # fmt: skip
    return "\n".join([*lines, "", text_table(header, table)])


def to_csv(networks: Sequence[Point], measured: Iterable[Bench] = ()) -> str:
    """Formats the networks as CSV, one row each.

    Args:
      networks: the networks.
      measured: measurements on this machine; their columns are empty for other networks.
    """
    by_name = {b.model: b for b in measured}
    fields = [f.name for f in dataclasses.fields(Point)]
    extra = ["image_size", "batch", "dtype", "step_seconds", "images_per_s", "memory_bytes"]
    names = [p.name for p in networks]
    stream = io.StringIO()
    table = csv.DictWriter(stream, ["name", *fields[1:], *extra], lineterminator="\n")
    table.writeheader()
    rows = {p.name: dataclasses.asdict(p) for p in networks}
    for name in [*names, *(n for n in by_name if n not in rows)]:
        bench = by_name.get(name)
        figures = {f: getattr(bench, f) for f in extra} if bench else {}
        table.writerow({"name": name} | rows.get(name, {}) | figures)
    return stream.getvalue()


def draw(networks: Sequence[Point], path: str | Path) -> None:
    """Draws the chart; the area of a bubble is proportional to the number of parameters.

    A hollow bubble marks an accuracy from several crops or dense evaluation, which takes more
    multiply-adds than the chart shows.

    Args:
      networks: the networks.
      path: of the figure, .png, .svg or .pdf.
    """
    figure = make_figure(13, 9)
    axes = figure.subplots()
    axes.set_xscale("log")
    largest = max(p.params for p in networks)
    families = list(dict.fromkeys(p.family for p in networks))
    colors = {family: _COLORS[i % len(_COLORS)] for i, family in enumerate(families)}
    marks = []
    for point in sorted(networks, key=lambda p: -p.params):
        color = colors[point.family]
        axes.scatter(
            point.macs / 1e9,
            point.top1_accuracy,
            s=_area(point.params, largest),
            facecolor=(color if point.one_crop else "none"),
            edgecolor=color,
            alpha=0.55,
            linewidth=1.2,
        )
        radius = (_area(point.params, largest) ** 0.5) / 2
        marks.append((point.name, point.macs / 1e9, point.top1_accuracy, radius))
    axes.set(xlabel="multiply-adds of one image (G, logarithmic)", ylabel="top-1 accuracy (%)")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.grid(alpha=0.25, which="both")
    axes.margins(0.09)
    families_key = axes.legend(
        [axes.scatter([], [], color=colors[f], s=50) for f in families],
        families,
        loc="lower right",
        fontsize=8,
        title="hollow: several crops" if any(not p.one_crop for p in networks) else None,
        title_fontsize=8,
    )
    axes.add_artist(families_key)
    sizes = [n for n in _PARAMS_SHOWN if n <= 1.5 * largest] or [largest]
    axes.legend(
        [axes.scatter([], [], s=_area(n, largest), color="0.6", alpha=0.6) for n in sizes],
        [f"{n / 1e6:g} M" for n in sizes],
        loc="upper left",
        fontsize=8,
        title="parameters",
        labelspacing=2.2,
        borderpad=1.6,
        handletextpad=1.8,
    )
    place_labels(axes, marks)
    save(figure, path)


def draw_measured(measured: Sequence[Bench], path: str | Path) -> None:
    """Draws the measured inference time, memory and throughput of each network.

    Args:
      measured: see `jaxcnn.analysis.bench`.
      path: of the figure, .png, .svg or .pdf.
    """
    figure = make_figure(12, 1.2 + 0.45 * len(measured))
    names = [f"{b.model}\n{b.image_size} px, batch {b.batch}" for b in measured]
    panels = [
        ("ms per batch", [1e3 * b.step_seconds for b in measured]),
        ("MiB", [(b.memory_bytes or 0) / 2**20 for b in measured]),
        ("images/s", [b.images_per_s for b in measured]),
    ]
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels):
        bars = axes.barh(names, values, color="tab:blue", alpha=0.7)
        axes.bar_label(bars, [f"{v:,.1f}" for v in values], padding=3, fontsize=8)
        axes.set_title(title)
        axes.margins(x=0.2)
        axes.tick_params(axis="y", labelsize=8)
        axes.locator_params(axis="x", nbins=4)
    axes.invert_yaxis()
    save(figure, path)


def _area(params: float, largest: float) -> float:
    """Area of a bubble in square points."""
    return max(12.0, 1400 * params / largest)


def _mib(bench: Bench) -> str:
    return "" if bench.memory_bytes is None else f"{bench.memory_bytes / 2**20:,.1f}"
