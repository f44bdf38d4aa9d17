"""A loss or gradient that was not finite: the step is repeated, and every layer looked at."""

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
    """(step, what was not finite in which steps) of the metrics of the steps from first + 1 on.

    Which of loss and gradient it was is not said: XLA may drop a NaN where max(x, 0) is fused with
    what follows, so that one version's loss is finite and another's is not.
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
    """The state after the step `last`, from that of an earlier one.

    `make_steps(state, step, count)` makes `count` steps, in the same calls as the run made.
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
    """Which layer's values were the first that are not finite, in words.

    Args:
      experiment: of the run.
      state: before the step, on the mesh.
      batch: of the step, on the mesh.
      key: of the run.
    """
    names: list[str] = []
    model = _Watched(experiment.model.clone(remat=False), names)
    pure = engine.pure_step(experiment, model=model, optimizer=_WATCHING, ema_decay=0.0)
    step = parallel.parallelize(pure, experiment.mode, experiment.mesh)
    before = dataclasses.replace(state, opt_state=())
    after, _ = step(before, batch, parallel.place_state(key, experiment.mesh))
    shares, gradients = jax.device_get((after.batch_stats, after.opt_state))
    for name, share in zip(names, shares):
        if share > 0:
            return f"the first values that are not finite are {_of(share)} {_output(name)}"
    flagged = jax.tree_util.tree_leaves_with_path(gradients)
    bad = {jax.tree_util.keystr(p, simple=True, separator="/"): s for p, s in flagged if s > 0}
    if not bad:
        return "repeated, the step is finite"
    # Backwards from the loss: the layer that came last.
    layers = {name: i for i, name in enumerate(names)}
    worst = max(bad, key=lambda path: layers.get(path.rpartition("/")[0], -1))
    return (
        f"all activations are finite; back from the loss, the first values that are not are "
        f"{_of(bad[worst])} the gradient of {worst}"
    )


def _of(share: float) -> str:
    return f"{100 * share:.3g} % of"


def _output(name: str) -> str:
    return name if name == IMAGES else f"the output of {name}"


def _share_bad(x: jax.Array) -> jax.Array:
    return (~jnp.isfinite(x)).mean(dtype=jnp.float32)


# Gives the shares of values that are not finite in the place of its state, and no updates.
_WATCHING = optax.GradientTransformation(
    lambda params: (),
    lambda grads, state, params=None: (
        jax.tree.map(jnp.zeros_like, grads),
        jax.tree.map(_share_bad, grads),
    ),
)


class _Watched:
    """A network whose running statistics are the shares of values that are not finite.

    As a step takes the mean of running statistics over devices and parts of a batch, it does of
    these; `names` then has what they are of, in the order of computation.
    """

    def __init__(self, model: nn.Module, names: list[str]):
        self._model, self._names = model, names

    def apply(self, variables: Any, images: jax.Array, **options: Any) -> tuple[Any, Any]:
        found = [(IMAGES, _share_bad(images))]

        def watch(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__" and isinstance(out, jax.Array):
                found.append(("/".join(context.module.path) or "the network", _share_bad(out)))
            return out

        with nn.intercept_methods(watch):
            logits, changed = self._model.apply(variables, images, **options)
        self._names[:] = [name for name, _ in found]
        return logits, {**changed, "batch_stats": [share for _, share in found]}
