"""The compiled functions of a run: the training step, evaluation, prediction.

They receive batches as arguments; `input.loaders` provides the batches.
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
_AHEAD = 4  # evaluation batches dispatched before waiting for the device


def pure_step(experiment: Experiment, **changed: Any) -> Callable:
    """Makes the training step of an experiment, not compiled.

    Args:
      experiment: the experiment.
      **changed: arguments of `step.make_train_step` that replace those of the experiment.
    """
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
        "reduce_dtype": experiment.config.train.reduce_dtype,
    }
    return make_train_step(**arguments | changed)


class TrainStep:
    """`step(state, batch, key) -> (state, metrics)`, compiled on its first call.

    A stacked batch, [steps, N, ...], computes several steps with a separate executable. The memory
    of the old state is reused. The metrics are (sum, count) pairs on the device.

    Args:
      experiment: provides the devices and the parallel mode.
      pure: the step to compile.
    """

    def __init__(self, experiment: Experiment, pure: Callable):
        self._pure, self._mode, self._mesh = pure, experiment.mode, experiment.mesh
        self._deterministic = experiment.config.train.deterministic
        self._compiled: dict[int, Callable] = {}
        self._memory: dict[int, int | None] = {}
        self._key_of: Callable[[Any], Any] = lambda key: key

    def with_key(self, key_of: Callable[[Any], Any]) -> TrainStep:
        """Returns a step that shares the executables and calls them with `key_of(key)`."""
        other = copy.copy(self)
        other._key_of = key_of
        return other

    def __call__(self, state: TrainState, batch: Batch, key: Any) -> tuple[TrainState, Pairs]:
        """Computes the step; compiles it first, if necessary."""
        key = self._key_of(key)
        return self._executable(state, batch, key)(state, batch, key)

    def compile(self, state: TrainState, batch: Batch, key: Any) -> dict[str, Any]:
        """Compiles the step for arguments of these shapes, unless it is compiled already.

        Returns:
          `seconds` of compilation, and `memory_bytes` of the executable: None if unknown, absent if
          it was compiled already.
        """
        start = time.perf_counter()
        count = len(self._compiled)
        self._executable(state, batch, self._key_of(key))
        facts: dict[str, Any] = {"seconds": time.perf_counter() - start}
        if len(self._compiled) > count:
            facts["memory_bytes"] = self._memory[step_count(batch)]
        return facts

    def lower(self, state: Any, batch: Any, key: Any) -> jax.stages.Lowered:
        """Lowers the step for arguments of these shapes, types and placements."""
        return self._parallelized(step_count(batch)).lower(state, batch, self._key_of(key))

    def _executable(self, *arguments: Any) -> Callable:
        count = step_count(arguments[1])
        if count not in self._compiled:
            call = self._parallelized(count)
            self._memory[count] = None
            # pmap compiles on its first call, and JAX_DISABLE_JIT evaluates one operation at a time
            eager = jax.config.jax_disable_jit  # type: ignore[attr-defined]
            if self._mode != "pmap" and not eager:
                call = call.lower(*arguments).compile()
                self._memory[count] = compilation.memory_bytes(call)
            self._compiled[count] = call
        return self._compiled[count]

    def _parallelized(self, count: int) -> Any:
        return parallel.parallelize(
            self._pure,
            self._mode,
            self._mesh,
            donate=True,
            steps=count,
            deterministic=self._deterministic,
        )


def step_count(batch: Batch) -> int:
    """Number of steps in a batch: 1, or the length of the leading axis if it is stacked."""
    slot = batch["slot"]
    return slot.shape[0] if slot.ndim > 1 else 1


def compile_train_step(experiment: Experiment, *, pure: Callable | None = None) -> TrainStep:
    """Makes the training step of an experiment; `pure` replaces its `pure_step`."""
    return TrainStep(experiment, pure_step(experiment) if pure is None else pure)


def compile_eval_step(experiment: Experiment) -> Any:
    """Makes `step(state, batch)`, which returns the (sum, count) pairs of an evaluation batch.

    It has `.lower(...).compile()`.
    """
    pure = make_eval_step(
        experiment.model,
        preprocess=experiment.preprocess,
        boxes=bool(experiment.box_weight),
        axis_name=parallel.axis_name(experiment.mode),
    )
    return parallel.parallelize(pure, experiment.mode, experiment.mesh)


def make_init(experiment: Experiment) -> Callable[[jax.Array], TrainState]:
    """Makes the function from key to initial state."""
    ema = bool(experiment.config.train.ema_decay)
    return initializer(experiment.model, experiment.optimizer, experiment.image_shape, ema=ema)


def evaluate(
    eval_step: Callable[[TrainState, Batch], Pairs],
    state: TrainState,
    batches: Iterable[Batch],
    expected: int,
) -> dict[str, float]:
    """Evaluates a state.

    Args:
      eval_step: (state, batch) to (sum, count) pairs.
      state: the training state.
      batches: the evaluation batches.
      expected: number of examples that every metric must count.

    Returns:
      {metric: mean over the examples}; if the state has a running average of the weights, also its
      metrics, with the prefix "ema_".

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
        if len(pairs[""]) > _AHEAD:  # otherwise all batches of a large set may queue on the device
            jax.block_until_ready(pairs[""][-_AHEAD])
    row: dict[str, float] = {}
    for prefix, batch_pairs in pairs.items():
        means = metrics.finalize(metrics.combine(batch_pairs), expected=expected)
        row |= {prefix + name: value for name, value in means.items()}
    return row


def predict(
    experiment: Experiment, state: TrainState, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Predicts the classes of test images.

    Args:
      experiment: provides the network and the preprocessing.
      state: the training state.
      images: u8[N,H,W,C].
      labels: i32[N]; the preprocessing needs them, the prediction does not depend on them.

    Returns:
      The predicted classes, i32[N].
    """

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
        index[index >= len(labels)] = 0  # pads to one shape, for a single compilation
        batch = {"image": images[index], "label": labels[index]}
        predicted.append(np.asarray(classes(state, batch)))
    return np.concatenate(predicted)[: len(labels)]


def step_cost(experiment: Experiment) -> dict[str, float]:
    """Estimates the cost of a training step.

    Returns:
      `flops` of a step: for each image and each multiply-add of a convolution or dense layer, two
      in the forward and four in the backward pass. `roofline_images_per_second`: an upper bound on
      throughput, if every device computed at the rate of a large matrix product in the compute
      dtype, which is measured here on one device.
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


@functools.cache
def _matmul_rate(dtype: Any) -> float:
    """Measures the FLOP/s of a large matrix product on the default device, best of three."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()

    def seconds() -> float:
        start = time.perf_counter()
        product(x, x).block_until_ready()
        return time.perf_counter() - start

    return 2 * side**3 / min(seconds() for _ in range(3))
