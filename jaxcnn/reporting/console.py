"""Shows a run in a terminal: the one renderer of its reports, for `train.py` and `jaxcnn train`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcnn.reporting.report import Report

_SPEED, _FIRST = "images_per_second", "first_step_seconds"


def show(reports: Iterable[Report], workdir: str | Path, out: TextIO | None = None) -> int:
    """Renders reports, live in a terminal and as lines elsewhere; returns the exit code.

    Where nothing can be shown any more, as when `head` has seen enough or the disk of a redirected
    output is full, the reports go on being taken, without a display; stderr says so once.
    """
    console = _Console(file=out, highlight=False, soft_wrap=True)
    display, code, visible = _Display(console, workdir), 0, True
    # rich ends a display with an empty line, also one that is not shown
    with contextlib.ExitStack() as opened:
        if console.is_terminal:
            opened.enter_context(display.progress)
        for report in reports:
            if report.kind == "stopped":
                code = 128 + signal.Signals[report.values["signal"]]
            if not visible:
                continue
            try:
                display.show(report)
                console.file.flush()
            except (OSError, UnicodeError) as error:
                visible = False
                _leave_stdout(console.file)
                with contextlib.suppress(OSError, ValueError):
                    print(f"note: the run goes on without a display ({error})", file=sys.stderr)
    return code


class _Console(Console):
    """A console that leaves it to its user what a reader who went away means."""

    def on_broken_pipe(self) -> None:
        raise  # rich would end the process


class _Display:
    """Shows one report after another."""

    def __init__(self, console: Console, workdir: str | Path):
        self.console, self._workdir = console, workdir
        self.progress = _progress(console)
        self._task = self.progress.add_task(
            "", total=None, epoch="", loss="", speed="", test="", start=False
        )
        self._start: Mapping[str, Any] = {}
        self._rates: Mapping[str, Any] = {}

    def show(self, report: Report) -> None:
        """Prints the report's line, if it has one, and moves the bar."""
        whose = "" if report.member is None else f"member {report.member}: "
        print_line, values, task = self.console.print, report.values, self._task
        if report.kind == "start":
            self._start = values
            print_line(whose + _start_text(values))
            total = values["total_steps"]
            self.progress.update(task, total=total, completed=report.step, visible=True)
        elif report.kind == "notice":
            print_line(f"{whose}note: {values['text']}", markup=False)
        elif report.kind == "compiled":
            if not whose or values["seconds"] > 0.1:  # else a member before did it
                print_line(whose + _compiled_text(values))
            self.progress.start_task(task)
        elif report.kind == "first_step":
            if not report.member:  # the others follow at once, or come much later
                print_line(f"first step done after {values[_FIRST]:.1f} s")
        elif report.kind == "step":
            epoch = f"epoch {report.epoch:.1f}/{self._start['total_epochs']:.4g}"
            loss = f"loss {values['loss']:.4f}"
            self.progress.update(task, completed=report.step, epoch=epoch, loss=loss)
        elif report.kind == "train":
            self._rates = values
            self.progress.update(task, speed=f"{values[_SPEED]:,.0f} images/s")
        elif report.kind == "eval":
            self.progress.update(task, test=f"test error {_percent(values['top1_error'])}")
            if not self.console.is_terminal:
                print_line(whose + _eval_text(report, self._start, self._rates))
        elif report.kind == "stopped":
            print_line(_stopped_text(report, self._workdir), markup=False)
        elif report.kind == "end":
            self.progress.update(task, visible=False)
            print_line(whose + _shares_text(values["time_shares"]))
            where = f"{self._workdir}/member_{report.member}" if whose else self._workdir
            print_line(whose + _end_text(report, self._start, where), markup=False)


def _leave_stdout(file: IO[str]) -> None:
    """What is still in the buffer of an output that takes no more is dropped, now and at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


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


def _stopped_text(report: Report, workdir: str | Path) -> str:
    return (
        f"stopped by {report.values['signal']} at step {report.step}; the checkpoint is written: "
        f"go on with --resume --workdir={workdir}"
    )


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
