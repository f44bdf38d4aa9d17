"""Runs that are trained as one: the members of an ensemble, or a choice of learning rates.

`train.members` says how they differ: "7" is seven runs of the seeds train.seed, train.seed + 1 and
so on; "FIELD=a,b,c" is a run for each value of train.seed, train.init_seed, train.dropout_seed or
schedule.learning_rate. Each has a directory of its own, `WORKDIR/member_0` and so on, which is that
of a run trained alone: it can be resumed, evaluated and exported by itself.

`train.ensemble_mode` says how they are trained:

  sequential: one after another, through one compiled step; the default on a CPU, where a
    convolution whose kernels differ within the batch is slow. A member equals the run alone bit for
    bit, and for different learning rates too as far as the compiler rounds a rate that it is given
    like one that it knows.
  vmap: all members of a device make a step in one program; the default elsewhere. Members are
    spread over the devices, each on one of them. Sums within a step are then added up in another
    order: a member equals the run alone on one device to the rounding of float32, which training
    enlarges step by step.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
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
from jaxcnn.training.ensemble import shared as members_shared
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
    """The configurations of the single runs that `train.members` asks for.

    Raises:
      ValueError: `train.members` cannot be read, names a field in which members cannot differ, or
        gives a value twice.
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
    made: list[Any] = []
    for value in values.split(","):
        one = copy.deepcopy(config)
        with one.unlocked():
            override(one, field, value.strip())
            one.train.members = one.train.ensemble_mode = None
        validate(one)
        if any(one == other for other in made):
            raise ValueError(f"config.train.members is {text!r}; it has {value.strip()} twice")
        made.append(one)
    return made


def train_members(
    config: Any,
    workdir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
    stop: StopSignals | None = None,
) -> Iterator[Report]:
    """`jaxcnn.training.train` of all members; a report's `member` says whose it is.

    With `resume`, finished members stay as they are, and more members than before may be asked for.
    A member whose loss is not finite ends, the others go on.

    Raises:
      ValueError: as `train`.
      FloatingPointError: when all others have ended, if the loss of a member was not finite.
    """
    configs = member_configs(config)
    mode = config.train.ensemble_mode or default_mode()
    shared = members_shared.share(configs, one_device=mode == "vmap")
    facts = {"members": len(configs), "ensemble_mode": mode}
    use = {"resume": resume, "overwrite": overwrite, "extend": extend}
    directory = check_workdir(workdir, config, **use)
    directories = [member_directory(directory, i) for i in range(len(configs))]
    failed: lockstep.Failures = {}
    stop = stop or StopSignals()
    reports = train_group(configs, directories, shared, mode, stop, failed, **use)
    with open_all(directory, config, facts, **use):
        yield from reports
    raise_failed(failed)


def default_mode() -> str:
    """How members are trained unless the configuration says: see above."""
    return "sequential" if jax.default_backend() == "cpu" else "vmap"


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
    """Locks and opens the directory of all; with `overwrite` its members' runs are deleted."""
    with contextlib.ExitStack() as held:
        held.enter_context(lock(workdir))
        if overwrite:
            distributed.on_first_process(lambda: _delete_members(workdir))
        open_workdir(workdir, config, facts, resume=resume, overwrite=overwrite, extend=extend)
        count = facts["members"]
        distributed.on_first_process(
            lambda: written.note(workdir, *(f"member_{i}" for i in range(count)))
        )
        yield


def _delete_members(workdir: Path) -> None:
    """Deletes the members' runs, if all of them may be."""
    check_deletable(workdir)
    own, _ = written.sort(workdir, workdir.glob(f"member_*/{MANIFEST}"))
    with contextlib.ExitStack() as held:
        for manifest in own:
            held.enter_context(lock(manifest.parent))
            check_deletable(manifest.parent)
        for manifest in own:
            delete_run(manifest.parent)


def train_group(
    configs: Sequence[Any],
    directories: Sequence[Path],
    shared: members_shared.Shared,
    mode: str,
    stop: StopSignals,
    failed: lockstep.Failures,
    *,
    resume: bool = False,
    overwrite: bool = False,
    extend: bool = False,
) -> Iterator[Report]:
    """Checks runs that share their programs, and returns an iterator that trains them.

    Nothing is written before the first report is asked for. A report's `member` counts the runs, as
    keys of `failed`. A run whose loss is not finite is put into `failed`, and the others go on.
    """
    programs = members_shared.make_programs(shared, lockstep=mode == "vmap")
    use = {"resume": resume, "overwrite": overwrite, "extend": extend}
    options: list[dict[str, Any]] = [
        {**use, "stop": stop, "experiment": experiment, "programs": own}
        for experiment, own in zip(shared.experiments, programs)
    ]
    for config, directory in zip(configs, directories):
        check_workdir(directory, config, **use)
    Run(configs[0], directories[0], **options[0]).check_weights()
    return _train(list(zip(configs, directories, options)), shared, mode, stop, failed)


def _train(
    members: Sequence[tuple[Any, Path, dict[str, Any]]],
    shared: members_shared.Shared,
    mode: str,
    stop: StopSignals,
    failed: lockstep.Failures,
) -> Iterator[Report]:
    if mode == "vmap":
        runs = [Run(config, directory, **own) for config, directory, own in members]
        keys = [shared.key(i, run.key) for i, run in enumerate(runs)]
        yield from lockstep.train_in_lockstep(runs, shared.step, keys, failed)
        return
    for i, (config, directory, own) in enumerate(members):
        if stop.received:
            return
        try:
            for report in train_one(config, directory, **own):
                yield dataclasses.replace(report, member=i)
        except FloatingPointError as error:
            failed[i] = error


def raise_failed(failed: Mapping[int, FloatingPointError]) -> None:
    """Raises FloatingPointError that names the members, if any."""
    if failed:
        raise FloatingPointError("; ".join(f"member {i}: {error}" for i, error in failed.items()))
