"""Drives several runs with one compiled step under `vmap`."""

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
    """Trains runs of equal shapes; a report's `member` counts them.

    A run that is behind, as after a kill between two checkpoints, first catches up. A run whose
    loss is not finite is put into `failed`, and the others go on.

    Args:
      runs: not entered yet; each has its device.
      step: the pure step.
      keys: what the step takes as the key, of each run.
      failed: {member: what went wrong}, added to.
    """
    lockstep = _Lockstep(runs, step, keys)
    with contextlib.ExitStack() as opened:
        for member, run in enumerate(runs):
            opened.enter_context(run)
            yield from _of_member(member, run.begin())
        alive = dict(enumerate(runs))
        while alive:
            behind = min(run.step for run in alive.values())
            now = {member: run for member, run in alive.items() if run.step == behind}
            for member, run in list(now.items()):
                if run.finished():
                    del alive[member], now[member]
                    yield from _of_member(member, run.end())
            for member, made in lockstep.make_steps(now).items():
                runs[member].state, metrics = made
                try:
                    yield from _of_member(member, runs[member].after_step(metrics))
                except FloatingPointError as error:
                    failed[member] = error
                    del alive[member]


class _Lockstep:
    """Makes the steps of runs that are equally far, with one program on each device.

    The program of a device always has a place for each of its runs, since one of another size
    rounds otherwise; the place of a run that does not take part is filled with another's steps.
    """

    def __init__(self, runs: Sequence[Run], step: Callable, keys: Sequence[Any]):
        self._step, self._keys = step, keys
        self._members: dict[Mesh, list[int]] = {}
        for member, run in enumerate(runs):
            self._members.setdefault(run.experiment.mesh, []).append(member)
        self._programs: dict[tuple[int, int], Callable] = {}

    def make_steps(self, now: dict[int, Run]) -> dict[int, tuple[Any, Any]]:
        """{member: (state, metrics)} after the next steps, of no device waited for."""
        made: dict[int, tuple[Any, Any]] = {}
        for members in self._members.values():
            present = [member for member in members if member in now]
            if present:
                made |= self._on_one_device(members, {m: now[m] for m in present})
        return made

    def _on_one_device(self, members: list[int], now: dict[int, Run]) -> dict[int, Any]:
        batches = {member: run.next_batch() for member, run in now.items()}
        first = next(iter(now))
        count = now[first].calendar.steps_at_once(now[first].step)
        resident = {k: v for k, v in batches[first].items() if k in RESIDENT}
        # The program takes the states' memory: who only fills a place gets a copy.
        states = [
            now[m].state if m in now else jax.tree.map(jnp.copy, now[first].state) for m in members
        ]
        chosen = [batches[m if m in now else first] for m in members]
        own = [{k: v for k, v in batch.items() if k not in RESIDENT} for batch in chosen]
        keys = [self._keys[m if m in now else first] for m in members]
        made = self._program(len(members), count)(states, resident, own, keys)
        return {member: one for member, one in zip(members, made) if member in now}

    def _program(self, members: int, count: int) -> Callable:
        if (members, count) not in self._programs:
            self._programs[members, count] = joint(self._step, members, count)
        return self._programs[members, count]


def _of_member(member: int, reports: Iterator[Report]) -> Iterator[Report]:
    return (dataclasses.replace(report, member=member) for report in reports)


def joint(step: Callable, members: int, count: int) -> Callable:
    """Compiles the step, or `count` steps, of all members: lists in, a list of results out."""
    one = multi_step(step, count) if count > 1 else step

    def call(states, resident, batches, keys):
        stacked = [
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
            for each in (states, batches, keys)
        ]
        made = jax.vmap(lambda state, batch, key: one(state, resident | batch, key))(*stacked)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], made) for i in range(members)]

    return compilation.jit(call, donate_argnums=(0,))
