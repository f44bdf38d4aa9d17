"""Trains the runs of a study: one after another, in several processes, or on a Ray cluster.

Each run has a directory. Finished runs are skipped, and interrupted runs resume from their
checkpoint, so that the results depend neither on interruptions nor on the executor.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from jaxcnn.reporting.report import Report
from jaxcnn.studies.plan import Job
from jaxcnn.training import train
from jaxcnn.training.output.metrics_files import read_rows
from jaxcnn.training.output.records import MANIFEST, read_manifest

EXECUTORS = ("local", "ray")
Outcome = tuple[Job, str]  # a job and its error message, "" on success
_KILLED = "a process was killed; repeat the command to continue"


def is_finished(job: Job, folder: Path) -> bool:
    """Returns whether all runs of a job are finished.

    Args:
      job: to be checked.
      folder: directory of the study.
    """

    def finished(workdir: Path) -> bool:
        if not (workdir / MANIFEST).exists():
            return False
        rows = [row for row in read_rows(workdir) if row["kind"] == "eval"]
        return bool(rows) and rows[-1]["step"] == read_manifest(workdir).get("total_steps")

    return all(finished(workdir) for workdir in job.directories(folder))


def run_job(job: Job, folder: Path, show: Callable[[Report], None] | None = None) -> str:
    """Trains a job to its end, resuming from its checkpoint if there is one.

    Args:
      job: to be trained.
      folder: directory of the study.
      show: called with each report of the run.

    Returns:
      The error message if training failed, else "".

    Raises:
      KeyboardInterrupt: the run was stopped by a signal.
    """
    with train(job.config, folder / job.name, resume=True) as reports:
        while True:
            try:
                report = next(reports, None)
            except Exception as error:  # continue with the other runs of the study
                return describe(error)
            if report is None:
                return ""
            if show is not None:
                show(report)
            if report.kind == "stopped":
                raise KeyboardInterrupt


def describe(error: Exception) -> str:
    """Formats an exception in one line, with its type where the message needs it."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, (FloatingPointError, ValueError)) and lines[0]:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def in_turn(
    jobs: Sequence[Job], folder: Path, show: Callable[[Report], None] | None = None
) -> Iterator[Outcome]:
    """Trains jobs one after another in this process.

    Args:
      jobs: to be trained.
      folder: directory of the study.
      show: called with each report.

    Yields:
      Each job when it is done, and its error message.
    """
    for job in jobs:
        yield job, run_job(job, folder, show)


def in_processes(jobs: Sequence[Job], folder: Path, count: int) -> Iterator[Outcome]:
    """Trains jobs in several processes.

    Args:
      jobs: to be trained.
      folder: directory of the study.
      count: number of processes.

    Yields:
      Each job when it is done, and its error message.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        count, mp_context=context, max_tasks_per_child=1
    ) as pool:
        queue = list(jobs)
        running: dict[concurrent.futures.Future[str], Job] = {}
        while queue or running:
            # What is submitted runs to its end, even after Ctrl-C: submit nothing ahead.
            while queue and len(running) < count:
                job = queue.pop(0)
                try:
                    running[pool.submit(run_job, job, folder)] = job
                except BrokenProcessPool:
                    yield job, _KILLED
            done, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
            for future in done:
                try:
                    failure = future.result()
                except BrokenProcessPool:
                    failure = _KILLED
                except Exception as error:
                    failure = describe(error)
                yield running.pop(future), failure


def check_ray() -> None:
    """Raises ValueError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed: pip install 'jaxcnn[cluster]'")


def on_ray(jobs: Sequence[Job], folder: Path, *, cpus: float, gpus: float) -> Iterator[Outcome]:
    """Trains jobs on the Ray cluster at RAY_ADDRESS, or on a local one that is started.

    All machines must be able to access `folder` under the same path. A run whose worker dies is
    resumed from its checkpoint by another worker.

    Args:
      jobs: to be trained.
      folder: directory of the study.
      cpus: CPUs per job.
      gpus: GPUs per job.

    Yields:
      Each job when it is done, and its error message.

    Raises:
      ValueError: Ray is not installed.
    """
    check_ray()
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, max_calls=1)(run_job)
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
