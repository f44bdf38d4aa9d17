"""Trains several runs together: the members of an ensemble, or a sweep of learning rates.

`train.members` defines how they differ: "7" trains seven runs with the seeds train.seed,
train.seed + 1 and so on; "FIELD=a,b,c" trains a run for each value of train.seed, train.init_seed,
train.dropout_seed or schedule.learning_rate. Each member has a directory, `WORKDIR/member_0` and so
on, like that of a run trained alone: it can be resumed, evaluated and exported separately.

`train.ensemble_mode` selects how to train them:

  sequential: one after another, with one compiled step. It is the default on a CPU, where
    convolutions with different kernels in a batch are slow. A member is bit-identical to the run
    trained alone. With different learning rates this holds if the compiler rounds a rate that is an
    argument like one that is a constant.
  vmap: all members on a device compute a step together, under `vmap`. It is the default on
    accelerators. Members are distributed over the devices, each on a single device. Reductions
    within a step are evaluated in a different order: a member equals the run trained alone on one
    device up to float32 rounding, which training amplifies.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn._checks import near
from jaxcnn.reporting.report import Report
from jaxcnn.runtime import distributed
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import override
from jaxcnn.training.ensemble import lockstep
from jaxcnn.training.ensemble import shared as shared_build
from jaxcnn.training.loop import Run, train_one
from jaxcnn.training.output import written
from jaxcnn.training.output.records import MANIFEST, member_directory
from jaxcnn.training.output.workdir import (
    check_deletable,
    check_workdir,
    delete_run,
    lock,
    open_workdir,
)

RATE = "schedule.learning_rate"
FIELDS = ("train.seed", "train.init_seed", "train.dropout_seed", RATE)


def member_configs(config: Any) -> list[Any]:
    """Makes the configuration of every member of `train.members`.

    Args:
      config: a configuration with `train.members`.

    Returns:
      The configurations of single runs.

    Raises:
      ValueError: `train.members` cannot be parsed, names a field in which members may not differ,
        or repeats a value.
    """
    text = str(config.train.members).strip()
    field, equals, values = text.partition("=")
    if not equals:
        if not text.isdigit() or int(text) < 1:
            raise ValueError(
                f"config.train.members is {text!r}; it must be a number, 1 or more, or "
                "FIELD=VALUE,VALUE,..."
            )
        first = config.train.seed
        field, values = "train.seed", ",".join(str(first + i) for i in range(int(text)))
    if field not in FIELDS:
        raise ValueError(
            f"config.train.members is {text!r}; members may differ in {', '.join(FIELDS)}"
            f"{near(field, FIELDS)}"
        )
    configs: list[Any] = []
    for value in values.split(","):
        member = copy.deepcopy(config)
        with member.unlocked():
            override(member, field, value.strip())
            member.train.members = member.train.ensemble_mode = None
        validate(member)
        if any(member == other for other in configs):
            raise ValueError(f"config.train.members is {text!r}; it has {value.strip()} twice")
        configs.append(member)
    return configs


def train_members(
    config: Any,
    workdir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
    stop: StopSignals | None = None,
) -> Iterator[Report]:
    """Trains all members, as `jaxcnn.training.train`; a report's `member` is the member's index.

    With `resume`, finished members are not trained further, and members may be added. If the loss
    of a member is not finite, that member stops and the others continue.

    Args:
      config: a configuration with `train.members`.
      workdir: parent of the members' directories.
      resume: as in `train`.
      overwrite: as in `train`.
      extend: as in `train`.
      stop: records signals to stop.

    Returns:
      An iterator over the reports of all members.

    Raises:
      ValueError: as `train`.
      FloatingPointError: the loss of a member was not finite; raised after the others have ended.
    """
    configs = member_configs(config)
    mode = config.train.ensemble_mode or default_mode()
    shared = shared_build.build_shared(configs, one_device=mode == "vmap")
    facts = {"members": len(configs), "ensemble_mode": mode}
    use = {"resume": resume, "overwrite": overwrite, "extend": extend}
    directory = check_workdir(workdir, config, **use)
    directories = [member_directory(directory, i) for i in range(len(configs))]
    failed: lockstep.Failures = {}
    stop = stop or StopSignals()
    reports = train_group(configs, directories, shared, mode, stop, failed, **use)
    stopped = False
    with open_all(directory, config, facts, **use), contextlib.closing(reports):
        for report in reports:
            yield report
            stopped |= report.kind == "stopped"
    if not stopped:  # resuming reports the failures
        raise_failed(failed)


def default_mode(platform: str | None = None) -> str:
    """Returns the default `train.ensemble_mode` of a platform; see the module docstring.

    Args:
      platform: by default that of the default device.
    """
    return "sequential" if (platform or jax.default_backend()) == "cpu" else "vmap"


@contextlib.contextmanager
def open_all(
    workdir: Path,
    config: Any,
    facts: Mapping[str, Any],
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Iterator[None]:
    """Locks and opens the parent directory; with `overwrite` the members' runs are deleted."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock(workdir))
        if overwrite:
            distributed.on_first_process(lambda: _delete_members(workdir))
        open_workdir(workdir, config, facts, resume=resume, overwrite=overwrite, extend=extend)
        count = facts["members"]
        distributed.on_first_process(
            lambda: written.note(workdir, *(f"member_{i}" for i in range(count)))
        )
        yield


def _delete_members(workdir: Path) -> None:
    """Deletes the members' runs, or none of them if one cannot be deleted."""
    if not (workdir / MANIFEST).is_file():
        return  # a new directory; `open_workdir` rejects one with other content
    check_deletable(workdir)
    manifests, _ = written.sort(workdir, workdir.glob(f"member_*/{MANIFEST}"))
    with contextlib.ExitStack() as stack:
        for manifest in manifests:
            stack.enter_context(lock(manifest.parent))
            check_deletable(manifest.parent)
        for manifest in manifests:
            delete_run(manifest.parent)


def train_group(
    configs: Sequence[Any],
    directories: Sequence[Path],
    shared: shared_build.Shared,
    mode: str,
    stop: StopSignals,
    failed: lockstep.Failures,
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Generator[Report, None, None]:
    """Checks runs that share their compiled functions, and returns an iterator that trains them.

    Nothing is written before the first report is requested.

    Args:
      configs: the configuration of each run.
      directories: the directory of each run.
      shared: of `build_shared`.
      mode: "sequential" or "vmap".
      stop: records signals to stop.
      failed: {index of a run: error}, changed in place. If the loss of a run is not finite, the run
        is added, and the others continue.
      resume: as in `train`.
      overwrite: as in `train`.
      extend: as in `train`.

    Returns:
      An iterator over the reports; `member` is the index of the run.
    """
    engines = shared_build.make_engines(shared, lockstep=mode == "vmap")
    use = {"resume": resume, "overwrite": overwrite, "extend": extend}
    options: list[dict[str, Any]] = [
        {**use, "stop": stop, "experiment": experiment, "engine": engine}
        for experiment, engine in zip(shared.experiments, engines)
    ]
    for config, directory in zip(configs, directories):
        check_workdir(directory, config, **use)
    Run(configs[0], directories[0], **options[0]).check_weights()
    return _train(list(zip(configs, directories, options)), shared, mode, stop, failed)


def _train(
    members: Sequence[tuple[Any, Path, dict[str, Any]]],
    shared: shared_build.Shared,
    mode: str,
    stop: StopSignals,
    failed: lockstep.Failures,
) -> Generator[Report, None, None]:
    if stop.received:  # while an earlier group of members was finishing
        yield _stopped(stop, 0)
        return
    if mode == "vmap":
        runs = [
            Run(config, directory, traced=i == 0, **options)
            for i, (config, directory, options) in enumerate(members)
        ]
        keys = [shared.key(i, run.key) for i, run in enumerate(runs)]
        yield from lockstep.train_in_lockstep(runs, shared.step, keys, failed)
        return
    for i, (config, directory, options) in enumerate(members):
        if stop.received:  # while the previous member was finishing
            yield _stopped(stop, i)
            return
        try:
            for report in train_one(config, directory, **options):
                yield dataclasses.replace(report, member=i)
                if report.kind == "stopped":
                    return
        except FloatingPointError as error:
            failed[i] = error


def _stopped(stop: StopSignals, member: int) -> Report:
    """The report of a member that a signal stopped before it began."""
    return Report("stopped", 0, 0.0, {"signal": stop.received}, member=member)


def raise_failed(failed: Mapping[int, FloatingPointError]) -> None:
    """Raises FloatingPointError that names the failed members, if there are any."""
    if failed:
        raise FloatingPointError("; ".join(f"member {i}: {error}" for i, error in failed.items()))
