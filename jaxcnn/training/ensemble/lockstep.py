"""In which order runs that are trained as one make their steps: in turn, or together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcnn.reporting.report import Report
from jaxcnn.runtime import compilation
from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training.ensemble.shared import Shared
from jaxcnn.training.parts import Ask
from jaxcnn.training.step import RESIDENT, multi_step


def in_turn(
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


def together(
    runs: Sequence[Generator], shared: Shared, failed: dict[int, FloatingPointError]
) -> Iterator[Report]:
    """Lets every run go on to its next steps, makes those of all runs, and so on to the end.

    A run that is behind, as after a kill between two checkpoints, first catches up. The program of
    a device always has a place for each of its runs, since one of another size rounds otherwise;
    the place of a run that does not take part is filled with another's steps.
    """
    lanes: dict[Mesh, list[int]] = {}
    for i, setup in enumerate(shared.setups):
        lanes.setdefault(setup.mesh, []).append(i)
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
            programs_of[members, count] = joint(shared.step, members, count)
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
        for mesh, group in groups.items():
            first = waiting[group[0]]
            asks = [waiting.pop(i) if i in group else _again(first) for i in lanes[mesh]]
            resident = {k: v for k, v in first.batch.items() if k in RESIDENT}
            own = [{k: v for k, v in a.batch.items() if k not in RESIDENT} for a in asks]
            run = program(len(asks), first.count)
            made = run([a.state for a in asks], resident, own, [a.key for a in asks])
            answers += [(i, one) for i, one in zip(lanes[mesh], made) if i in group]
        for i, answer in answers:
            yield from advance(i, answer)


def _again(ask: Ask) -> Ask:
    """The same steps; the state is a copy, since the program takes its memory."""
    return dataclasses.replace(ask, state=jax.tree.map(jnp.copy, ask.state))


def joint(step: Callable, members: int, count: int) -> Callable:
    """Compiles the step, or `count` steps, of so many members: lists in, a list of results out."""
    one = multi_step(step, count) if count > 1 else step

    def call(states, resident, batches, keys):
        stacked = [
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
            for each in (states, batches, keys)
        ]
        made = jax.vmap(lambda state, batch, key: one(state, resident | batch, key))(*stacked)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], made) for i in range(members)]

    return compilation.jit(call, donate_argnums=(0,))
