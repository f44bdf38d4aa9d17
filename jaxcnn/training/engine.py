"""The compiled programs of a run: training steps, evaluation, prediction."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import metrics
from jaxcnn.data.loader import resident
from jaxcnn.layers import without_axis
from jaxcnn.models.costs import count_macs
from jaxcnn.runtime import compilation
from jaxcnn.training import clock as timing
from jaxcnn.training import parallel
from jaxcnn.training.build import Setup
from jaxcnn.training.input import loaders
from jaxcnn.training.state import TrainState, averaged
from jaxcnn.training.step import make_eval_step, make_train_step

_AHEAD = 4  # evaluation batches that are under way


def pure_step(setup: Setup, **changed: Any) -> Callable:
    """The run's `step.make_train_step`; `changed` are arguments of it."""
    arguments = {
        "model": setup.model,
        "optimizer": setup.optimizer,
        "loss": setup.loss,
        "prepare": setup.prepare,
        "aux_weight": setup.aux_weight,
        "box_weight": setup.box_weight,
        "accumulate": setup.accumulate,
        "ema_decay": setup.ema_decay,
        "axis_name": parallel.axis_name(setup.mode),
    }
    return make_train_step(**arguments | changed)


def compile_train(
    setup: Setup,
    state: TrainState,
    step: int,
    key: Any,
    feed: loaders.Feed,
    *,
    pure: Callable | None = None,
    programs: dict[int, Callable] | None = None,
) -> tuple[Callable, dict[str, Any]]:
    """Makes `run(state, step, count) -> (state, metrics)` and compiles what it needs first.

    `pure` is the step, `pure_step(setup)` if None; in `programs` what is compiled is kept for
    further runs that are made of the same parts.
    """
    key = parallel.place_state(key, setup.mesh)
    pure = pure_step(setup) if pure is None else pure
    programs = {} if programs is None else programs
    facts: dict[str, Any] = {}
    first: dict[int, loaders.Batch] = {}  # the batch that is compiled for is the first one used

    def program(count: int, *arguments: Any) -> Callable:
        if count not in programs:
            call = parallel.parallelise(
                pure,
                setup.mode,
                setup.mesh,
                donate=True,
                steps=count,
                deterministic=setup.deterministic,
            )
            programs[count], memory = _compile(call, setup.mode, *arguments)
            facts.setdefault("memory_bytes", memory)
        return programs[count]

    def run(state: TrainState, step: int, count: int):
        batch = first.pop(step, None) or feed.batch(step, count)
        return program(count, state, batch, key)(state, batch, key)

    began = time.perf_counter()
    if step < setup.total_steps:
        count = setup.steps_at_once(step)
        first[step] = feed.batch(step, count)
        program(count, state, first[step], key)
    facts["seconds"] = time.perf_counter() - began
    if step < setup.total_steps:
        facts |= work(setup)
    return run, facts


def work(setup: Setup) -> dict[str, float]:
    """What a step has to compute, and how many images a second that allows at most.

    `flops`: six for each multiply-add of the network's convolutions and products and each image,
    two of the forward and four of the backward pass. `images_per_second_at_most`: if all devices
    computed them as fast as this process's first multiplies large matrices in the type of the
    computation, measured now.
    """
    variables = {"params": setup.shapes.params, "batch_stats": setup.shapes.batch_stats}
    images = jax.ShapeDtypeStruct(setup.image_shape, jnp.float32)
    forward = functools.partial(without_axis(setup.model).apply, train=False)
    flops = 6 * count_macs(forward, variables, images)
    rate = timing.product_rate(getattr(setup.model, "dtype", jnp.float32))
    return {
        "flops": flops * setup.batch_size,
        "images_per_second_at_most": setup.mesh.size * rate / flops,
    }


def _compile(call: Any, mode: str, *arguments: Any) -> tuple[Callable, int | None]:
    """The compiled program and the bytes it takes; `pmap` compiles when first called."""
    if mode == "pmap":
        return call, None
    compiled = call.lower(*arguments).compile()
    return compiled, compilation.memory_bytes(compiled)


def make_evaluate(setup: Setup) -> Callable[[TrainState], dict[str, float]]:
    """Makes the evaluation of a state on the whole test split, every example counted once.

    Where the state has a running average, that is evaluated too, as `ema_loss` and so on.
    """
    batches = loaders.open_test(setup)
    axis_name = parallel.axis_name(setup.mode)
    pure = make_eval_step(
        setup.model, prepare=setup.prepare, boxes=bool(setup.box_weight), axis_name=axis_name
    )
    step = parallel.parallelise(pure, setup.mode, setup.mesh)

    def evaluate(state: TrainState) -> dict[str, float]:
        states = {"": state}
        if state.ema is not None:
            states["ema_"] = averaged(state)
        pairs: dict[str, list] = {prefix: [] for prefix in states}
        for batch in batches():
            for prefix, now in states.items():
                pairs[prefix].append(step(now, batch))
            if len(pairs[""]) > _AHEAD:  # else every batch of a large set may wait on the device
                jax.block_until_ready(pairs[""][-_AHEAD])
        row: dict[str, float] = {}
        for prefix, found in pairs.items():
            means = metrics.finalise(metrics.combine(found), expected=len(setup.test_set))
            row |= {prefix + name: value for name, value in means.items()}
        return row

    return evaluate


def predict(setup: Setup, state: TrainState, limit: int) -> np.ndarray:
    """Predicted classes i32[limit] of the first examples of the test split."""
    images, labels = loaders.first_examples(setup, limit)

    @compilation.jit
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
