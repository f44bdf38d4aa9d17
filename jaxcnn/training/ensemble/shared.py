"""What runs that are trained as one share: data, network, compiled step, evaluation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

from jaxcnn.runtime.stop import StopSignals
from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Setup, make_setup
from jaxcnn.training.config import Recorded
from jaxcnn.training.optim import optimizers
from jaxcnn.training.optim.schedules import Schedule
from jaxcnn.training.parts import Ask, Parts
from jaxcnn.training.state import initialiser


@dataclasses.dataclass(frozen=True)
class Shared:
    """`setups`, one a member, differ in the learning rate and the device only.

    `step` is the pure step; its key is that of the run, with `rates` (key, number of the member).
    `fields` knows what has been read of the configuration.
    """

    fields: Recorded
    setups: Sequence[Setup]
    step: Callable
    rates: bool


def share(configs: Sequence[Any], *, alone: bool) -> Shared:
    """Makes what the members share; with `alone` each is on one device."""
    fields = Recorded(configs[0])
    devices = list(parallel.make_mesh(fields.train.devices or None).devices.flat)
    if alone:
        single = copy.deepcopy(configs[0])
        with single.unlocked():
            single.train.update({"devices": 1, "parallel": "jit"})
        one = Recorded(single)
        setup = make_setup(one)
        fields.share(one)
    else:
        setup = make_setup(fields)
    rates = len({config.schedule.learning_rate for config in configs}) > 1

    def optimizer(config: Any, rate: Schedule | None = None):
        return optimizers.make_optimizer(
            config.optimizer,
            config.schedule,
            setup.total_steps,
            len(setup.train_set) / setup.batch_size,
            setup.shapes.params,
            batch_size=setup.batch_size,
            rate=rate,
        )

    setups = []
    for i, config in enumerate(configs):
        changed: dict[str, Any] = {}
        if rates:
            changed["optimizer"], changed["rate"] = optimizer(config)
        if alone:
            changed["mesh"] = _mesh_of(devices[i * len(devices) // len(configs)])
        setups.append(dataclasses.replace(setup, **changed))

    def step(state, batch, key_and_member):
        """Every member's rate is there as the run alone has it; the member chooses."""
        key, member = key_and_member
        transform, _ = optimizer(
            configs[0], lambda now: jnp.stack([one.rate(now) for one in setups])[member]
        )
        return engine.pure_step(setup, optimizer=transform)(state, batch, key)

    return Shared(fields, setups, step if rates else engine.pure_step(setup), rates)


def _mesh_of(device: jax.Device) -> Mesh:
    return jax.make_mesh((1,), (parallel.AXIS,), axis_types=(AxisType.Auto,), devices=[device])


def make_parts(shared: Shared, by: str, stop: StopSignals) -> list[Parts]:
    """The parts of each member's run."""
    first = shared.setups[0]
    ema = bool(first.ema_decay)
    begin = initialiser(first.model, first.optimizer, first.image_shape, ema=ema)
    compiled: dict[int, Callable] = {}
    evaluations: dict[Mesh, Callable] = {}

    def evaluate(setup: Setup) -> Callable:
        if setup.mesh not in evaluations:
            evaluations[setup.mesh] = engine.make_evaluate(setup)
        return evaluations[setup.mesh]

    def part(member: int) -> Parts:
        def setup(fields: Recorded) -> Setup:
            fields.share(shared.fields)
            return shared.setups[member]

        def compile_train(setup, state, step, key, feed):
            key = (key, jnp.int32(member)) if shared.rates else key
            if by == "turn":
                return engine.compile_train(
                    setup, state, step, key, feed, pure=shared.step, programs=compiled
                )
            key = parallel.place_state(key, setup.mesh)

            def ask(state, step, count):
                return Ask(state, feed.batch(step, count), key, step, count)

            return ask, {"seconds": 0.0}

        return Parts(
            make_setup=setup,
            begin=lambda setup, key: begin(key),
            compile_train=compile_train,
            make_evaluate=evaluate,
            stop=lambda: contextlib.nullcontext(stop),
            alone=False,
        )

    return [part(i) for i in range(len(shared.setups))]
