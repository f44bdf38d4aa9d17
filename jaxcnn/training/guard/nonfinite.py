"""Finds the source of a nonfinite loss or gradient: repeats the step and checks every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.training import engine, parallel
from jaxcnn.training.build import Experiment
from jaxcnn.training.clock import Calendar
from jaxcnn.training.state import TrainState

IMAGES = "the images"


def describe(fetched: Mapping[str, Any], first: int) -> tuple[int, str]:
    """Describes the nonfinite steps in the metrics of a call.

    The description does not distinguish loss and gradient: XLA may drop a NaN when it fuses
    max(x, 0) with other operations, so whether the loss is finite depends on the version.

    Args:
      fetched: (sum, count) pairs of the steps from `first` + 1 on.
      first: number of steps before the call.

    Returns:
      (first nonfinite step, description).
    """
    bad = first + 1 + np.flatnonzero(np.atleast_1d(fetched["finite"][0]) == 0)
    which = f"step {bad[0]}" if len(bad) == 1 else f"steps {bad[0]} to {bad[-1]}"
    return int(bad[0]), f"the loss or its gradient is not finite at {which}"


def replay(
    step: int,
    state: TrainState,
    last: int,
    calendar: Calendar,
    make_steps: Callable[[TrainState, int, int], TrainState],
) -> TrainState:
    """Repeats the steps of a run, in the same calls.

    Args:
      step: the step of `state`.
      state: the state to start from.
      last: the last step to repeat.
      calendar: determines the number of steps in each call.
      make_steps: function of (state, step, count) that computes `count` steps.

    Returns:
      The state after step `last`.
    """
    while step < last:
        count = calendar.steps_at_once(step)
        count = count if step + count <= last else 1
        state = make_steps(state, step, count)
        step += count
    return state


def find_nonfinite_layer(
    experiment: Experiment, state: TrainState, batch: Any, key: jax.Array
) -> str:
    """Repeats a step and describes the first layer with nonfinite values.

    Args:
      experiment: the experiment of the run.
      state: the state before the step, on the mesh.
      batch: the batch of the step, on the mesh.
      key: the key of the run.

    Returns:
      The description.
    """
    names: list[str] = []
    plain = experiment.model
    if getattr(plain, "remat", False):
        plain = plain.clone(remat=False)
    model = _MonitoredModel(plain, names)
    pure = engine.pure_step(experiment, model=model, optimizer=_RECORD_GRADIENTS, ema_decay=0.0)
    step = parallel.parallelize(pure, experiment.mode, experiment.mesh)
    before = dataclasses.replace(state, opt_state=())
    after, _ = step(before, batch, parallel.place_state(key, experiment.mesh))
    fractions, gradients = jax.device_get((after.batch_stats, after.opt_state))
    for name, fraction in zip(names, fractions):
        if fraction > 0:
            part = f"{_percent_of(fraction)} {_output(name)}"
            return f"the first values that are not finite are {part}"
    flagged = jax.tree_util.tree_leaves_with_path(gradients)
    bad = {jax.tree_util.keystr(p, simple=True, separator="/"): f for p, f in flagged if f > 0}
    if not bad:
        return "repeated, the step is finite"
    # The backward pass starts from the loss: the last layer in forward order was the first.
    layers = {name: i for i, name in enumerate(names)}
    first = max(bad, key=lambda path: layers.get(path.rpartition("/")[0], -1))
    return (
        f"all activations are finite; back from the loss, the first values that are not are "
        f"{_percent_of(bad[first])} the gradient of {first}"
    )


def _percent_of(fraction: float) -> str:
    return f"{100 * fraction:.3g} % of"


def _output(name: str) -> str:
    return name if name == IMAGES else f"the output of {name}"


def _nonfinite_fraction(x: jax.Array) -> jax.Array:
    return (~jnp.isfinite(x)).mean(dtype=jnp.float32)


# An optimizer without updates; its new state is the fraction of nonfinite values of each gradient.
_RECORD_GRADIENTS = optax.GradientTransformation(
    lambda params: (),
    lambda grads, state, params=None: (
        jax.tree.map(jnp.zeros_like, grads),
        jax.tree.map(_nonfinite_fraction, grads),
    ),
)


class _MonitoredModel:
    """A network whose running statistics are the fractions of nonfinite values in its outputs.

    The training step averages running statistics over devices and microbatches, and so averages
    these fractions.

    Args:
      model: the network.
      names: list that `apply` fills with the paths of the layers, in the order of computation.
    """

    def __init__(self, model: nn.Module, names: list[str]):
        self._model, self._names = model, names

    def apply(self, variables: Any, images: jax.Array, **options: Any) -> tuple[Any, Any]:
        recorded = [(IMAGES, _nonfinite_fraction(images))]

        def record(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__" and isinstance(out, jax.Array):
                name = "/".join(context.module.path) or "the network"
                recorded.append((name, _nonfinite_fraction(out)))
            return out

        with nn.intercept_methods(record):
            logits, changed = self._model.apply(variables, images, **options)
        self._names[:] = [name for name, _ in recorded]
        return logits, {**changed, "batch_stats": [fraction for _, fraction in recorded]}
