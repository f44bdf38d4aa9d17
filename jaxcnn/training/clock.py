"""Where the time of a run goes."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

STEPS, EVALUATION, CHECKPOINTS = "steps", "evaluation", "checkpoints"


class Clock:
    """Seconds by what they were spent on: evaluation, checkpoints, and the steps between.

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
        """So many more steps are finished on the device."""
        self._steps += steps

    def take_steps(self, batch_size: int) -> dict[str, float]:
        """`images_per_second` and `step_ms` of the steps finished since the last call."""
        seconds, steps = time.perf_counter() - self._since - self._spent, self._steps
        self.total[STEPS] += seconds
        self.begin_steps()
        if not steps:
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


def product_rate(dtype: Any) -> float:
    """FLOP/s of a large matrix product on the default device, the best of three."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()

    def seconds() -> float:
        began = time.perf_counter()
        product(x, x).block_until_ready()
        return time.perf_counter() - began

    return 2 * side**3 / min(seconds() for _ in range(3))


def device_memory() -> dict[str, float]:
    """`device_memory_mib`: the most that a device of this process has held; {} if not known."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return {"device_memory_mib": max(peaks) / 2**20} if peaks else {}
