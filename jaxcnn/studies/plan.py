"""Plans the training runs of a study within a time budget."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from jaxcnn.models.costs import count_macs
from jaxcnn.studies.study import SCHEDULE_DURATIONS, Overrides, Run, Study, make_config
from jaxcnn.training import train
from jaxcnn.training.build import Experiment, build_experiment
from jaxcnn.training.clock import make_calendar
from jaxcnn.training.config import (
    TrackedConfig,
    differences,
    differences_text,
    set_duration,
    units,
    validate,
)
from jaxcnn.training.ensemble.members import member_configs
from jaxcnn.training.guard import preflight
from jaxcnn.training.output.records import MANIFEST, member_directory, read_manifest
from jaxcnn.training.state import abstract_variables

_POINTS = 20  # evaluations of a run: the points of its curve
# For studies and command lines that do not set these fields themselves.
_EVALUATIONS = {f"{section}.every_percent": 100 / _POINTS for section in ("eval", "checkpoint")}
_FEWEST_STEPS = 200  # a short budget reduces the steps to this before it leaves out runs
_LEAST_STEPS = 20  # of a run, even if the budget is shorter
_TIMED_POINTS = 4  # evaluations of the timed run
_TIMED_SCHEDULE = {"name": "constant", "learning_rate": 1e-8}  # the study's schedule may diverge


@dataclasses.dataclass(frozen=True)
class Job:
    """A training run of a setting, with one seed or with several at once.

    Attributes:
      run: the setting.
      seeds: of the run.
      config: its configuration.
    """

    run: Run
    seeds: tuple[int, ...]
    config: ConfigDict

    @property
    def name(self) -> str:
        """Name of its directory: "plain-20_seed0", or "plain-20" if it has several seeds."""
        setting = re.sub(r"[^A-Za-z0-9.]+", "-", self.run.label).strip("-")
        return f"{setting}_seed{self.seeds[0]}" if len(self.seeds) == 1 else setting

    def directories(self, folder: Path) -> list[Path]:
        """Returns the directory of each seed's run within the directory of the study."""
        if len(self.seeds) == 1:
            return [folder / self.name]
        return [member_directory(folder / self.name, i) for i in range(len(self.seeds))]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Training time of a run on this machine.

    Attributes:
      fixed: seconds that do not depend on the number of steps: compilation, startup, shutdown, and
        evaluations with their checkpoints.
      step: seconds per step.
    """

    fixed: float
    step: float


@dataclasses.dataclass(frozen=True)
class Scale:
    """The small version of a study, scaled to a time budget.

    Attributes:
      steps: of every run, or {label: steps} if the study's runs differ in length; None for the
        study's own number.
      most_rank: runs of a higher rank are left out; None to keep all.
      seeds: number of seeds per setting; None for the study's own.
      examples: number of examples per epoch, to convert durations.
      said: descriptions of what was scaled.
      warning: a warning if even the scaled study exceeds the budget, else "".
    """

    steps: int | Mapping[str, int] | None = None
    most_rank: int | None = None
    seeds: int | None = None
    examples: int | None = None
    said: Sequence[str] = ()
    warning: str = ""


def read_scale(plan: Mapping[str, Any], seeds: int | None) -> Scale:
    """Reads the scale from the contents of a `plan.json`.

    Args:
      plan: the contents.
      seeds: number of seeds that was requested, which older plans do not contain.
    """
    if "scale" in plan:
        return Scale(**plan["scale"])
    steps = plan["cut"].get("train.length_steps")
    return Scale(steps, plan["most_rank"], seeds, said=plan["scaled"])


def make_jobs(
    study: Study,
    *,
    full: bool = False,
    seeds: int | None = None,
    overrides: Overrides | None = None,
    most_rank: int | None = None,
    together: bool = False,
    steps: int | Mapping[str, int] | None = None,
    examples: int | None = None,
) -> list[Job]:
    """Lists the training runs of a study.

    The durations of a schedule scale with the length of the run: 400 of 64,000 steps in the full
    version are the same fraction of a shorter run.

    Args:
      study: to be planned.
      full: plan the full version instead of the small one.
      seeds: number of seeds, from 0; None for the study's own number, or 1 in the small version.
      overrides: fields of the configuration to override in all runs.
      most_rank: leave out runs of a higher rank; None to keep all.
      together: train all seeds of a setting at once, which is worthwhile on an accelerator; see
        `jaxcnn.training.ensemble.members`.
      steps: number of steps of every run, or {label: steps}; None for the study's own number.
      examples: number of examples per epoch, to compare durations in epochs with other units.

    Returns:
      The runs, one seed after another.
    """
    every = tuple(range(seeds or (study.seeds if full else 1)))
    jobs = []
    for group in [every] if together else [(seed,) for seed in every]:
        which: Overrides = {"train.seed": group[0]}
        if len(group) > 1:
            which = {"train.members": f"train.seed={','.join(map(str, group))}"}
        for run in study.runs:
            if most_rank is None or run.rank <= most_rank:
                small = {} if full else study.small
                layers: list[Overrides] = [_EVALUATIONS, study.base, small, run.overrides]
                if small:
                    layers.append(_in_percent(make_config(study.base, run.overrides), layers))
                layers += [overrides or {}, which]
                if steps is not None:
                    relative = _in_percent(make_config(*layers), layers, examples)
                    own = steps if isinstance(steps, int) else steps[run.label]
                    layers += [relative, {"train.length_steps": own}]
                jobs.append(Job(run, group, _with_rows(make_config(*layers))))
    return jobs


def _in_percent(
    whole: ConfigDict, layers: Sequence[Overrides], examples: int | None = None
) -> dict[str, Any]:
    """The durations of the schedule in percent of the whole run, as overrides.

    Only durations that the layers do not change, and whose unit can be converted to that of the
    run's length.
    """
    schedule = make_config(*layers).schedule
    per_unit = {"steps": whole.train.batch_size, "examples": 1, "epochs": examples}
    length_unit = next(u for u in units("length") if whole.train[f"length_{u}"] is not None)
    length = whole.train[f"length_{length_unit}"]
    durations: dict[str, Any] = {}
    for name in SCHEDULE_DURATIONS:
        for unit in units("length"):
            value = whole.schedule.get(f"{name}_{unit}")
            if value is None or schedule.get(f"{name}_{unit}") != value:
                continue
            factor = 1.0
            if unit != length_unit:
                of, to = per_unit[unit], per_unit[length_unit]
                if of is None or to is None:
                    continue
                factor = of / to
            many = isinstance(value, (tuple, list))
            percent = [100 * v * factor / length for v in (value if many else (value,))]
            durations[f"schedule.{name}_percent"] = tuple(percent) if many else percent[0]
    return durations


def check_overrides(overrides: Overrides, *, full: bool = False) -> None:
    """Checks that the fields can be set in all runs of a study.

    Args:
      overrides: fields of the configuration.
      full: whether they are for the full version instead of the small one.

    Raises:
      ValueError: the study sets one of the fields itself.
    """
    for field in overrides:
        if field in ("train.seed", "train.members"):
            raise ValueError(f"{field} cannot be set in a study; --seeds N runs the seeds 0 to N-1")
        if field.startswith("train.length_") and not full:
            raise ValueError(f"{field} can only be set with --full; else --budget sets the length")


def check(jobs: Sequence[Job], folder: Path) -> None:
    """Checks every run, its first batch and its directory, without computing a step.

    Args:
      jobs: to be checked.
      folder: directory of the study.

    Raises:
      ValueError: a run is invalid, or two runs have the same directory; the message names them.
      OSError: its data cannot be read.
    """
    labels: dict[str, str] = {}
    for job in jobs:
        if (other := labels.setdefault(job.name, job.run.label)) != job.run.label:
            raise ValueError(
                f"the runs {other!r} and {job.run.label!r} have the same directory, {job.name}: "
                "its name keeps only letters from A to Z, digits and dots of a label"
            )
    for job in jobs:
        try:
            validate(job.config)
            for directory, config in zip(job.directories(folder), _configs(job)):
                if (directory / MANIFEST).exists():
                    before = read_manifest(directory)["config"]
                    if different := differences(before, config):
                        text = f"{directory} contains another run: {differences_text(different)}"
                        raise ValueError(text)
            if job.seeds[0] == 0:  # the checks do not depend on the seed
                preflight.check(_build(job.config))
        except ValueError as error:
            raise ValueError(f"{job.name}: {error}") from error


def _configs(job: Job) -> list[ConfigDict]:
    return [job.config] if len(job.seeds) == 1 else member_configs(job.config)


def fit(
    study: Study,
    minutes: float,
    costs: Sequence[Cost],
    seeds: int | None,
    overrides: Overrides,
    *,
    spent: float = 0.0,
) -> Scale:
    """Scales the small version of a study to a time budget.

    First the number of steps is reduced by the same factor for all runs, then runs are left out,
    those of the highest rank first, then seeds; finally the number of steps is reduced further,
    down to 20.

    Args:
      study: to be scaled.
      minutes: budget for all runs together.
      costs: training time of each of the study's runs.
      seeds: see `make_jobs`.
      overrides: see `make_jobs`.
      spent: seconds of the budget that are already used.
    """
    lengths, examples = _lengths([job.config for job in make_jobs(study, overrides=overrides)])
    requested = seeds or 1
    ranks = sorted({run.rank for run in study.runs}, reverse=True)
    forms = [(requested, rank) for rank in ranks]
    forms += [(n, ranks[-1]) for n in range(requested - 1, 0, -1)]
    for count, most_rank in forms:
        kept = [i for i, run in enumerate(study.runs) if run.rank <= most_rank]
        fixed = sum(costs[i].fixed for i in kept)
        stepping = sum(costs[i].step * lengths[i] for i in kept)
        fraction = min(1.0, ((60 * minutes - spent) / count - fixed) / stepping)
        longest = max(lengths[i] for i in kept)
        if int(fraction * longest + 1e-6) >= min(longest, _FEWEST_STEPS):
            break
    steps = [max(int(fraction * n + 1e-6), min(n, _LEAST_STEPS)) for n in lengths]
    cut, whole = ([numbers[i] for i in kept] for numbers in (steps, lengths))
    said = []
    if cut != whole:
        said.append(f"{_range(cut)} steps per run instead of {_range(whole)}")
    left_out = [run.label for run in study.runs if run.rank > most_rank]
    if left_out:
        said.append(f"without {', '.join(left_out)}")
    if count < max(study.seeds, requested):
        said.append(f"{count} seed{'s' * (count > 1)} instead of {max(study.seeds, requested)}")
    small = {field for field in study.small if study.small[field] != study.base.get(field)}
    said += [f"{field} {study.small[field]!r}" for field in ("data.source",) if field in small]
    takes = (spent + count * sum(costs[i].fixed + costs[i].step * steps[i] for i in kept)) / 60
    warning = ""
    if takes > 1.1 * minutes:
        warning = (
            f"the smallest version, {count * len(kept)} runs of {_range(cut)} steps, takes about "
            f"{takes:.2g} minutes on this machine, longer than the budget of {minutes:g}"
        )
    by_label = {run.label: own for run, own in zip(study.runs, steps)}
    scaled = steps[0] if len(set(lengths)) == 1 else by_label
    return Scale(scaled, most_rank, count, examples, said, warning)


def _lengths(configs: Sequence[ConfigDict]) -> tuple[list[int], int]:
    """Returns the number of steps of each run, and the number of examples of the first."""
    sizes: dict[str, int] = {}
    lengths = []
    for config in configs:
        data = str(config.data)
        if data not in sizes:
            sizes[data] = len(_build(config).train_set)
        lengths.append(make_calendar(TrackedConfig(config), sizes[data], 1).total_steps)
    return lengths, next(iter(sizes.values()))


def _range(numbers: Sequence[int]) -> str:
    """Formats numbers as "20", or as "20 to 300"."""
    return " to ".join(f"{n:,}" for n in sorted({min(numbers), max(numbers)}))


def measure(study: Study, *, overrides: Overrides | None = None) -> list[Cost]:
    """Estimates the training time of each run of a study by timing the cheapest one for 20 steps.

    The time of a step is assumed to be proportional to the multiply-adds, and the fixed time, which
    is mostly compilation, to the number of layers.

    Args:
      study: to be measured.
      overrides: see `make_jobs`.

    Returns:
      The training time of each run.
    """
    jobs = make_jobs(study, overrides=overrides)
    work, building = [], []
    for job in jobs:
        began = time.perf_counter()
        work.append(_work(job.config))
        building.append(time.perf_counter() - began)  # also the time of `check`
    lightest = min(range(len(jobs)), key=lambda i: work[i])
    timed = {**(overrides or {}), "schedule": _TIMED_SCHEDULE}
    cost = _time(make_jobs(study, overrides=timed, steps=_LEAST_STEPS)[lightest].config)
    macs, layers = work[lightest]
    return [
        Cost(cost.fixed * n / layers + seconds, cost.step * m / macs)
        for (m, n), seconds in zip(work, building)
    ]


def _work(config: ConfigDict) -> tuple[float, int]:
    """Multiply-adds of a step, and the number of kernels."""
    experiment = _build(config)
    images = jax.ShapeDtypeStruct(experiment.image_shape, jnp.float32)
    variables = abstract_variables(experiment.model, experiment.image_shape)
    macs = count_macs(experiment.model.apply, variables, images) * experiment.calendar.batch_size
    return macs, sum(leaf.ndim > 1 for leaf in jax.tree.leaves(variables["params"]))


def _time(config: ConfigDict) -> Cost:
    """Times a short run in a temporary folder, without the compilation cache."""
    calls = _build(config).calendar.steps_per_call
    steps = max(_LEAST_STEPS, calls * _TIMED_POINTS)
    set_duration(config.train, "length", steps=steps)
    for section in (config.eval, config.checkpoint):
        set_duration(section, "every", percent=100 / _TIMED_POINTS)
    began = time.perf_counter()
    stepping: list[float] = []  # seconds from one point to the last step before the next
    points: list[float] = []  # seconds of an evaluation and its checkpoints
    with tempfile.TemporaryDirectory() as folder, _without_compilation_cache():
        stepped, pointed = began, 0.0
        for report in train(config, Path(folder) / "run"):
            now = time.perf_counter()
            if report.kind == "step":
                stepped = now
            elif report.kind == "checkpoint" and not report.values["best"]:
                if pointed:  # the first point compiles
                    stepping.append(stepped - pointed)
                    points.append(now - stepped)
                pointed = now
    step = sum(stepping) / (steps * (1 - 1 / _TIMED_POINTS))
    point = sum(points) / len(points)
    whole = time.perf_counter() - began
    fixed = max(0.0, whole - steps * step - _TIMED_POINTS * point)
    return Cost(fixed + _POINTS * point, step)


@contextlib.contextmanager
def _without_compilation_cache() -> Iterator[None]:
    """Disables the compilation cache, since most programs of a study are not in it."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _build(config: ConfigDict) -> Experiment:
    return build_experiment(TrackedConfig(config))


def _with_rows(config: ConfigDict) -> ConfigDict:
    """The configuration with at least as many rows of training metrics as the curve has points."""
    if config.train.length_steps is not None:
        most = max(1, config.train.length_steps // _POINTS)
        config.log.every_steps = min(config.log.every_steps, most)
    return config
