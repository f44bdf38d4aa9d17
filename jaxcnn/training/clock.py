"""The calendar of a run (when to log, evaluate and save), and its clock."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jaxcnn.training.optim import schedules

TRAINING, EVALUATION, CHECKPOINTS = "training", "evaluation", "checkpoints"
SETUP, COMPILING, FIGURES = "setup", "compiling", "figures"

_MOST_STEPS = 10**9  # the step counter is an int32


@dataclasses.dataclass(frozen=True)
class Calendar:
    """The steps after which to log, evaluate and save, as a function of the step alone.

    Intervals are in steps and may be fractional: an interval of 11.2 steps is due after steps 11,
    22, 34, ...

    Attributes:
      batch_size: number of examples in a step.
      train_examples: number of examples in the training set.
      total_steps: number of steps in the run.
      eval_every: steps between evaluations.
      checkpoint_every: steps between checkpoints.
      log_every: steps between rows of training metrics.
      steps_per_call: maximum number of steps in one call of the compiled step.
    """

    batch_size: int
    train_examples: int
    total_steps: int
    eval_every: float
    checkpoint_every: float
    log_every: int
    steps_per_call: int = 1

    def epoch(self, step: int) -> float:
        """Number of passes over the training set after `step` steps."""
        return step * self.batch_size / self.train_examples

    def is_due(self, every: float, step: int) -> bool:
        """Whether an event with an interval of `every` steps is due after `step`."""
        return step == self.total_steps or round(round(step / every) * every) == step

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after `step`."""
        return self.is_due(self.eval_every, step)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        return self.is_due(self.checkpoint_every, step)

    def logs(self, before: int, step: int) -> bool:
        """Whether a row of training metrics is due in the steps `before` + 1 to `step`."""
        return step // self.log_every > before // self.log_every

    def next_boundary(self, step: int) -> int:
        """The next step after which an evaluation or a checkpoint is due, or the run ends."""
        intervals = (self.eval_every, self.checkpoint_every)
        return min(self.total_steps, *(_next(every, step) for every in intervals))

    def steps_at_once(self, step: int) -> int:
        """Number of steps in the call that follows `step`: `steps_per_call` if they fit, else 1.

        It is a function of the step alone, so that a resumed run makes the same calls.
        """
        return self.steps_per_call if step + self.steps_per_call <= self.next_boundary(step) else 1


def make_calendar(config: Any, train_examples: int, steps_per_call: int) -> Calendar:
    """Makes the calendar of a configuration.

    Args:
      config: the configuration.
      train_examples: number of examples in the training set.
      steps_per_call: maximum number of steps in one call of the compiled step.

    Returns:
      The calendar.

    Raises:
      ValueError: the run has too many steps.
    """
    batch_size = config.train.batch_size
    steps_per_epoch = train_examples / batch_size
    length = schedules.duration(
        config.train, "length", steps_per_epoch=steps_per_epoch, batch_size=batch_size
    )
    total_steps = max(1, length)
    if total_steps > _MOST_STEPS:
        raise ValueError(
            f"config.train: the run has {total_steps:,} steps; at most {_MOST_STEPS:,} are possible"
        )

    def interval(section: Any) -> float:
        factors = {
            "steps": 1.0,
            "epochs": steps_per_epoch,
            "examples": 1 / batch_size,
            "percent": total_steps / 100,
        }
        every = (section[f"every_{unit}"] for unit in factors)
        return max(1.0, next(v * f for v, f in zip(every, factors.values()) if v is not None))

    return Calendar(
        batch_size=batch_size,
        train_examples=train_examples,
        total_steps=total_steps,
        eval_every=interval(config.eval),
        checkpoint_every=interval(config.checkpoint),
        log_every=config.log.every_steps,
        steps_per_call=steps_per_call,
    )


def _next(every: float, step: int) -> int:
    times = int(step / every) + 1
    return next(s for k in range(max(0, times - 1), times + 2) if (s := round(k * every)) > step)


class Clock:
    """Measures the seconds spent on training steps and on each activity named by `on`.

    Attributes:
      total: {activity: seconds}.
      first_step: seconds until the first steps were complete; None before that.
    """

    def __init__(self) -> None:
        self.total: dict[str, float] = collections.defaultdict(float)
        self.first_step: float | None = None
        self._began = time.perf_counter()
        self._taken: dict[str, float] = collections.defaultdict(float)
        self._since, self._spent, self._steps = self._began, 0.0, 0

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Counts the time within the `with` statement for `what` instead of for steps."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.total[what] += seconds
        self._spent += seconds

    def take(self, what: str) -> float:
        """Returns the seconds spent on `what` since the last call."""
        seconds = self.total[what] - self._taken[what]
        self._taken[what] = self.total[what]
        return seconds

    def begin_steps(self) -> None:
        """Starts to count time that no activity claims for training steps."""
        self._since, self._spent, self._steps = time.perf_counter(), 0.0, 0

    def finished(self, steps: int) -> None:
        """Adds steps that are complete on the device."""
        self._steps += steps

    def take_steps(self, batch_size: int) -> dict[str, float]:
        """Returns `images_per_second` and `step_ms` of the steps completed since the last call."""
        seconds, steps = time.perf_counter() - self._since - self._spent, self._steps
        self.total[TRAINING] += seconds
        self.begin_steps()
        if not steps:
            return {}
        return {
            "images_per_second": steps * batch_size / seconds,
            "step_ms": 1000 * seconds / steps,
        }

    def fractions(self) -> Mapping[str, float]:
        """Returns the fraction of the time spent on each activity, largest first, then "other"."""
        elapsed = self.elapsed()
        fractions = {what: seconds / elapsed for what, seconds in self.total.items()}
        fractions = dict(sorted(fractions.items(), key=lambda item: -item[1]))
        return fractions | {"other": max(0.0, 1 - sum(fractions.values()))}


def device_memory() -> dict[str, float]:
    """Returns `device_memory_mib`, the peak of this process's devices; {} if they do not report."""
    all_stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in all_stats if "peak_bytes_in_use" in stats]
    return {"device_memory_mib": max(peaks) / 2**20} if peaks else {}
