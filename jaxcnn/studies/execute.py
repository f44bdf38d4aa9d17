"""Carries out the runs of a study: one after another, in several processes, or on a Ray cluster.

A run is a directory. One that is finished is not run again, one that was cut off goes on from its
checkpoint: whoever carries it out, and however often, the study comes out the same.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxcnn.reporting.report import Report
from jaxcnn.studies.plan import Job
from jaxcnn.training import train
from jaxcnn.training.output.metrics_files import read_rows
from jaxcnn.training.output.records import MANIFEST, read_manifest

EXECUTORS = ("local", "ray")
Outcome = tuple[Job, str]  # what went wrong, "" for nothing


def is_finished(job: Job, folder: Path) -> bool:
    """Whether the directories of all its runs hold their last evaluations."""

    def finished(workdir: Path) -> bool:
        if not (workdir / MANIFEST).exists():
            return False
        rows = [row for row in read_rows(workdir) if row["kind"] == "eval"]
        return bool(rows) and rows[-1]["step"] == read_manifest(workdir).get("total_steps")

    return all(finished(workdir) for workdir in job.directories(folder))


def carry_out(job: Job, folder: Path, show: Callable[[Report], None] | None = None) -> str:
    """Trains a job to its end, from where it stands; returns what went wrong, "" for nothing."""
    with train(job.config, folder / job.name, resume=True) as reports:
        while True:
            try:
                report = next(reports, None)
            except Exception as error:  # the other runs of the study are carried out all the same
                return describe(error)
            if report is None:
                return ""
            if show is not None:
                show(report)
            if report.kind == "stopped":
                raise KeyboardInterrupt


def describe(error: Exception) -> str:
    """An error in one line, with its type where the text alone does not tell."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, (FloatingPointError, ValueError)) and lines[0]:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def in_turn(
    jobs: Sequence[Job], folder: Path, show: Callable[[Report], None] | None = None
) -> Iterator[Outcome]:
    """One after another, in this process."""
    for job in jobs:
        yield job, carry_out(job, folder, show)


def in_processes(jobs: Sequence[Job], folder: Path, count: int) -> Iterator[Outcome]:
    """So many at a time, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        count, mp_context=context, max_tasks_per_child=1
    ) as pool:
        waiting = {pool.submit(carry_out, job, folder): job for job in jobs}
        for future in concurrent.futures.as_completed(waiting):
            try:
                failure = future.result()
            except concurrent.futures.process.BrokenProcessPool:
                failure = "a process was killed; the same command goes on"
            except Exception as error:
                failure = describe(error)
            yield waiting[future], failure


def check_ray() -> None:
    """Raises ValueError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed: pip install 'jaxcnn[cluster]'")


def on_ray(jobs: Sequence[Job], folder: Path, *, cpus: float, gpus: float) -> Iterator[Outcome]:
    """On the Ray cluster of RAY_ADDRESS, or on one that is started here.

    Every machine must see `folder` under its path. A run whose worker dies is taken up again, by
    another one, from its checkpoint.

    Raises:
      ValueError: Ray is not installed.
    """
    check_ray()
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, max_calls=1)(carry_out)
    waiting = {remote.remote(job, folder): job for job in jobs}
    while waiting:
        ready, _ = ray.wait(list(waiting))
        for reference in ready:
            job = waiting.pop(reference)
            try:
                failure = ray.get(reference)
            except Exception as error:
                failure = describe(error)
            yield job, failure
