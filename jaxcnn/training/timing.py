"""Where the time of a run goes."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping

import jax

STEPS, EVALUATION, CHECKPOINTS = "steps", "evaluation", "checkpoints"


class Clock:
    """Seconds by what they were spent on, since they were last asked for and in all.

    `first_step` is None until the first steps are done, then the seconds that passed before.
    """

    def __init__(self) -> None:
        self.total: dict[str, float] = collections.defaultdict(float)
        self.first_step: float | None = None
        self._began = time.perf_counter()
        self._taken: dict[str, float] = collections.defaultdict(float)
        self._steps = 0

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    @contextlib.contextmanager
    def on(self, what: str, steps: int = 0) -> Iterator[None]:
        """The time within counts for `what`; `steps` are finished with it."""
        began = time.perf_counter()
        yield
        self.total[what] += time.perf_counter() - began
        self._steps += steps

    def take(self, what: str) -> float:
        """Seconds spent on it since the last call."""
        seconds = self.total[what] - self._taken[what]
        self._taken[what] = self.total[what]
        return seconds

    def take_steps(self, batch_size: int) -> dict[str, float]:
        """`images_per_second` and `step_ms` of the steps since the last call, without evaluation
        and checkpoints."""
        seconds, steps, self._steps = self.take(STEPS), self._steps, 0
        if not (seconds and steps):
            return {}
        return {
            "images_per_second": steps * batch_size / seconds,
            "step_ms": 1000 * seconds / steps,
        }

    def shares(self) -> Mapping[str, float]:
        """Shares of the whole time; what is left is "other", such as loading and compiling."""
        whole = self.elapsed()
        shares = {what: seconds / whole for what, seconds in self.total.items()}
        return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def device_memory() -> dict[str, float]:
    """`device_memory_mib`: the most that a device of this process has held; {} if not known."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return {"device_memory_mib": max(peaks) / 2**20} if peaks else {}
