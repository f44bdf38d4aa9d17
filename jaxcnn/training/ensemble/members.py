"""Runs that are trained as one: the members of an ensemble, or a choice of learning rates.

`train.members` says how they differ: "7" is seven runs of the seeds train.seed, train.seed + 1 and
so on; "FIELD=a,b,c" is a run for each value of train.seed, train.init_seed, train.dropout_seed or
schedule.learning_rate. Each has a directory of its own, `WORKDIR/member_0` and so on, which is that
of a run trained alone: it can be resumed, evaluated and exported by itself.

`train.members_by` says how they are trained:

  turn: one after another, through one compiled step; the default on a CPU, where a convolution
    whose kernels differ within the batch is slow. A member equals the run alone bit for bit, and
    for different learning rates too as far as the compiler rounds a rate that it is given like one
    that it knows.
  vmap: all members of a device make a step in one program; the default elsewhere. Members are
    spread over the devices, each on one of them. Sums within a step are then added up in another
    order: a member equals the run alone on one device to the rounding of float32, which training
    enlarges step by step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxcnn._checks import near
from jaxcnn.reporting.report import Report
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.config import validate
from jaxcnn.training.config.files import override
from jaxcnn.training.ensemble import lockstep
from jaxcnn.training.ensemble import shared as members_shared
from jaxcnn.training.loop import train_one
from jaxcnn.training.output.records import MANIFEST, member_directory
from jaxcnn.training.output.workdir import claim, write_manifest

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
            one.train.members = one.train.members_by = None
        validate(one)
        if any(one == other for other in made):
            raise ValueError(f"config.train.members is {text!r}; it has {value.strip()} twice")
        made.append(one)
    return made


def train_members(
    config: Any, workdir: str | Path, *, resume: bool = False, overwrite: bool = False
) -> Iterator[Report]:
    """`jaxcnn.training.train` of all members; a report's `member` says whose it is.

    With `resume`, finished members stay as they are, and more members than before may be asked for.
    A member whose loss is not finite ends, the others go on.

    Raises:
      ValueError: as `train`.
      FloatingPointError: when all others have ended, if the loss of a member was not finite.
    """
    configs = member_configs(config)
    by = config.train.members_by or usual_way()
    shared = members_shared.share(configs, alone=by == "vmap")
    directory = claim_all(workdir, config, resume=resume, overwrite=overwrite)
    write_manifest(directory, config, {"members": len(configs), "members_by": by})
    failed: dict[int, FloatingPointError] = {}
    directories = [member_directory(directory, i) for i in range(len(configs))]
    with StopSignals() as stop:
        yield from train_group(configs, directories, shared, by, stop, failed, resume=resume)
    raise_failed(failed)


def usual_way() -> str:
    """How members are trained unless it is said: see above."""
    return "turn" if jax.default_backend() == "cpu" else "vmap"


def claim_all(
    workdir: str | Path, config: Any, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """`workdir.claim` of the directory of all; with `overwrite` its members' runs are deleted."""
    directory = claim(workdir, config, resume=resume, overwrite=overwrite)
    if overwrite:
        for old in directory.glob("member_*"):
            if (old / MANIFEST).is_file():
                claim(old, config, overwrite=True)
    return directory


def train_group(
    configs: Sequence[Any],
    directories: Sequence[Path],
    shared: members_shared.Shared,
    by: str,
    stop: StopSignals,
    failed: dict[int, FloatingPointError],
    *,
    resume: bool = False,
) -> Iterator[Report]:
    """Trains runs that share their parts; a report's `member` counts them, as do keys of `failed`.

    Whose loss is not finite is put into `failed`.
    """
    runs = [
        train_one(one, directory, resume=resume, parts=parts)
        for one, directory, parts in zip(
            configs, directories, members_shared.make_parts(shared, by, stop)
        )
    ]
    try:
        if by == "turn":
            yield from lockstep.in_turn(runs, stop, failed)
        else:
            yield from lockstep.together(runs, shared, failed)
    finally:
        for run in runs:
            run.close()


def raise_failed(failed: Mapping[int, FloatingPointError]) -> None:
    """Raises FloatingPointError that names the members, if any."""
    if failed:
        raise FloatingPointError("; ".join(f"member {i}: {error}" for i, error in failed.items()))
