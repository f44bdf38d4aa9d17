"""Compares several runs: their curves in one figure, last and best errors in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.reporting.figures import make_figure, plain_text, save
from jaxcnn.reporting.tables import text_table

_WIDTH = 120  # characters; a wider table is transposed


class Run(NamedTuple):
    """The files of a run.

    Attributes:
      name: of its directory.
      manifest: contents of `config.json`.
      rows: contents of `metrics.jsonl`.
      fields: configuration, as {path: value}.
      best: lowest value of the error that selects checkpoints, between 0 and 1; None before the
        first evaluation.
    """

    name: str
    manifest: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    fields: Mapping[str, Any]
    best: float | None

    def evaluations(self) -> list[Mapping[str, Any]]:
        """Returns the rows of the evaluations, by step."""
        return [row for row in self.rows if row["kind"] == "eval"]


def table(runs: Sequence[Run]) -> str:
    """Formats a table of runs, followed by the fields in which their configurations differ."""
    header = ["run", "network", "step", "epoch", "train %", "test %", "best %", "images/s"]
    lines = [_line(run) for run in runs]
    return f"{text_table(header, lines, left=2)}\n{_differences(runs)}".rstrip()


def _line(run: Run) -> list[str]:
    facts = run.manifest
    evaluations = run.evaluations()
    rates = [row["images_per_second"] for row in run.rows if "images_per_second" in row]
    last = run.rows[-1] if run.rows else {"step": 0, "epoch": 0.0}
    step = f"{last['step']:,}"
    if last["step"] < (facts.get("total_steps") or 0):
        step += f" of {facts['total_steps']:,}"
    errors = ["", "", ""]
    if evaluations and run.best is not None:
        values = (
            evaluations[-1].get("train_top1_error", np.nan),
            evaluations[-1]["top1_error"],
            run.best,
        )
        errors = [f"{100 * value:.2f}" for value in values]
    speed = f"{float(np.median(rates)):,.0f}" if rates else ""
    return [
        run.name,
        facts["config"]["model"]["name"],
        step,
        f"{last['epoch']:.1f}",
        *errors,
        speed,
    ]


def _differences(runs: Sequence[Run]) -> str:
    fields = [run.fields for run in runs]
    names = sorted({name for one in fields for name in one})
    differ = [n for n in names if len({repr(one.get(n)) for one in fields}) > 1]
    if not differ:
        return ""
    rows = [[run.name, *(str(one.get(n, "")) for n in differ)] for run, one in zip(runs, fields)]
    table = text_table(["run", *differ], rows, left=len(differ) + 1)
    if max(map(len, table.splitlines())) > _WIDTH:  # a line for each field
        columns = [list(column) for column in zip(*rows)][1:]
        turned = [[name, *column] for name, column in zip(differ, columns)]
        table = text_table(["field", *(run.name for run in runs)], turned, left=len(runs) + 1)
    return "\n" + table


def draw(runs: Sequence[Run], path: str | Path) -> None:
    """Draws the errors and the losses of runs against epochs; dashed lines are training.

    Args:
      runs: to be compared.
      path: of the figure, .png, .svg or .pdf.
    """
    figure = make_figure(12, 4.8)
    errors, losses = figure.subplots(1, 2)
    for i, run in enumerate(runs):
        evaluations = run.evaluations()
        epochs = [row["epoch"] for row in evaluations]
        style = {"color": f"C{i % 10}"}
        for axes, name, scale in ((errors, "top1_error", 100), (losses, "loss", 1)):
            axes.plot(
                epochs,
                [scale * row[name] for row in evaluations],
                label=plain_text(run.name),
                **style,
            )
            train = [scale * row.get(f"train_{name}", np.nan) for row in evaluations]
            axes.plot(epochs, train, "--", alpha=0.6, **style)
    errors.set(xlabel="epoch", ylabel="error (%)", title="error: test (solid), training (dashed)")
    losses.set(xlabel="epoch", ylabel="loss", title="loss", yscale="log")
    for axes in (errors, losses):
        axes.grid(alpha=0.3, which="both")
    errors.legend(fontsize=8)
    save(figure, path)
