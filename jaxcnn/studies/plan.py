"""From a study to the list of training runs, as far as a budget of minutes allows."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxcnn.models.costs import count_macs
from jaxcnn.studies.study import Overrides, Run, Study, make_config
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Experiment, build_experiment
from jaxcnn.training.config import TrackedConfig, set_duration
from jaxcnn.training.input import loaders
from jaxcnn.training.output.workdir import member_directory
from jaxcnn.training.state import abstract_variables

_POINTS = 20  # evaluations of a run: the points of its curve
_FEWEST_STEPS = 200  # a budget cuts steps down to this before it leaves runs out
_TIMED_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of a setting, with one seed or with several at once."""

    run: Run
    seeds: tuple[int, ...]
    config: ConfigDict

    @property
    def name(self) -> str:
        """Of its directory: "plain-20_seed0", or "plain-20" where it has all seeds."""
        setting = re.sub(r"[^A-Za-z0-9.]+", "-", self.run.label).strip("-")
        return f"{setting}_seed{self.seeds[0]}" if len(self.seeds) == 1 else setting

    def directories(self, folder: Path) -> list[Path]:
        """Of each seed's run."""
        if len(self.seeds) == 1:
            return [folder / self.name]
        return [member_directory(folder / self.name, i) for i in range(len(self.seeds))]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run takes on this machine: seconds to compile, and seconds a step."""

    compile: float
    step: float


def make_jobs(
    study: Study,
    *,
    full: bool = False,
    seeds: int | None = None,
    overrides: Overrides | None = None,
    most_rank: int | None = None,
    together: bool = False,
) -> list[Job]:
    """All runs of a study, one seed after another, or all seeds of a setting in one.

    Args:
      study: to be carried out.
      full: as published, or in the small form.
      seeds: 0 to seeds - 1; None for the study's own number, in the small form one.
      overrides: fields to set over the study's own.
      most_rank: leave out runs of a higher rank; None for none.
      together: train the seeds of a setting at once, which is worth while on an accelerator; see
        `jaxcnn.training.ensemble.members`.
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
                given = (study.base, small, run.overrides, overrides or {}, which)
                jobs.append(Job(run, group, _with_points(make_config(*given))))
    return jobs


def fit(
    study: Study,
    minutes: float,
    costs: Sequence[Cost],
    seeds: int | None,
    overrides: Overrides,
) -> tuple[Overrides, int, list[str]]:
    """Scales the small form of a study to so many minutes for all runs together.

    Steps are cut first, the same for all runs; then runs are left out, the highest rank first;
    then steps further, down to 20.

    Args:
      study: to be scaled.
      minutes: for all runs together.
      costs: of each of the study's runs.
      seeds, overrides: as in `make_jobs`.

    Returns:
      Fields to set, the highest rank to keep, and in words what was scaled.
    """
    wanted = _build(make_jobs(study, overrides=overrides)[0].config).calendar.total_steps
    count = seeds or 1
    steps, most_rank = wanted, max(run.rank for run in study.runs)
    for most_rank in sorted({run.rank for run in study.runs}, reverse=True):
        kept = [cost for run, cost in zip(study.runs, costs) if run.rank <= most_rank]
        left = 60 * minutes / count - sum(cost.compile for cost in kept)
        steps = min(wanted, int(left / sum(cost.step for cost in kept) + 1e-6))
        if steps >= min(wanted, _FEWEST_STEPS):
            break
    steps = max(20, steps)
    said = []
    if steps < wanted:
        said.append(f"{steps:,} steps a run instead of {wanted:,}")
    left_out = [run.label for run in study.runs if run.rank > most_rank]
    if left_out:
        said.append(f"without {', '.join(left_out)}")
    if count < study.seeds:
        said.append(f"{count} seed{'s' * (count > 1)} instead of {study.seeds}")
    small = {field for field in study.small if study.small[field] != study.base.get(field)}
    said += [f"{field} {study.small[field]!r}" for field in ("data.source",) if field in small]
    return {"train.length_steps": steps}, most_rank, said


def measure(study: Study, *, overrides: Overrides | None = None) -> list[Cost]:
    """What each run would take: the lightest is compiled and timed, the others by multiply-adds.

    Compilation is taken to grow in the same proportion, which is right for depth.
    """
    jobs = make_jobs(study, overrides=overrides)
    macs = [_multiply_adds(job.config) for job in jobs]
    lightest = min(range(len(jobs)), key=macs.__getitem__)
    cost = _time(jobs[lightest].config)
    return [Cost(cost.compile * m / macs[lightest], cost.step * m / macs[lightest]) for m in macs]


def _multiply_adds(config: ConfigDict) -> float:
    """Of one step."""
    experiment = _build(config)
    images = jax.ShapeDtypeStruct(experiment.image_shape, jnp.float32)
    variables = abstract_variables(experiment.model, experiment.image_shape)
    return count_macs(experiment.model.apply, variables, images) * experiment.calendar.batch_size


def _time(config: ConfigDict) -> Cost:
    experiment = _build(config)
    calendar = experiment.calendar
    began = time.perf_counter()
    state = engine.compile_init(experiment)(jax.random.key(0))
    state = parallel.place_state(state, experiment.mesh)
    key = parallel.place_state(jax.random.key(0), experiment.mesh)
    loader = loaders.train_loader(experiment, 0, None)
    train_step, count = engine.compile_train_step(experiment), calendar.steps_at_once(0)
    state, out = jax.block_until_ready(train_step(state, loader.batch(0, count), key))
    compiled = time.perf_counter()
    for step in range(_TIMED_STEPS):
        state, out = train_step(state, loader.batch(step, count), key)
    jax.block_until_ready((state, out))
    # an evaluation's share is about that of a step for each of its batches and a third more
    seconds = (time.perf_counter() - compiled) / (_TIMED_STEPS * count)
    loader.close()
    evaluation = len(experiment.test_set) / calendar.batch_size / 3 * seconds
    return Cost(compiled - began, seconds + evaluation * _POINTS / calendar.total_steps)


def _build(config: ConfigDict) -> Experiment:
    return build_experiment(TrackedConfig(config))


def _with_points(config: ConfigDict) -> ConfigDict:
    """The configuration with as many evaluations as the curve has points."""
    for section in (config.eval, config.checkpoint):
        set_duration(section, "every", percent=100 / _POINTS)
    return config
