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

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

from jaxcnn.models.registry import near
from jaxcnn.training import compiling, optimizers, parallel, programs
from jaxcnn.training.config import Recorded, override, validate
from jaxcnn.training.loop import train_one
from jaxcnn.training.parts import Ask, Parts
from jaxcnn.training.reports import Report
from jaxcnn.training.schedules import Schedule
from jaxcnn.training.setup import Setup, make_setup
from jaxcnn.training.signals import StopSignals
from jaxcnn.training.state import initialiser
from jaxcnn.training.step import RESIDENT, multi_step
from jaxcnn.training.workdir import MANIFEST, claim, write_manifest

RATE = "schedule.learning_rate"
FIELDS = ("train.seed", "train.init_seed", "train.dropout_seed", RATE)


def member_directory(workdir: str | Path, member: int) -> Path:
    """Where a member's run lies."""
    return Path(workdir) / f"member_{member}"


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
    by = config.train.members_by or ("turn" if jax.default_backend() == "cpu" else "vmap")
    shared = _share(configs, alone=by == "vmap")
    directory = claim(workdir, config, resume=resume, overwrite=overwrite)
    if overwrite:
        for old in directory.glob("member_*"):
            if (old / MANIFEST).is_file():
                claim(old, config, overwrite=True)
    write_manifest(directory, config, {"members": len(configs), "members_by": by})
    failed: dict[int, FloatingPointError] = {}
    with StopSignals() as stop:
        runs = [
            train_one(one, member_directory(directory, i), resume=resume, parts=parts)
            for i, (one, parts) in enumerate(zip(configs, _parts(shared, by, stop)))
        ]
        try:
            if by == "turn":
                yield from _in_turn(runs, stop, failed)
            else:
                yield from _together(runs, shared, failed)
        finally:
            for run in runs:
                run.close()
    if failed:
        raise FloatingPointError("; ".join(f"member {i}: {error}" for i, error in failed.items()))


# --- what members share --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Shared:
    """`setups`, one a member, differ in the learning rate and the device only.

    `step` is the pure step; its key is that of the run, with `rates` (key, number of the member).
    `fields` knows what has been read of the configuration.
    """

    fields: Recorded
    setups: Sequence[Setup]
    step: Callable
    rates: bool


def _share(configs: Sequence[Any], *, alone: bool) -> _Shared:
    """Makes what the members share; with `alone` each is on one device."""
    fields = Recorded(configs[0])
    devices = list(parallel.make_mesh(fields.train.devices or None).devices.flat)
    if alone:
        single = copy.deepcopy(configs[0])
        with single.unlocked():
            single.train.update({"devices": 1, "parallel": "jit"})
        one = Recorded(single)
        setup = make_setup(one)
        fields.share(one)
    else:
        setup = make_setup(fields)
    rates = len({config.schedule.learning_rate for config in configs}) > 1

    def optimizer(config: Any, rate: Schedule | None = None):
        return optimizers.make_optimizer(
            config.optimizer,
            config.schedule,
            setup.total_steps,
            len(setup.train_set) / setup.batch_size,
            setup.shapes.params,
            batch_size=setup.batch_size,
            rate=rate,
        )

    setups = []
    for i, config in enumerate(configs):
        changed: dict[str, Any] = {}
        if rates:
            changed["optimizer"], changed["rate"] = optimizer(config)
        if alone:
            changed["mesh"] = _mesh_of(devices[i * len(devices) // len(configs)])
        setups.append(dataclasses.replace(setup, **changed))

    def step(state, batch, key_and_member):
        """Every member's rate is there as the run alone has it; the member chooses."""
        key, member = key_and_member
        transform, _ = optimizer(
            configs[0], lambda now: jnp.stack([one.rate(now) for one in setups])[member]
        )
        return programs.pure_step(setup, optimizer=transform)(state, batch, key)

    return _Shared(fields, setups, step if rates else programs.pure_step(setup), rates)


def _mesh_of(device: jax.Device) -> Mesh:
    return jax.make_mesh((1,), (parallel.AXIS,), axis_types=(AxisType.Auto,), devices=[device])


def _parts(shared: _Shared, by: str, stop: StopSignals) -> list[Parts]:
    """The parts of each member's run."""
    first = shared.setups[0]
    ema = bool(first.ema_decay)
    begin = initialiser(first.model, first.optimizer, first.image_shape, ema=ema)
    compiled: dict[int, Callable] = {}
    evaluations: dict[Mesh, Callable] = {}

    def evaluate(setup: Setup) -> Callable:
        if setup.mesh not in evaluations:
            evaluations[setup.mesh] = programs.make_evaluate(setup)
        return evaluations[setup.mesh]

    def part(member: int) -> Parts:
        def setup(fields: Recorded) -> Setup:
            fields.share(shared.fields)
            return shared.setups[member]

        def compile_train(setup, state, step, key, feed):
            key = (key, jnp.int32(member)) if shared.rates else key
            if by == "turn":
                return programs.compile_train(
                    setup, state, step, key, feed, pure=shared.step, programs=compiled
                )
            key = parallel.place_state(key, setup.mesh)

            def ask(state, step, count):
                return Ask(state, feed.batch(step, count), key, step, count)

            return ask, {"seconds": 0.0}

        return Parts(
            make_setup=setup,
            begin=lambda setup, key: begin(key),
            compile_train=compile_train,
            make_evaluate=evaluate,
            stop=lambda: contextlib.nullcontext(stop),
        )

    return [part(i) for i in range(len(shared.setups))]


# --- in turn, and together ------------------------------------------------------------------------


def _in_turn(
    runs: Sequence[Generator], stop: StopSignals, failed: dict[int, FloatingPointError]
) -> Iterator[Report]:
    for i, run in enumerate(runs):
        if stop.received:
            return
        try:
            for report in run:
                yield dataclasses.replace(report, member=i)
        except FloatingPointError as error:
            failed[i] = error


def _together(
    runs: Sequence[Generator], shared: _Shared, failed: dict[int, FloatingPointError]
) -> Iterator[Report]:
    """Lets every run go on to its next steps, makes those of all runs, and so on to the end.

    A run that is behind, as after a kill between two checkpoints, first catches up.
    """
    waiting: dict[int, Ask] = {}
    programs_of: dict[tuple[int, int], Callable] = {}

    def advance(i: int, answer: Any) -> Iterator[Report]:
        try:
            report = runs[i].send(answer)
            while not isinstance(report, Ask):
                yield dataclasses.replace(report, member=i)
                report = next(runs[i])
        except StopIteration:
            return
        except FloatingPointError as error:
            failed[i] = error
        else:
            waiting[i] = report

    def program(members: int, count: int) -> Callable:
        if (members, count) not in programs_of:
            programs_of[members, count] = _joint(shared.step, members, count)
        return programs_of[members, count]

    for i in range(len(runs)):
        yield from advance(i, None)
    while waiting:
        behind = min(ask.step for ask in waiting.values())
        groups: dict[Mesh, list[int]] = {}
        for i, ask in waiting.items():
            if ask.step == behind:
                groups.setdefault(shared.setups[i].mesh, []).append(i)
        answers: list[tuple[int, Any]] = []  # of all devices, none of which is waited for
        for group in groups.values():
            asks = [waiting.pop(i) for i in group]
            resident = {k: v for k, v in asks[0].batch.items() if k in RESIDENT}
            own = [{k: v for k, v in a.batch.items() if k not in RESIDENT} for a in asks]
            run = program(len(group), asks[0].count)
            made = run([a.state for a in asks], resident, own, [a.key for a in asks])
            answers += zip(group, made)
        for i, answer in answers:
            yield from advance(i, answer)


def _joint(step: Callable, members: int, count: int) -> Callable:
    """Compiles the step, or `count` steps, of so many members: lists in, a list of results out."""
    one = multi_step(step, count) if count > 1 else step

    def joint(states, resident, batches, keys):
        stacked = [
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
            for each in (states, batches, keys)
        ]
        made = jax.vmap(lambda state, batch, key: one(state, resident | batch, key))(*stacked)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], made) for i in range(members)]

    return compiling.jit(joint, donate_argnums=(0,))
