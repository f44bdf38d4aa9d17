"""Runs a study in a terminal, with a progress bar, a table and a figure."""

from __future__ import annotations

import dataclasses
import json
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jaxcnn._checks import one_of
from jaxcnn._files import read_json, write_text
from jaxcnn.reporting.report import Report
from jaxcnn.runtime import exit_codes
from jaxcnn.studies import execute, plan, results
from jaxcnn.studies.files import FIGURE, PLAN, RESULTS, TABLE
from jaxcnn.studies.plan import Job
from jaxcnn.studies.study import Overrides, Study


def run(
    study: Study,
    workdir: Path,
    *,
    full: bool = False,
    minutes: float = 10,
    seeds: int | None = None,
    overrides: Overrides = types.MappingProxyType({}),
    jobs_at_once: int = 1,
    executor: str = "local",
    gpus: float = 0,
) -> int:
    """Trains the unfinished runs of a study and writes its table and figure.

    Args:
      study: to be run.
      workdir: directory of the study.
      full: train the full version instead of the small one.
      minutes: time budget of the small version.
      seeds: number of seeds; None for the study's own.
      overrides: fields of the configuration to override in all runs.
      jobs_at_once: number of processes to train in.
      executor: "local" or "ray".
      gpus: GPUs per run on a Ray cluster.

    Returns:
      The exit code: 0 on success, 3 if a run failed (the others are done), 130 if stopped.

    Raises:
      ValueError: a setting is invalid, or workdir contains another study; no run was started.
      KeyboardInterrupt: a run was stopped by a signal.
    """
    one_of("executor", executor, execute.EXECUTORS)
    plan.check_overrides(overrides, full=full)
    logging.set_verbosity(logging.FATAL)  # of Orbax
    console = Console(highlight=False, soft_wrap=True)
    console.print(study.title)
    if executor == "ray":
        execute.check_ray()
    together = gpus > 0 or jax.default_backend() != "cpu"
    jobs, scaled = _plan_runs(study, workdir, full, minutes, seeds, overrides, together, console)
    waiting = [job for job in jobs if not execute.is_finished(job, workdir)]
    done = len(jobs) - len(waiting)
    console.print(f"{len(jobs)} runs" + (f", {done} of them already finished" if done else ""))
    failures: dict[str, str] = {}
    with _Display(console, len(jobs), done) as display:
        if executor == "ray":
            outcomes = execute.on_ray(waiting, workdir, cpus=1, gpus=gpus)
        elif jobs_at_once > 1:
            outcomes = execute.in_processes(waiting, workdir, jobs_at_once)
        else:
            outcomes = execute.in_turn(waiting, workdir, display.follow)
        for job, failure in outcomes:
            display.finish(job, failure)
            if failure:
                failures[job.name] = failure
    _write(study, jobs, workdir, scaled, failures, console)
    return exit_codes.FAILED if failures else exit_codes.DONE


def _write(
    study: Study,
    jobs: Sequence[Job],
    workdir: Path,
    scaled: Sequence[str],
    failures: Mapping[str, str],
    console: Console,
) -> None:
    """Writes table, rows and figure; the table and the rows name the failed runs."""
    curves = results.read_curves(study, jobs, workdir)
    rows = results.table(curves)
    text = results.text_table(rows)
    text += "".join(f"\n{name} failed: {failure}" for name, failure in failures.items())
    write_text(workdir / TABLE, f"{study.title}\n\n{text}\n")
    results.write_json(study, rows, scaled, workdir / RESULTS, failures)
    written = [TABLE, RESULTS]
    if curves:
        results.draw(study, curves, workdir / FIGURE, note="; ".join(scaled))
        written.append(FIGURE)
    console.print(f"\n{text}\n", markup=False)
    if study.source:
        console.print(study.source, markup=False)
    console.print(f"wrote {', '.join(written)} to {workdir}", markup=False)


def _plan_runs(
    study: Study,
    workdir: Path,
    full: bool,
    minutes: float,
    seeds: int | None,
    overrides: Overrides,
    together: bool,
    console: Console,
) -> tuple[list[Job], list[str]]:
    """Plans the runs, or reads the plan of an earlier call with the same arguments."""
    request = {
        "title": study.title,
        **{"full": full, "minutes": minutes, "seeds": seeds, "overrides": dict(overrides)},
    }
    path = workdir / PLAN
    scale = plan.Scale(seeds=seeds)
    if path.exists():
        saved = read_json(path)
        try:
            before, together = saved["wishes"], bool(saved["together"])
            scale = plan.read_scale(saved, seeds)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not the plan of a study; delete it") from error
        if before != json.loads(json.dumps(request)):
            raise ValueError(
                f"{workdir} contains a study with other settings; choose another workdir"
            )
        most = scale.most_rank
        labels = {run.label for run in study.runs if most is None or run.rank <= most}
        if not isinstance(scale.steps, (int, type(None))) and labels - set(scale.steps):
            raise ValueError(f"{workdir} contains a study with other runs; choose another workdir")
    elif taken := [name for name in (TABLE, RESULTS, FIGURE) if (workdir / name).exists()]:
        raise ValueError(
            f"{workdir} has a {taken[0]} that is not of a study of jaxcnn; choose another workdir"
        )
    elif not full:
        console.print("measuring the speed of this machine ...")
        began = time.perf_counter()
        costs = plan.measure(study, overrides=overrides)
        spent = time.perf_counter() - began
        scale = plan.fit(study, minutes, costs, seeds, overrides, spent=spent)
    jobs = plan.make_jobs(
        study,
        full=full,
        seeds=scale.seeds,
        overrides=overrides,
        most_rank=scale.most_rank,
        together=together,
        steps=scale.steps,
        examples=scale.examples,
    )
    for text in scale.said:
        console.print(f"scaled: {text}", markup=False)
    if scale.warning:
        console.print(f"note: {scale.warning}", markup=False)
    plan.check(jobs, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    content = {"wishes": request, "scale": dataclasses.asdict(scale), "together": together}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return jobs, list(scale.said)


class _Display:
    """A progress bar over the runs with the current step and error; lines without a terminal."""

    def __init__(self, console: Console, total: int, done: int):
        self._console = console
        columns = (TextColumn("runs"), BarColumn(bar_width=24), MofNCompleteColumn())
        self._progress = Progress(
            *(*columns, TimeElapsedColumn(), TextColumn("{task.fields[now]}")),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, completed=done, now="")
        self._error = ""
        self._total_steps = 0
        self._model = ""

    def follow(self, report: Report) -> None:
        """Displays a report of the current run."""
        if report.kind == "start":
            self._total_steps, self._error = report.values["total_steps"], ""
            self._model = report.values["model"]
        elif report.kind == "eval":
            self._error = f", test error {100 * report.values['top1_error']:.1f} %"
        now = f"{self._model} step {report.step}/{self._total_steps}{self._error}"
        self._progress.update(self._task, now=now)

    def finish(self, job: Job, failure: str) -> None:
        """Displays the end of a run; `failure` is an error message or empty."""
        self._progress.update(self._task, advance=1)
        text = f"failed: {failure}" if failure else f"done{self._error}"
        self._error = ""
        self._console.print(f"{job.name}: {text}", markup=False)

    def __enter__(self) -> _Display:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()
