"""Trains several runs with one compiled step under `vmap`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcnn.reporting.report import Report
from jaxcnn.runtime import compilation
from jaxcnn.training.loop import Run
from jaxcnn.training.step import RESIDENT, multi_step

Failures = dict[int, FloatingPointError]


def train_in_lockstep(
    runs: Sequence[Run], step: Callable, keys: Sequence[Any], failed: Failures
) -> Iterator[Report]:
    """Trains runs of equal shapes; the `member` of a report is the index of its run.

    A run that is behind, as after a kill between two checkpoints, first catches up. If the loss of
    a run is not finite, the run is added to `failed`, and the others continue.

    Args:
      runs: the runs, not yet entered, each with its device.
      step: the pure step.
      keys: the key argument of the step for each run.
      failed: {member: error}, changed in place.

    Yields:
      The reports of all runs.
    """
    lockstep = _Lockstep(runs, step, keys)
    with contextlib.ExitStack() as opened:
        for member, run in enumerate(runs):
            opened.enter_context(run)
            yield from _reports(member, run.begin(), failed)
        alive = {member: run for member, run in enumerate(runs) if member not in failed}
        while alive:
            step_number = min(run.step for run in alive.values())
            active = {member: run for member, run in alive.items() if run.step == step_number}
            for member, run in list(active.items()):
                if run.finished():
                    del alive[member], active[member]
                    yield from _reports(member, run.end(), failed)
            for member, (state, metrics) in lockstep.make_steps(active).items():
                runs[member].state = state
                yield from _reports(member, runs[member].after_step(metrics), failed)
                if member in failed:
                    del alive[member]


class _Lockstep:
    """Computes the next steps of runs at the same step, with one executable per device.

    The executable of a device always computes all runs of the device, since a different batch size
    under `vmap` would round differently. The slots of inactive runs repeat an active run.

    Args:
      runs: the runs, each with its device.
      step: the pure step.
      keys: the key argument of the step for each run.
    """

    def __init__(self, runs: Sequence[Run], step: Callable, keys: Sequence[Any]):
        self._step, self._keys = step, keys
        self._deterministic = runs[0].config.train.deterministic
        self._members: dict[Mesh, list[int]] = {}
        for member, run in enumerate(runs):
            self._members.setdefault(run.experiment.mesh, []).append(member)
        self._compiled: dict[tuple[int, int], Callable] = {}

    def make_steps(self, active: dict[int, Run]) -> dict[int, tuple[Any, Any]]:
        """Dispatches the next steps on all devices; returns {member: (state, metrics)}."""
        results: dict[int, tuple[Any, Any]] = {}
        for members in self._members.values():
            present = [member for member in members if member in active]
            if present:
                results |= self._on_one_device(members, {m: active[m] for m in present})
        return results

    def _on_one_device(self, members: list[int], active: dict[int, Run]) -> dict[int, Any]:
        batches = {member: run.next_batch() for member, run in active.items()}
        first = next(iter(active))
        count = active[first].calendar.steps_at_once(active[first].step)
        resident = {k: v for k, v in batches[first].items() if k in RESIDENT}
        # The executable reuses the memory of the states, so inactive slots get a copy.
        states = [
            active[m].state if m in active else jax.tree.map(jnp.copy, active[first].state)
            for m in members
        ]
        sources = [m if m in active else first for m in members]
        examples = [{k: v for k, v in batches[m].items() if k not in RESIDENT} for m in sources]
        keys = [self._keys[m] for m in sources]
        results = self._executable(len(members), count)(states, resident, examples, keys)
        return {member: result for member, result in zip(members, results) if member in active}

    def _executable(self, members: int, count: int) -> Callable:
        if (members, count) not in self._compiled:
            self._compiled[members, count] = joint(
                self._step, members, count, deterministic=self._deterministic
            )
        return self._compiled[members, count]


def _reports(member: int, reports: Iterator[Report], failed: Failures) -> Iterator[Report]:
    """Yields the reports of a member; adds it to `failed` if its loss is not finite."""
    try:
        for report in reports:
            yield dataclasses.replace(report, member=member)
    except FloatingPointError as error:
        failed[member] = error


def joint(
    step: Callable,
    members: int,
    count: int,
    *,
    deterministic: bool = False,
    platform: str | None = None,
) -> Any:
    """Compiles the steps of several members as one function.

    Args:
      step: the pure step.
      members: number of members.
      count: number of steps per call.
      deterministic: see `compilation.jit`.
      platform: see `compilation.jit`.

    Returns:
      Function of (states, resident, batches, keys) that returns a list of (state, metrics).
      `resident` is common to all members; the other arguments are lists with one item per member.
    """
    single = multi_step(step, count) if count > 1 else step

    def call(states, resident, batches, keys):
        stacked = [
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
            for each in (states, batches, keys)
        ]
        out = jax.vmap(lambda state, batch, key: single(state, resident | batch, key))(*stacked)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], out) for i in range(members)]

    return compilation.jit(
        call, donate_argnums=(0,), deterministic=deterministic, platform=platform
    )
