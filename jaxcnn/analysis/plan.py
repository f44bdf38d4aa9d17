"""Compiles a run for devices that need not be available: its memory, traffic and maximum speed.

The training and the evaluation step are those of `jaxcnn train`. XLA compiles them for one device
of the slice; see `program_counts` for what is counted, and `chips` for the peak rates. A step takes
at least as long as the slowest of its arithmetic, its memory traffic and its collectives, each at
the peak rate of the chip. This bound ignores the input pipeline, operations that do not reach the
peak rate, and waiting.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._checks import one_line, optional_package
from jaxcnn.analysis import program_counts
from jaxcnn.analysis.chips import LOCAL, Chip, Slice, chip_of, parse_slice
from jaxcnn.analysis.program_counts import Counts
from jaxcnn.models.costs import count_params
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Experiment, build_experiment
from jaxcnn.training.config import TrackedConfig, validate, with_present_names
from jaxcnn.training.ensemble import lockstep, members
from jaxcnn.training.ensemble import shared as shared_build
from jaxcnn.training.guard import preflight
from jaxcnn.training.input import loaders, sets
from jaxcnn.training.step import MICROBATCHES, RESIDENT, STEPS, run_keys

_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MOST_TRIES = 8
# By default, libtpu queries the metadata server of a TPU VM, prints warnings, and refuses a second
# process, since only one may use the chips. Compiling uses none of them.
_LIBTPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


class DoesNotFit(Exception):
    """A step, "training" or "evaluation", needs more memory than the chip has.

    `needed` and `available` are bytes.
    """

    def __init__(self, step: str, needed: float, available: float):
        sizes = f"{needed / 2**30:,.3g} GiB of {available / 2**30:,.4g} GiB"
        super().__init__(f"the {step} step needs {sizes}")
        self.step, self.needed, self.available = step, needed, available


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices to compile for.

    Attributes:
      name: the slice, as JAX calls it, or "local".
      devices: its devices, which need not exist.
      chip: the kind of chip; None if it is not in the table.
    """

    name: str
    devices: Sequence[Any]
    chip: Chip | None

    @property
    def platform(self) -> str:
        """The platform of the devices, such as "tpu"."""
        return self.devices[0].platform

    @property
    def memory_bytes(self) -> float | None:
        """Memory of one device, if it is known."""
        stats = self.devices[0].memory_stats() if self.name == LOCAL else None
        if stats and "bytes_limit" in stats:  # what JAX has reserved of it
            return stats["bytes_limit"]
        return self.chip.memory_bytes / self.chip.devices if self.chip else None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run needs on a slice. All counts are XLA's, for one device.

    Attributes:
      model: id of the network.
      dtype: type of the computation.
      target: the slice, as JAX calls it, or "local".
      chip: the kind of chip, such as "v5e"; None if it is not in the table.
      device_kind: what JAX calls a device.
      devices, processes: number of devices, and of processes that drive them.
      batch_size, eval_batch_size: of all devices.
      mode: how a step uses the devices, see `jaxcnn.training.parallel`.
      bn_sync: what BatchNorm averages over.
      members: number of runs that a device trains together; 1 for a single run.
      runs: number of runs of an ensemble; 1 for a single run. All other fields are of the runs that
        are trained together.
      params: number of parameters.
      total_steps, evaluations: steps and evaluations of the run.
      eval_steps: batches of an evaluation.
      streamed: whether hosts decode the images during training.
      train, evaluate: counts of a training step and of an evaluation step.
      seconds: {"arithmetic", "memory", "collectives"}: the minimum time of each in a training
        step; empty if the chip is not in the table.
      eval_seconds: likewise for an evaluation step.
      memory_limit: memory of a device, in bytes; None if it is not known.
      stand_in: whether the data are not available, so that only their published sizes are used.
    """

    model: str
    dtype: str
    target: str
    chip: str | None
    device_kind: str
    devices: int
    processes: int
    batch_size: int
    eval_batch_size: int
    mode: str
    bn_sync: str
    members: int
    runs: int
    params: int
    total_steps: int
    evaluations: int
    eval_steps: int
    streamed: bool
    train: Counts
    evaluate: Counts
    seconds: Mapping[str, float]
    eval_seconds: Mapping[str, float]
    memory_limit: float | None
    stand_in: bool

    @property
    def step_seconds(self) -> float | None:
        """The minimum time of a training step; None if the chip is not in the table."""
        return max(self.seconds.values(), default=None)

    @property
    def images_per_s(self) -> float | None:
        """The maximum throughput of the slice; None if the chip is not in the table."""
        return self.members * self.batch_size / self.step_seconds if self.step_seconds else None

    @property
    def hours(self) -> float | None:
        """The minimum duration of a run, or of runs together; None without the chip's peaks."""
        if self.step_seconds is None:
            return None
        batches = self.members * self.evaluations * self.eval_steps
        evaluation = batches * max(self.eval_seconds.values())
        return (self.total_steps * self.step_seconds + evaluation) / 3600


def find_target(name: str) -> Target:
    """Finds the devices of a slice.

    Args:
      name: see `chips.parse_slice`; "local" for the devices of this machine.

    Raises:
      ValueError: there is no such slice, or the compiler for TPUs is not installed.
    """
    if name == LOCAL:
        devices = jax.devices()
        return Target(LOCAL, devices, chip_of(devices[0].device_kind))
    wanted: Slice = parse_slice(name)
    optional_package("libtpu", "tpu")
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    options: dict[str, Any] = {"chips_per_host_bounds": wanted.host}
    if wanted.chip.name == "v4":  # the two cores of a chip as one device, as on a TPU VM
        options["chip_config_name"] = "megacore"
    try:
        topology = topologies.get_topology_desc(wanted.name, "tpu", **options)
    except Exception as error:  # of several types, by what is wrong
        raise ValueError(
            f"--on is {name!r}; the TPU compiler does not support {wanted.name}: {one_line(error)}"
        ) from error
    return Target(wanted.name, topology.devices, wanted.chip)


def plan(config: Any, on: str) -> Plan:
    """Compiles the training and the evaluation step of a run for a slice.

    Args:
      config: see `jaxcnn.training.config.default_config`.
      on: see `find_target`.

    Raises:
      ValueError: the configuration or the slice cannot be used, or they do not fit together; also
        if an operation of the network does not lower for the platform.
      DoesNotFit: the chip has too little memory.
    """
    return plan_for(config, find_target(on))


def plan_for(config: Any, target: Target) -> Plan:
    """Like `plan`, for the devices that `find_target` returned."""
    config = with_present_names(config)
    validate(config)
    opened, stand_in = _open(config)
    step = _make_step(config, target, opened)
    train = _per_step(_compile("training", step.lower, target, _trips(step)), step)
    evaluate = _compile("evaluation", lambda: _lower_evaluation(step.experiment), target)
    return _facts(step, target, train, evaluate, stand_in)


def largest_batch(
    config: Any, target: Target, report: Callable[[int, float], object] = lambda size, need: None
) -> tuple[int, int | None]:
    """Finds a batch size that fits into memory, such that a slightly larger one does not.

    The memory of a program is nearly linear in the batch size, so a few trials are enough: at most
    8 programs are compiled, and the result is within a sixteenth of the largest possible one.

    Args:
      config: the configuration; its batch size is where the search starts.
      target: the devices.
      report: called with each batch size and the memory that it needs, in bytes.

    Returns:
      (largest batch size that fits, smallest that was found not to fit or None); the first is 0 if
      none fits.
    """
    devices = config.train.devices or len(target.devices)
    unit = math.lcm(config.train.accumulate, config.train.bn_group or 1) * devices
    if config.train.batch_size % unit:
        unit = config.train.accumulate * devices
    limit = known_memory(target)

    def need(size: int) -> tuple[float, float]:
        try:
            found = _memory_of(config, target, size), limit
        except DoesNotFit as error:
            found = error.needed, error.available
        report(size, found[0])
        return found

    return search(need, unit, max(unit, config.train.batch_size // unit * unit))


def known_memory(target: Target) -> float:
    """Returns the memory of one device; raises ValueError if it is not known."""
    if target.memory_bytes is None:
        kind = target.devices[0].device_kind
        raise ValueError(f"--fit needs the memory size of {kind}, which is not known")
    return target.memory_bytes


def search(
    need: Callable[[int], tuple[float, float]], unit: int, size: int
) -> tuple[int, int | None]:
    """Finds the largest size that fits, trying 8 sizes at most; see `largest_batch`.

    Args:
      need: of a size, (memory that it needs, memory that is available).
      unit: sizes are multiples of it.
      size: the first size to try.
    """
    needs: dict[int, float] = {}
    fits, too_large = 0, None
    for _ in range(_MOST_TRIES):
        needs[size], limit = need(size)
        if needs[size] <= limit:
            fits = size
        else:
            too_large = size
        if too_large is not None and too_large - fits <= max(unit, fits / 16 // unit * unit):
            break
        size = _next_size(needs, limit, unit, fits, too_large)
    return fits, too_large


def _next_size(
    needs: Mapping[int, float], limit: float, unit: int, fits: int, too_large: int | None
) -> int:
    """The size at which a line through the two nearest needs meets the limit, within bounds."""
    if len(needs) == 1:
        [(size, need)] = needs.items()
        guess = size * limit / need
    else:
        (a, need_a), (b, need_b) = sorted(needs.items(), key=lambda x: abs(x[1] - limit))[:2]
        slope = (need_b - need_a) / (b - a)
        guess = a + (limit - need_a) / slope if slope > 0 else 2 * max(a, b)
    size = max(unit, int(guess) // unit * unit)
    if too_large is None:
        return min(max(size, fits + unit), 8 * fits)
    if size <= fits:
        return fits + unit
    return min(size, too_large - unit)


def _memory_of(config: Any, target: Target, batch_size: int) -> float:
    """Memory of the training step at a batch size, in bytes."""
    changed = copy.deepcopy(config)
    with changed.unlocked():
        changed.train.batch_size = batch_size
    step = _make_step(changed, target, _open(changed)[0])
    return _compile("training", step.lower, target).memory_bytes


def _open(config: Any) -> tuple[sets.Sets, bool]:
    """Returns (datasets, whether they are stand-ins because the data are not available)."""
    tracked = TrackedConfig(config)
    try:
        return sets.open_sets(tracked), False
    except (FileNotFoundError, ValueError) as error:
        stand_ins = sets.stand_in_sets(tracked)
        missing = isinstance(error, FileNotFoundError) or config.data.dir is None
        if stand_ins is None or not missing:
            raise
        return stand_ins, True


@dataclasses.dataclass(frozen=True)
class _Step:
    """The training step of a run, not lowered.

    Attributes:
      experiment: the run; of several that a device trains together, the first.
      steps: number of steps of a call.
      members: number of runs that a device trains together.
      runs: number of runs of the ensemble; 1 for a single run.
      lower: lowers it for the devices of the experiment, which need not exist.
    """

    experiment: Experiment
    steps: int
    members: int
    runs: int
    lower: Callable[[], jax.stages.Lowered]


def _make_step(config: Any, target: Target, opened: sets.Sets) -> _Step:
    mode = config.train.ensemble_mode or members.default_mode(target.platform)
    if config.train.members and mode == "vmap":
        return _make_joint_step(config, target, opened)
    runs = 1
    if config.train.members:  # one after another
        config, *others = members.member_configs(config)
        runs += len(others)
    experiment = build_experiment(TrackedConfig(config), devices=target.devices, opened=opened)
    preflight.check_network(experiment)
    if experiment.mode == "pmap":
        raise ValueError("config.train.parallel is 'pmap'; a plan needs 'auto' or 'shard_map'")
    steps = experiment.calendar.steps_at_once(0)
    state, key = _state_and_key(experiment)
    batch = loaders.abstract_batch(experiment, steps)
    call = engine.compile_train_step(experiment)
    return _Step(experiment, steps, 1, runs, lambda: call.lower(state, batch, key))


def _make_joint_step(config: Any, target: Target, opened: sets.Sets) -> _Step:
    """The step of the runs that one device trains together."""
    shared = shared_build.build_shared(
        members.member_configs(config), one_device=True, available=target.devices, opened=opened
    )
    first = shared.experiments[0]
    preflight.check_network(first)
    count = sum(experiment.mesh == first.mesh for experiment in shared.experiments)
    steps = first.calendar.steps_at_once(0)
    state, key = _state_and_key(first)
    if shared.rates:
        member = jax.ShapeDtypeStruct((), np.int32)
        key = (key, parallel.abstract_state(member, first.mesh))
    batch = loaders.abstract_batch(first, steps)
    resident = {name: batch.pop(name) for name in RESIDENT if name in batch}
    arguments = ([state] * count, resident, [batch] * count, [key] * count)
    call = lockstep.joint(shared.step, count, steps, platform=target.platform)
    runs = len(shared.experiments)
    return _Step(first, steps, count, runs, lambda: call.lower(*arguments))


def _state_and_key(experiment: Experiment) -> tuple[Any, Any]:
    """Shapes, types and placement of the state and the key of a run."""
    train = experiment.config.train
    key = jax.eval_shape(lambda: run_keys(train.seed, train.init_seed, train.dropout_seed)[1])
    state, key = (parallel.abstract_state(x, experiment.mesh) for x in (experiment.shapes, key))
    return state, key


def _lower_evaluation(experiment: Experiment) -> jax.stages.Lowered:
    state = parallel.abstract_state(experiment.shapes, experiment.mesh)
    batch = loaders.abstract_eval_batch(experiment)
    return engine.compile_eval_step(experiment).lower(state, batch)


def _trips(step: _Step) -> dict[str, int]:
    """The iterations of the loops of a training step, which a TPU's program does not state."""
    return {STEPS: step.steps, MICROBATCHES: step.experiment.config.train.accumulate}


def _compile(
    name: str,
    lower: Callable[[], jax.stages.Lowered],
    target: Target,
    trips: Mapping[str, int] | None = None,
) -> Counts:
    """Lowers and compiles a step and counts its needs. Raises `DoesNotFit`."""
    try:
        lowered = lower()
    except NotImplementedError as error:
        raise ValueError(
            f"an operation of the network cannot be lowered for {target.platform!r}: "
            f"{one_line(error)}"
        ) from error
    try:
        with warnings.catch_warnings():
            # JAX caches programs for a slice, but can only read them on a machine that has it.
            warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
            counts = program_counts.count(lowered.compile(), trips)
    except jax.errors.JaxRuntimeError as error:
        if found := _USED.search(str(error)):
            used, unit, available, available_unit = found.groups()
            sizes = float(used) * _UNITS[unit], float(available) * _UNITS[available_unit]
            raise DoesNotFit(name, *sizes) from error
        raise
    limit = target.memory_bytes
    if limit is not None and counts.memory_bytes > limit:
        raise DoesNotFit(name, counts.memory_bytes, limit)
    return counts


def _per_step(counts: Counts, step: _Step) -> Counts:
    """The counts of one step of a call of several.

    XLA counts the FLOPs of a loop's body once: those of one step, and of one microbatch. A loop
    that is not in the program was unrolled.
    """
    flops = counts.flops * counts.loops.get(MICROBATCHES, 1)
    flops /= 1 if STEPS in counts.loops else step.steps
    return dataclasses.replace(counts.divided(step.steps), flops=flops)


def least_seconds(counts: Counts, chip: Chip, dtype: str, devices: int) -> dict[str, float]:
    """Returns the least time of a program by its arithmetic, its memory and its collectives.

    A ring over n devices sends 2 (n - 1) / n of the bytes of an all-reduce, (n - 1) / n of the
    result of an all-gather, n - 1 times that of a reduce-scatter, and a permutation once. All
    devices of the slice count as one ring, also where groups of them communicate.

    Args:
      counts: the needs of one device.
      chip: the kind of chip.
      dtype: type of the computation.
      devices: number of devices that communicate.
    """
    share = (devices - 1) / devices
    shares = {"all-reduce": 2 * share, "reduce-scatter": devices - 1, "collective-permute": 1}
    sent = sum(found.bytes * shares.get(kind, share) for kind, found in counts.collectives.items())
    return {
        "arithmetic": counts.flops / (chip.flops_per_s[dtype] / chip.devices),
        "memory": counts.traffic / (chip.bytes_per_s / chip.devices),
        "collectives": sent / (chip.link_bytes_per_s / chip.devices),
    }


def _facts(step: _Step, target: Target, train: Counts, evaluate: Counts, stand_in: bool) -> Plan:
    experiment = step.experiment
    config, calendar, devices = experiment.config, experiment.calendar, experiment.mesh.devices
    dtype, size = config.model.dtype, experiment.mesh.size

    def least(counts: Counts) -> dict[str, float]:
        return least_seconds(counts, target.chip, dtype, size) if target.chip else {}

    ema = 2 if config.train.ema_decay else 1  # the running average is evaluated as well
    examples = len(experiment.test_set)
    return Plan(
        model=config.model.name,
        dtype=dtype,
        target=target.name,
        chip=target.chip.name if target.chip else None,
        device_kind=target.devices[0].device_kind,
        devices=size,
        processes=parallel.process_count(list(devices.flat)),
        batch_size=calendar.batch_size,
        eval_batch_size=experiment.eval_batch_size,
        mode=experiment.mode,
        bn_sync=_bn_sync(config),
        members=step.members,
        runs=step.runs,
        params=count_params(experiment.shapes.params),
        total_steps=calendar.total_steps,
        evaluations=ema * math.ceil(calendar.total_steps / calendar.eval_every),
        eval_steps=math.ceil(examples / experiment.eval_batch_size),
        streamed=experiment.stream is not None,
        train=train,
        evaluate=evaluate,
        seconds=least(train),
        eval_seconds=least(evaluate),
        memory_limit=target.memory_bytes,
        stand_in=stand_in,
    )


def _bn_sync(config: Any) -> str:
    group = config.train.bn_group
    return config.train.bn_sync if group is None else f"groups of {group}"
