"""Builds everything that runs trained together share: data, network, compiled step, evaluation."""

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
from jaxcnn.training.input.sets import Sets
from jaxcnn.training.loop import Engine
from jaxcnn.training.optim.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Shared:
    """The objects that the members of an ensemble share.

    Attributes:
      experiments: the experiment of each member; they differ only in the seeds, the learning rate
        and the device.
      step: the pure step; its key argument is the key of the run, or (key, index of the member) if
        `rates` is set.
      rates: whether the members differ in the learning rate.
    """

    experiments: Sequence[Experiment]
    step: Callable
    rates: bool

    def key(self, member: int, key: jax.Array) -> Any:
        """Returns the key argument of the step for a member, given the key of its run."""
        if not self.rates:
            return key
        mesh = self.experiments[member].mesh
        return key, parallel.place_state(jnp.int32(member), mesh)


def build_shared(
    configs: Sequence[Any],
    *,
    one_device: bool,
    available: Sequence[jax.Device] | None = None,
    opened: Sets | None = None,
) -> Shared:
    """Builds the objects that the members share.

    Args:
      configs: the configuration of each member.
      one_device: whether each member is trained on a single device.
      available: the devices to choose from; by default those that JAX sees.
      opened: see `build_experiment`.

    Raises:
      ValueError: as `build_experiment`, or the members differ in the learning rate, but the
        optimizer sets its rate itself.
    """
    tracked = TrackedConfig(configs[0])
    devices = list(parallel.make_mesh(tracked.train.devices or None, available).devices.flat)
    build = functools.partial(build_experiment, devices=devices, opened=opened)
    if one_device:
        single = copy.deepcopy(configs[0])
        with single.unlocked():
            single.train.update({"devices": 1, "parallel": "jit"})
        first = build(TrackedConfig(single))
        tracked.add_reads(first.config)
    else:
        first = build(tracked)
    rates = len({config.schedule.get("learning_rate") for config in configs}) > 1
    if rates and first.learning_rate is None:
        raise ValueError("the members differ in the learning rate, but the optimizer sets its own")
    experiments = []
    for i, config in enumerate(configs):
        changed: dict[str, Any] = {"config": tracked.with_shared_reads(config)}
        if rates:
            changed["optimizer"], changed["learning_rate"] = make_optimizer(
                config, first.calendar, first.shapes.params
            )
        if one_device:
            changed["mesh"] = _mesh_of(devices[i * len(devices) // len(configs)])
        experiments.append(dataclasses.replace(first, **changed))
    step = _step_with_rates(configs[0], experiments) if rates else engine.pure_step(first)
    return Shared(experiments, step, rates)


def make_engines(shared: Shared, *, lockstep: bool) -> list[Engine]:
    """Makes the engine of each member's run; with `lockstep` it has no `train_step`."""
    first = shared.experiments[0]
    init = engine.make_init(first)
    train_step = engine.compile_train_step(first, pure=shared.step)
    of_mesh: dict[Mesh, dict[str, Any]] = {}
    engines = []
    for member, experiment in enumerate(shared.experiments):
        if experiment.mesh not in of_mesh:
            of_mesh[experiment.mesh] = {
                "eval_step": engine.compile_eval_step(experiment),
                "eval_batches": loaders.eval_loader(experiment),
                "placed": loaders.place_resident(experiment),
            }
        key_of = functools.partial(shared.key, member)
        member_step = None if lockstep else train_step.with_key(key_of)
        engines.append(Engine(init, member_step, **of_mesh[experiment.mesh]))
    return engines


def _step_with_rates(config: Any, experiments: Sequence[Experiment]) -> Callable:
    """Makes a step that computes the rates of all members, and selects that of the member.

    Each rate is computed as in the run trained alone.
    """
    first = experiments[0]

    def step(state, batch, key_and_member):
        key, member = key_and_member

        def member_rate(number: Any) -> jax.Array:
            rates = [experiment.learning_rate for experiment in experiments]
            return jnp.stack([rate(number) for rate in rates if rate is not None])[member]

        schedule: Schedule = member_rate
        transform, _ = make_optimizer(config, first.calendar, first.shapes.params, schedule)
        return engine.pure_step(first, optimizer=transform)(state, batch, key)

    return step


def _mesh_of(device: jax.Device) -> Mesh:
    return jax.make_mesh((1,), (parallel.AXIS,), axis_types=(AxisType.Auto,), devices=[device])
