"""Displays the reports of a run in a terminal, for `train.py` and `jaxcnn train`."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from jaxcnn.reporting.report import Report

_SPEED, _FIRST = "images_per_second", "first_step_seconds"
_REFRESH_SECONDS = 0.1
_LINE_SECONDS = 60  # without a terminal, a line at least this often
_WIDE = 100  # columns; narrower terminals show neither bar nor speed, only loss, error and time


def show(
    reports: Iterable[Report],
    workdir: str | Path,
    out: TextIO | None = None,
    *,
    resume: str | None = None,
) -> int:
    """Displays reports, live in a terminal and as lines elsewhere.

    If the output fails, for example because a pipe is closed or the disk is full, one line is
    written to stderr and the run continues.

    Args:
      reports: of a run or an ensemble.
      workdir: where its files are.
      out: stream to write to; None for standard output.
      resume: how to continue the run if it is stopped; None for the command that does.

    Returns:
      The exit code: 0, or 128 + the signal's number if the run was stopped by a signal.
    """
    command = f"`jaxcnn train --resume --workdir {shlex.quote(str(workdir))}`"
    with _Display(workdir, out, resume or command) as display:
        for report in reports:
            display.take(report)
    return display.code


class _Console(Console):
    """A console that raises an exception when its pipe is closed."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Display:
    """The display of a run."""

    def __init__(self, workdir: str | Path, out: TextIO | None, resume: str):
        self._workdir, self._resume = workdir, resume
        self._console = _Console(file=out, highlight=False, soft_wrap=True)
        self._progress = _progress(self._console)
        self._task = self._progress.add_task(
            "", total=None, start=False, epoch="", loss="", speed="", test=""
        )
        self._start: Mapping[str, Any] = {}
        self._shown: Mapping[str, Any] = {}
        self._refreshed = self._printed = 0.0
        self._failed = False
        self.code = 0

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._try(self._progress.start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._try(self._progress.stop)

    def take(self, report: Report) -> None:
        """Displays a report, unless the output has failed."""
        if report.kind == "stopped":
            self.code = 128 + signal.Signals[report.values["signal"]]
        self._try(lambda: self._show(report))

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            _mute(self._console.file)
            with contextlib.suppress(Exception):
                text = f"note: the output failed ({error}); the run continues without it"
                print(text, file=sys.stderr, flush=True)

    def _update(self, **fields: Any) -> None:
        self._progress.update(self._task, **fields)
        now = time.monotonic()
        if now - self._refreshed > _REFRESH_SECONDS:  # not in a thread, where errors would be lost
            self._refreshed = now
            self._progress.refresh()

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        self._console.print(text, markup=False)

    def _show(self, report: Report) -> None:
        values, start = report.values, self._start
        whose = "" if report.member is None else f"member {report.member}: "
        if report.kind == "start":
            self._start = values
            self._print(whose + _start_text(report))
            total = values["total_steps"]
            self._update(total=total, completed=report.step, epoch="compiling", visible=True)
        elif report.kind == "notice":
            self._print(f"{whose}note: {values['text']}")
        elif report.kind == "compiled":
            # a finished run compiles nothing, and another member may have compiled it already
            if values["seconds"] > (0.1 if whose else 0.0):
                self._print(whose + _compiled_text(values))
            self._update(epoch="")
            self._progress.start_task(self._task)
        elif report.kind == "first_step":
            if not report.member:  # once for all members
                self._print(f"first step done after {values[_FIRST]:.1f} s")
        elif report.kind == "step":
            epoch = f"epoch {report.epoch:.1f}/{start['total_epochs']:.4g}"
            self._update(completed=report.step, epoch=epoch, loss=f"loss {values['loss']:.4f}")
        elif report.kind == "train":
            self._shown = values
            self._update(speed=f"{values[_SPEED]:,.0f} images/s")
            if not self._console.is_terminal and time.monotonic() - self._printed > _LINE_SECONDS:
                self._print(whose + _train_text(report, start))
        elif report.kind == "eval":
            self._update(test=f"test error {_percent(values['top1_error'])}")
            if not self._console.is_terminal:
                self._print(whose + _eval_text(report, start, self._shown))
        elif report.kind == "stopped":
            self._print(_stopped_text(report, self._resume))
        elif report.kind == "end":
            self._progress.update(self._task, visible=False)
            self._print(whose + _time_text(values["time_shares"]))
            where = f"{self._workdir}/member_{report.member}" if whose else self._workdir
            self._print(whose + _end_text(report, start, where))


def _mute(file: IO[str]) -> None:
    """Discards what is still buffered for a file, which Python would fail to write at exit."""
    with contextlib.suppress(Exception):
        if file is sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _progress(console: Console) -> Progress:
    def text(name: str) -> TextColumn:
        return TextColumn(f"{{task.fields[{name}]}}", table_column=Column(no_wrap=True))

    steps = MofNCompleteColumn()
    columns: tuple[Any, ...] = (text("epoch"), steps, text("loss"), text("test"))
    if console.width >= _WIDE:
        columns = (text("epoch"), BarColumn(bar_width=20), *columns[1:], text("speed"))
    return Progress(
        *(*columns, TimeRemainingColumn()),
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,
    )


def _start_text(report: Report) -> str:
    start = report.values
    devices = f"{start['device_count']} {start['platform']} device"
    devices += "s" if start["device_count"] > 1 else ""
    if start["process_count"] > 1:
        devices += f" of {start['process_count']} processes"
    return (
        f"{start['model']} ({start['params']:,} parameters) on {start['source']} "
        f"({start['train_examples']:,} to train on, {start['test_examples']:,} to test on): "
        f"{start['total_steps']:,} steps of {start['batch_size']}, {devices}, {start['parallel']}"
        f"{_resumed_text(report.step, start['total_steps'])}"
    )


def _resumed_text(step: int, total: int) -> str:
    if step >= total:
        return "; the run is already finished (with --extend, a longer length continues it)"
    return f"; resuming from step {step:,}" if step else ""


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


def _train_text(report: Report, start: Mapping[str, Any]) -> str:
    values = report.values
    return f"{_where(report, start)}  loss {values['loss']:.4f}, {values[_SPEED]:,.0f} images/s"


def _eval_text(report: Report, start: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    values = report.values
    speed = f", {shown[_SPEED]:,.0f} images/s" if shown else ""
    return (
        f"{_where(report, start)}  loss {values['train_loss']:.4f}  "
        f"train error {_percent(values['train_top1_error'])}  "
        f"test error {_percent(values['top1_error'])}{speed}"
    )


def _where(report: Report, start: Mapping[str, Any]) -> str:
    return (
        f"epoch {report.epoch:6.2f}/{start['total_epochs']:.4g}  "
        f"step {report.step:>{len(str(start['total_steps']))}}/{start['total_steps']}"
    )


def _stopped_text(report: Report, resume: str) -> str:
    where = f"at step {report.step}; a checkpoint was saved"
    if report.member is not None and not report.step:
        where = f"before the first step of member {report.member}"
    return f"stopped by {report.values['signal']} {where}: continue with {resume}"


def _end_text(report: Report, start: Mapping[str, Any], workdir: str | Path) -> str:
    error, examples = report.values["top1_error"], start["test_examples"]
    return (
        f"done in {report.values['seconds']:.1f} s: test error {_percent(error)} "
        f"({round(error * examples)} of {examples:,} wrong) after {report.epoch:.4g} epochs; "
        f"curves.png, predictions.png and metrics are in {workdir}"
    )


def _time_text(fractions: Mapping[str, float]) -> str:
    rounded = {what: round(100 * fraction) for what, fraction in fractions.items()}
    return "time: " + ", ".join(f"{n} % {what}" for what, n in rounded.items() if n)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
