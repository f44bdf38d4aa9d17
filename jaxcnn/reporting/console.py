"""Shows a run in a terminal: the one renderer of its reports, for `train.py` and `jaxcnn train`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcnn.reporting.report import Report

_SPEED, _FIRST = "images_per_second", "first_step_seconds"


def show(reports: Iterable[Report], workdir: str | Path, out: TextIO | None = None) -> int:
    """Renders reports, live in a terminal and as lines elsewhere; returns the exit code."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    progress = _progress(console)
    task = progress.add_task("", total=None, epoch="", loss="", speed="", test="", start=False)
    code = 0
    start: Mapping[str, Any] = {}
    shown: Mapping[str, Any] = {}
    # rich ends a display with an empty line, also one that is not shown
    with progress if console.is_terminal else contextlib.nullcontext():
        for report in reports:
            whose = "" if report.member is None else f"member {report.member}: "
            if report.kind == "start":
                start = report.values
                console.print(whose + _start_text(start))
                progress.update(
                    task, total=start["total_steps"], completed=report.step, visible=True
                )
            elif report.kind == "notice":
                console.print(f"{whose}note: {report.values['text']}", markup=False)
            elif report.kind == "compiled":
                if not whose or report.values["seconds"] > 0.1:  # else a member before did it
                    console.print(whose + _compiled_text(report.values))
                progress.start_task(task)
            elif report.kind == "first_step":
                if not report.member:  # the others follow at once, or come much later
                    console.print(f"first step done after {report.values[_FIRST]:.1f} s")
            elif report.kind == "step":
                epoch = f"epoch {report.epoch:.1f}/{start['total_epochs']:.4g}"
                loss = f"loss {report.values['loss']:.4f}"
                progress.update(task, completed=report.step, epoch=epoch, loss=loss)
            elif report.kind == "train":
                shown = report.values
                progress.update(task, speed=f"{shown[_SPEED]:,.0f} images/s")
            elif report.kind == "eval":
                test = f"test error {_percent(report.values['top1_error'])}"
                progress.update(task, test=test)
                if not console.is_terminal:
                    console.print(whose + _eval_text(report, start, shown))
            elif report.kind == "stopped":
                code = _stopped(console, report, workdir)
            elif report.kind == "end":
                progress.update(task, visible=False)
                console.print(whose + _shares_text(report.values["time_shares"]))
                where = f"{workdir}/member_{report.member}" if whose else workdir
                console.print(whose + _end_text(report, start, where), markup=False)
    return code


def _progress(console: Console) -> Progress:
    fields = ("epoch", "loss", "speed", "test")
    epoch, loss, speed, test = (TextColumn(f"{{task.fields[{name}]}}") for name in fields)
    bar, steps = BarColumn(bar_width=24), MofNCompleteColumn()
    return Progress(
        *(epoch, bar, steps, loss, test, speed, TimeRemainingColumn()),
        console=console,
        disable=not console.is_terminal,
    )


def _start_text(start: Mapping[str, Any]) -> str:
    devices = f"{start['device_count']} {start['platform']} device"
    devices += "s" if start["device_count"] > 1 else ""
    if start["process_count"] > 1:
        devices += f" of {start['process_count']} processes"
    return (
        f"{start['model']} ({start['params']:,} parameters) on {start['source']} "
        f"({start['train_examples']:,} to train on, {start['test_examples']:,} to test on): "
        f"{start['total_steps']:,} steps of {start['batch_size']}, {devices}, {start['parallel']}"
    )


def _compiled_text(values: Mapping[str, Any]) -> str:
    cost = []
    if (memory := values.get("memory_bytes")) is not None:
        cost.append(f"{memory / 2**20:,.1f} MiB")
    roofline = ""
    if "flops" in values:
        cost.append(f"{values['flops'] / 1e9:,.3g} GFLOP per step")
        roofline = f"; matmul roofline {values['roofline_images_per_second']:,.0f} images/s"
    text = f"compiled in {values['seconds']:.1f} s"
    return f"{text} ({', '.join(cost)}{roofline})" if cost else text


def _eval_text(report: Report, start: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    values = report.values
    speed = f", {shown[_SPEED]:,.0f} images/s" if shown else ""
    return (
        f"epoch {report.epoch:6.2f}/{start['total_epochs']:.4g}  "
        f"step {report.step:>{len(str(start['total_steps']))}}/{start['total_steps']}  "
        f"loss {values['train_loss']:.4f}  train error {_percent(values['train_top1_error'])}  "
        f"test error {_percent(values['top1_error'])}{speed}"
    )


def _stopped(console: Console, report: Report, workdir: str | Path) -> int:
    name = report.values["signal"]
    console.print(
        f"stopped by {name} at step {report.step}; the checkpoint is written: go on with "
        f"--resume --workdir={workdir}",
        markup=False,
    )
    return 128 + signal.Signals[name]


def _end_text(report: Report, start: Mapping[str, Any], workdir: str | Path) -> str:
    error, examples = report.values["top1_error"], start["test_examples"]
    return (
        f"done in {report.values['seconds']:.1f} s: test error {_percent(error)} "
        f"({round(error * examples)} of {examples:,} wrong) after {report.epoch:.4g} epochs; "
        f"curves.png, predictions.png and metrics are in {workdir}"
    )


def _shares_text(shares: Mapping[str, float]) -> str:
    rounded = {what: round(100 * share) for what, share in shares.items()}
    return "time: " + ", ".join(f"{share} % {what}" for what, share in rounded.items() if share)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
