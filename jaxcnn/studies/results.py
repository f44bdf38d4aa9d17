"""Results of a study: rows from the metrics of its runs, a table, and a figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._files import write_text
from jaxcnn.reporting import tables
from jaxcnn.reporting.figures import make_figure, plain_text, save
from jaxcnn.studies.plan import Job
from jaxcnn.studies.study import Run, Study
from jaxcnn.training.output.metrics_files import read_rows


@dataclasses.dataclass(frozen=True)
class Curve:
    """The error curves of a setting.

    Attributes:
      run: the setting.
      steps: i64[T], steps of the evaluations.
      train, test: f64[seeds,T], errors in percent.
    """

    run: Run
    steps: np.ndarray
    train: np.ndarray
    test: np.ndarray


def read_curves(study: Study, jobs: Sequence[Job], folder: Path) -> list[Curve]:
    """Reads the error curves of the settings that have been evaluated.

    Args:
      study: of the runs.
      jobs: its runs.
      folder: directory of the study.

    Returns:
      The curve of each setting, at the steps that all of its seeds have reached. Seeds and settings
      without an evaluation are left out.
    """
    curves = []
    for run in study.runs:
        of_run = [job for job in jobs if job.run.label == run.label]
        seeds = [_evaluations(path) for job in of_run for path in job.directories(folder)]
        seeds = [rows for rows in seeds if rows]
        if not seeds:
            continue
        reached = sorted(set.intersection(*(set(rows) for rows in seeds)))
        values = {
            name: np.array([[100 * rows[step][name] for step in reached] for rows in seeds])
            for name in (f"train_{study.metric}", study.metric)
        }
        train, test = values.values()
        curves.append(Curve(run, np.array(reached), train, test))
    return curves


def _evaluations(workdir: Path) -> dict[int, Mapping[str, Any]]:
    return {row["step"]: row for row in read_rows(workdir) if row["kind"] == "eval"}


def table(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Computes the last errors of each setting in percent, as mean and deviation over seeds.

    Args:
      curves: see `read_curves`.

    Returns:
      A row for each setting, {column: value}.
    """
    rows = []
    for curve in curves:
        test, train = curve.test[:, -1], curve.train[:, -1]
        rows.append(
            {
                "run": curve.run.label,
                "seeds": len(test),
                "steps": int(curve.steps[-1]),
                "train_error": float(train.mean()),
                "test_error": float(test.mean()),
                "test_error_std": float(test.std(ddof=1)) if len(test) > 1 else None,
                "published": curve.run.published,
            }
        )
    return rows


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows of `table` as aligned text."""
    header = ("run", "seeds", "steps", "train error", "test error", "published")
    lines = []
    for row in rows:
        spread = "" if row["test_error_std"] is None else f" ± {row['test_error_std']:.2f}"
        published = "" if row["published"] is None else f"{row['published']:.2f}"
        test = f"{row['test_error']:.2f}{spread}"
        counts = (str(row["seeds"]), f"{row['steps']:,}")
        lines.append((row["run"], *counts, f"{row['train_error']:.2f}", test, published))
    shown = [i for i in range(len(header)) if i < 5 or any(line[i] for line in lines)]
    text = tables.text_table(
        [header[i] for i in shown], [[line[i] for i in shown] for line in lines]
    )
    if any(row["test_error_std"] is not None for row in rows):
        text += "\n\n± is the standard deviation over seeds; errors in percent"
    return text


def write_json(
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    scaled: Sequence[str],
    path: Path,
    failed: Mapping[str, str],
) -> None:
    """Writes the results of a study as JSON.

    Args:
      study: of the results.
      rows: see `table`.
      scaled: descriptions of what was scaled.
      path: of the file.
      failed: {run: error message}.
    """
    content = {
        **{"title": study.title, "source": study.source, "scaled": scaled, "rows": rows},
        "failed": dict(failed),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def draw(study: Study, curves: Sequence[Curve], path: Path, *, note: str = "") -> None:
    """Draws training (dashed) and test errors against steps, and against x if the study has one.

    The panels have the same scale. With several seeds, the curve is the mean, and a band shows the
    minimum and the maximum.

    Args:
      study: of the results.
      curves: see `read_curves`.
      path: of the figure.
      note: line below the title.
    """
    panels = list(dict.fromkeys(curve.run.panel for curve in curves))
    with_x = study.x is not None
    count = len(panels) + with_x
    figure = make_figure(1.5 + 4.5 * count, 4.6)
    all_axes = figure.subplots(1, count, squeeze=False)[0]
    for axes in all_axes[1 : len(panels)]:
        axes.sharey(all_axes[0])
    for axes, panel in zip(all_axes, panels):
        _draw_panel(axes, [curve for curve in curves if curve.run.panel == panel], panel)
    if with_x:
        _draw_against_x(all_axes[-1], study, curves)
    all_axes[0].set_ylabel("error (%), dashed: training")
    figure.suptitle(plain_text(study.title + (f"\n{note}" if note else "")), fontsize=11)
    save(figure, path)


def _draw_panel(axes: Any, curves: Sequence[Curve], panel: str) -> None:
    for i, curve in enumerate(curves):
        color = f"C{i}"
        for values, style in ((curve.train, "--"), (curve.test, "-")):
            label = plain_text(curve.run.label) if style == "-" else None
            axes.plot(curve.steps, values.mean(0), style, color=color, label=label, lw=1.5)
            if len(values) > 1:
                axes.fill_between(
                    curve.steps, values.min(0), values.max(0), color=color, alpha=0.15, lw=0
                )
    axes.set(xlabel="steps", title=plain_text(panel), ylim=(0, None))
    axes.grid(alpha=0.3)
    _add_legend(axes)


def _add_legend(axes: Any) -> None:
    """Adds the legend below the axes, where it covers no curve."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="small")


def _draw_against_x(axes: Any, study: Study, curves: Sequence[Curve]) -> None:
    placed = [curve for curve in curves if curve.run.x is not None]
    panels = list(dict.fromkeys(curve.run.panel for curve in placed))
    for i, panel in enumerate(panels):
        group = [curve for curve in placed if curve.run.panel == panel]
        for values, style in (("train", "o--"), ("test", "o-")):
            ys = [getattr(curve, values)[:, -1] for curve in group]
            axes.errorbar(
                [curve.run.x for curve in group],
                [y.mean() for y in ys],
                [[y.mean() - y.min() for y in ys], [y.max() - y.mean() for y in ys]],
                fmt=style,
                capsize=3,
                color="tab:gray" if values == "train" and len(panels) == 1 else f"C{i}",
                label=f"{values}, {plain_text(panel)}" if len(panels) > 1 else values,
            )
    axes.set(xlabel=plain_text(study.x or ""), title="last error", ylim=(0, None))
    places = sorted({curve.run.x for curve in placed if curve.run.x is not None})
    if places and 0 < places[0] <= places[-1] / 8:  # such as learning rates
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    _add_legend(axes)
