"""The compiled programs of a run: the training step, evaluation, prediction.

They take batches and fetch none: where batches come from is `input.loaders`.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import metrics
from jaxcnn.layers import without_axis
from jaxcnn.models.costs import count_macs
from jaxcnn.runtime import compilation
from jaxcnn.training import parallel
from jaxcnn.training.build import Experiment
from jaxcnn.training.state import TrainState, averaged, initializer
from jaxcnn.training.step import make_eval_step, make_train_step

Batch = Mapping[str, Any]
Pairs = dict[str, tuple[jax.Array, jax.Array]]
_AHEAD = 4  # evaluation batches that are under way


def pure_step(experiment: Experiment, **changed: Any) -> Callable:
    """The experiment's `step.make_train_step`; `changed` are arguments of it."""
    arguments = {
        "model": experiment.model,
        "optimizer": experiment.optimizer,
        "loss": experiment.loss,
        "preprocess": experiment.preprocess,
        "aux_weight": experiment.aux_weight,
        "box_weight": experiment.box_weight,
        "accumulate": experiment.config.train.accumulate,
        "ema_decay": experiment.config.train.ema_decay,
        "axis_name": parallel.axis_name(experiment.mode),
    }
    return make_train_step(**arguments | changed)


class TrainStep:
    """`step(state, batch, key) -> (state, metrics)`, compiled on its first call.

    A batch of several steps is stacked, [steps, N, ...], and has a program of its own. The state's
    memory is taken; metrics are (sum, count) pairs on the device.
    """

    def __init__(self, experiment: Experiment, pure: Callable):
        self._pure, self._mode, self._mesh = pure, experiment.mode, experiment.mesh
        self._deterministic = experiment.config.train.deterministic
        self._programs: dict[int, Callable] = {}
        self._memory: dict[int, int | None] = {}
        self._key_of: Callable[[Any], Any] = lambda key: key

    def with_key(self, key_of: Callable[[Any], Any]) -> TrainStep:
        """The same programs, called with `key_of(key)` as the key."""
        other = copy.copy(self)
        other._key_of = key_of
        return other

    def __call__(self, state: TrainState, batch: Batch, key: Any) -> tuple[TrainState, Pairs]:
        key = self._key_of(key)
        return self._program(state, batch, key)(state, batch, key)

    def compile(self, state: TrainState, batch: Batch, key: Any) -> dict[str, Any]:
        """Compiles for such arguments: `seconds`, and `memory_bytes` that the program takes.

        `memory_bytes` is None where it is not known, and missing if the program was there.
        """
        began = time.perf_counter()
        known = len(self._programs)
        self._program(state, batch, self._key_of(key))
        facts: dict[str, Any] = {"seconds": time.perf_counter() - began}
        if len(self._programs) > known:
            facts["memory_bytes"] = self._memory[step_count(batch)]
        return facts

    def _program(self, *arguments: Any) -> Callable:
        count = step_count(arguments[1])
        if count not in self._programs:
            call: Any = parallel.parallelize(
                self._pure,
                self._mode,
                self._mesh,
                donate=True,
                steps=count,
                deterministic=self._deterministic,
            )
            self._memory[count] = None
            if self._mode != "pmap":  # which compiles when it is first called
                call = call.lower(*arguments).compile()
                self._memory[count] = compilation.memory_bytes(call)
            self._programs[count] = call
        return self._programs[count]


def step_count(batch: Batch) -> int:
    """How many steps a batch is for: 1, or the length of its leading axis if it is stacked."""
    slot = batch["slot"]
    return slot.shape[0] if slot.ndim > 1 else 1


def compile_train_step(experiment: Experiment, *, pure: Callable | None = None) -> TrainStep:
    """The training step of an experiment; `pure` takes the place of its `pure_step`."""
    return TrainStep(experiment, pure_step(experiment) if pure is None else pure)


def compile_eval_step(experiment: Experiment) -> Callable[[TrainState, Batch], Pairs]:
    """`step(state, batch)` gives the (sum, count) pairs of an evaluation batch, on the device."""
    pure = make_eval_step(
        experiment.model,
        preprocess=experiment.preprocess,
        boxes=bool(experiment.box_weight),
        axis_name=parallel.axis_name(experiment.mode),
    )
    return parallel.parallelize(pure, experiment.mode, experiment.mesh)


def compile_init(experiment: Experiment) -> Callable[[jax.Array], TrainState]:
    """The state before the first step as a function of the key, compiled once for any keys."""
    ema = bool(experiment.config.train.ema_decay)
    return initializer(experiment.model, experiment.optimizer, experiment.image_shape, ema=ema)


def evaluate(
    eval_step: Callable[[TrainState, Batch], Pairs],
    state: TrainState,
    batches: Iterable[Batch],
    expected: int,
) -> dict[str, float]:
    """Means over the batches; where the state has a running average, also `ema_loss` and so on.

    Raises:
      ValueError: a metric did not count exactly `expected` examples.
    """
    states = {"": state}
    if state.ema is not None:
        states["ema_"] = averaged(state)
    pairs: dict[str, list] = {prefix: [] for prefix in states}
    for batch in batches:
        for prefix, now in states.items():
            pairs[prefix].append(eval_step(now, batch))
        if len(pairs[""]) > _AHEAD:  # else every batch of a large set may wait on the device
            jax.block_until_ready(pairs[""][-_AHEAD])
    row: dict[str, float] = {}
    for prefix, listed in pairs.items():
        means = metrics.finalize(metrics.combine(listed), expected=expected)
        row |= {prefix + name: value for name, value in means.items()}
    return row


def predict(
    experiment: Experiment, state: TrainState, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Predicted classes i32[N] of test images u8[N,H,W,C]; the labels only pass through."""

    @compilation.jit
    def classes(state, batch):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        ready = experiment.preprocess(batch, None)
        logits: Any = experiment.model.apply(variables, ready["image"], train=False)
        return logits.argmax(-1)

    size = experiment.config.eval.batch_size
    predicted = []
    for start in range(0, len(labels), size):
        index = np.arange(start, start + size)
        index[index >= len(labels)] = 0  # one shape, one program
        batch = {"image": images[index], "label": labels[index]}
        predicted.append(np.asarray(classes(state, batch)))
    return np.concatenate(predicted)[: len(labels)]


def step_cost(experiment: Experiment) -> dict[str, float]:
    """What a step has to compute, and how many images a second that allows at most.

    `flops`: six for each multiply-add of the network's convolutions and products and each image,
    two of the forward and four of the backward pass. `roofline_images_per_second`: if all devices
    computed them as fast as this process's first multiplies large matrices in the type of the
    computation, measured now.
    """
    shapes = experiment.shapes
    variables = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    images = jax.ShapeDtypeStruct(experiment.image_shape, jnp.float32)
    forward = functools.partial(without_axis(experiment.model).apply, train=False)
    flops = 6 * count_macs(forward, variables, images)
    rate = _matmul_rate(getattr(experiment.model, "dtype", jnp.float32))
    return {
        "flops": flops * experiment.calendar.batch_size,
        "roofline_images_per_second": experiment.mesh.size * rate / flops,
    }


def _matmul_rate(dtype: Any) -> float:
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
