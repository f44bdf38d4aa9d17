"""The compiled programs of a run: training steps, evaluation, prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.data import resident
from jaxcnn.evaluation import metrics
from jaxcnn.training import averaging, compiling, parallel
from jaxcnn.training.setup import Setup
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import make_eval_step, make_train_step


def compile_train(
    setup: Setup, state: TrainState, step: int, key: jax.Array, seed: int
) -> tuple[Callable, dict[str, Any]]:
    """Makes `run(state, step, count) -> (state, metrics)` and compiles what it needs first."""
    train_set, batch_size = setup.train_set, setup.batch_size
    size = len(train_set.labels)
    whole = {"images": train_set.images, "labels": train_set.labels}
    whole = parallel.place_batch(whole, setup.mesh)
    key = parallel.place_state(key, setup.mesh)
    pure = make_train_step(
        setup.model,
        setup.optimizer,
        setup.loss,
        prepare=setup.prepare,
        aux_weight=setup.aux_weight,
        accumulate=setup.accumulate,
        ema_decay=setup.ema_decay,
        axis_name=parallel.axis_name(setup.mode),
    )
    programs: dict[int, Callable] = {}
    facts: dict[str, Any] = {}

    def batch_of(step: int, count: int) -> dict[str, Any]:
        steps = range(step, step + count)
        index = np.stack([resident.batch_indices(seed, s, size, batch_size) for s in steps])
        slot = np.broadcast_to(np.arange(batch_size, dtype=np.int32), index.shape)
        batch = {"index": index, "slot": slot}
        if count == 1:
            batch = {name: value[0] for name, value in batch.items()}
        return whole | parallel.place_batch(batch, setup.mesh, stacked=count > 1)

    def program(count: int, *arguments: Any) -> Callable:
        if count not in programs:
            call = parallel.parallelise(pure, setup.mode, setup.mesh, donate=True, steps=count)
            programs[count], memory = _compile(call, setup.mode, *arguments)
            facts.setdefault("memory_bytes", memory)
        return programs[count]

    def run(state: TrainState, step: int, count: int):
        batch = batch_of(step, count)
        return program(count, state, batch, key)(state, batch, key)

    began = time.perf_counter()
    if step < setup.total_steps:
        count = setup.steps_at_once(step)
        program(count, state, batch_of(step, count), key)
    return run, {"seconds": time.perf_counter() - began, **facts}


def _compile(call: Any, mode: str, *arguments: Any) -> tuple[Callable, int | None]:
    """The compiled program and the bytes it takes; `pmap` compiles when first called."""
    if mode == "pmap":
        return call, None
    compiled = call.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        return compiled, None
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return compiled, taken + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def make_evaluate(setup: Setup) -> Callable[[TrainState], dict[str, float]]:
    """Makes the evaluation of a state on the whole test split, every example counted once.

    Where the state has a running average, that is evaluated too, as `ema_loss` and so on.
    """
    size = len(setup.test_set.labels)
    whole = {"images": setup.test_set.images, "labels": setup.test_set.labels}
    whole = parallel.place_batch(whole, setup.mesh)
    axis_name = parallel.axis_name(setup.mode)
    pure = make_eval_step(setup.model, prepare=setup.prepare, axis_name=axis_name)
    step = parallel.parallelise(pure, setup.mode, setup.mesh)

    def evaluate(state: TrainState) -> dict[str, float]:
        row = means(state)
        if state.ema is None:
            return row
        average = means(averaging.averaged(state))
        return row | {f"ema_{name}": value for name, value in average.items()}

    def means(state: TrainState) -> dict[str, float]:
        pairs = [
            step(state, whole | parallel.place_batch(batch, setup.mesh))
            for batch in resident.eval_batches(size, setup.eval_batch_size)
        ]
        return metrics.finalise(metrics.combine(pairs), expected=size)

    return evaluate


def predict(setup: Setup, state: TrainState, limit: int) -> np.ndarray:
    """Predicted classes i32[limit] of the first examples of the test split."""
    images, labels = setup.test_set.images[:limit], setup.test_set.labels[:limit]

    @compiling.jit
    def classes(state, batch):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        ready = setup.prepare(batch, None)
        logits: Any = setup.model.apply(variables, ready["image"], train=False)
        return logits.argmax(-1)

    predicted = []
    for batch in resident.eval_batches(len(labels), setup.eval_batch_size):
        index, mask = batch["index"], batch["mask"]
        out = classes(state, {"image": images[index], "label": labels[index]})
        predicted.append(np.asarray(out)[mask > 0])
    return np.concatenate(predicted)
