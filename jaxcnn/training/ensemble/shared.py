"""What runs that are trained as one share: data, network, compiled step, evaluation."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Experiment, build_experiment, make_optimizer
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.input import loaders
from jaxcnn.training.loop import Programs
from jaxcnn.training.optim.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Shared:
    """What the members of an ensemble have in common.

    Attributes:
      experiments: one a member; they differ in the configuration's seeds, the learning rate and
        the device only.
      step: the pure step; its key is that of the run, with `rates` (key, number of the member).
      rates: whether the members differ in the learning rate.
    """

    experiments: Sequence[Experiment]
    step: Callable
    rates: bool

    def key(self, member: int, key: jax.Array) -> Any:
        """What the step takes as the key, of a member's run."""
        if not self.rates:
            return key
        mesh = self.experiments[member].mesh
        return key, parallel.place_state(jnp.int32(member), mesh)


def share(configs: Sequence[Any], *, one_device: bool) -> Shared:
    """Builds what the members share; with `one_device` each is on one device."""
    tracked = TrackedConfig(configs[0])
    devices = list(parallel.make_mesh(tracked.train.devices or None).devices.flat)
    if one_device:
        single = copy.deepcopy(configs[0])
        with single.unlocked():
            single.train.update({"devices": 1, "parallel": "jit"})
        first = build_experiment(TrackedConfig(single))
        tracked.share(first.config)
    else:
        first = build_experiment(tracked)
    rates = len({config.schedule.get("learning_rate") for config in configs}) > 1
    if rates and first.learning_rate is None:
        raise ValueError("the members differ in the learning rate, and the optimizer has its own")
    experiments = []
    for i, config in enumerate(configs):
        changed: dict[str, Any] = {"config": tracked.of(config)}
        if rates:
            changed["optimizer"], changed["learning_rate"] = make_optimizer(
                config, first.calendar, first.shapes.params
            )
        if one_device:
            changed["mesh"] = _mesh_of(devices[i * len(devices) // len(configs)])
        experiments.append(dataclasses.replace(first, **changed))
    step = _step_of_rates(configs[0], experiments) if rates else engine.pure_step(first)
    return Shared(experiments, step, rates)


def make_programs(shared: Shared, *, lockstep: bool) -> list[Programs]:
    """The programs of each member's run; with `lockstep` without a step of its own."""
    first = shared.experiments[0]
    init = engine.compile_init(first)
    train_step = engine.compile_train_step(first, pure=shared.step)
    evaluations: dict[Mesh, tuple[Callable, Callable]] = {}
    programs = []
    for member, experiment in enumerate(shared.experiments):
        if experiment.mesh not in evaluations:
            evaluations[experiment.mesh] = (
                engine.compile_eval_step(experiment),
                loaders.eval_loader(experiment),
            )
        key_of = functools.partial(shared.key, member)
        own = None if lockstep else train_step.with_key(key_of)
        programs.append(Programs(init, own, *evaluations[experiment.mesh]))
    return programs


def _step_of_rates(config: Any, experiments: Sequence[Experiment]) -> Callable:
    """The step for different rates: each is there as the run alone has it; the member chooses."""
    first = experiments[0]

    def step(state, batch, key_and_member):
        key, member = key_and_member

        def rate(now: Any) -> jax.Array:
            own = [one.learning_rate for one in experiments]
            return jnp.stack([rate(now) for rate in own if rate is not None])[member]

        chosen: Schedule = rate
        transform, _ = make_optimizer(config, first.calendar, first.shapes.params, chosen)
        return engine.pure_step(first, optimizer=transform)(state, batch, key)

    return step


def _mesh_of(device: jax.Device) -> Mesh:
    return jax.make_mesh((1,), (parallel.AXIS,), axis_types=(AxisType.Auto,), devices=[device])
