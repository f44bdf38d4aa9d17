"""When things of a run are due, and where its time goes."""

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


_MOST_STEPS = 10**9  # steps are counted in 32 bits


@dataclasses.dataclass(frozen=True)
class Calendar:
    """When the things of a run are due, as a function of the step alone.

    Intervals are in steps and need not be whole: something that is due every 11.2 steps happens
    after steps 11, 22, 34, ...

    Attributes:
      batch_size: examples in a step.
      train_examples: examples in the training set.
      total_steps: of the run.
      eval_every, checkpoint_every: steps between two evaluations, two checkpoints.
      log_every: steps between two rows of training metrics.
      steps_per_call: most steps in one call of the compiled program.
    """

    batch_size: int
    train_examples: int
    total_steps: int
    eval_every: float
    checkpoint_every: float
    log_every: int
    steps_per_call: int = 1

    def epoch(self, step: int) -> float:
        """Passes over the training set after this many steps."""
        return step * self.batch_size / self.train_examples

    def is_due(self, every: float, step: int) -> bool:
        """Whether something that happens every `every` steps happens after this one."""
        return step == self.total_steps or round(round(step / every) * every) == step

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation after this step."""
        return self.is_due(self.eval_every, step)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after this step."""
        return self.is_due(self.checkpoint_every, step)

    def logs(self, before: int, step: int) -> bool:
        """Whether a row of training metrics falls in the steps `before` + 1 to `step`."""
        return step // self.log_every > before // self.log_every

    def next_boundary(self, step: int) -> int:
        """The next step after which something other than training happens."""
        intervals = (self.eval_every, self.checkpoint_every)
        return min(self.total_steps, *(_next(every, step) for every in intervals))

    def steps_at_once(self, step: int) -> int:
        """How many steps the call after this step makes: full calls, then single steps.

        A function of the step alone, so that a resumed run makes the same calls.
        """
        return self.steps_per_call if step + self.steps_per_call <= self.next_boundary(step) else 1


def make_calendar(config: Any, train_examples: int, steps_per_call: int) -> Calendar:
    """The calendar of a configuration for a training set of this many examples."""
    batch_size = config.train.batch_size
    steps_per_epoch = train_examples / batch_size
    length = schedules.duration(
        config.train, "length", steps_per_epoch=steps_per_epoch, batch_size=batch_size
    )
    total_steps = max(1, length)
    if total_steps > _MOST_STEPS:
        raise ValueError(
            f"config.train: the run has {total_steps:,} steps; {_MOST_STEPS:,} at most"
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
    """Seconds by what they were spent on: the steps, and everything named by `on`.

    `first_step` is None until the first steps are done, then the seconds that passed before.
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
        """The time within counts for `what`, and not for steps."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.total[what] += seconds
        self._spent += seconds

    def take(self, what: str) -> float:
        """Seconds spent on it since the last call."""
        seconds = self.total[what] - self._taken[what]
        self._taken[what] = self.total[what]
        return seconds

    def begin_steps(self) -> None:
        """From now on time that is spent on nothing else is that of steps."""
        self._since, self._spent, self._steps = time.perf_counter(), 0.0, 0

    def finished(self, steps: int) -> None:
        """This many more steps are finished on the device."""
        self._steps += steps

    def take_steps(self, batch_size: int) -> dict[str, float]:
        """`images_per_second` and `step_ms` of the steps finished since the last call."""
        seconds, steps = time.perf_counter() - self._since - self._spent, self._steps
        self.total[TRAINING] += seconds
        self.begin_steps()
        if not steps:
            return {}
        return {
            "images_per_second": steps * batch_size / seconds,
            "step_ms": 1000 * seconds / steps,
        }

    def shares(self) -> Mapping[str, float]:
        """Fractions of the whole time, the largest first; what is left is "other"."""
        whole = self.elapsed()
        shares = {what: seconds / whole for what, seconds in self.total.items()}
        shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
        return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def device_memory() -> dict[str, float]:
    """`device_memory_mib`: the most that a device of this process has held; {} if not known."""
    known = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in known if "peak_bytes_in_use" in stats]
    return {"device_memory_mib": max(peaks) / 2**20} if peaks else {}
