"""The pure steps: (state, batch, key) to (state, metrics).

A step processes one device's shard of the batch. On several devices, `axis_name` names the axis
over which gradients, running statistics and metrics are averaged; the loss is always a mean over
the shard, and its gradients are averaged explicitly.

A batch is a dictionary. Each example has `image` and `label`, or an `index` into a set that resides
on the device as `images` u8[size,H,W,C] and `labels` i32[size]; `slot`, its position in the whole
batch; and `mask`, 0 for padding. A preprocessed batch may also have soft targets, `target`
f32[N,K]. If boxes are learned, each example has a `box` f32[N,M,4], and the resident set has
`boxes` f32[size,M,4].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxcnn import metrics, ops
from jaxcnn.training.input.preprocess import Batch, Preprocess, gather
from jaxcnn.training.optim import losses
from jaxcnn.training.state import TrainState, follow

Array = jax.Array
Loss = Callable[[Array, Array], Array]

# Entries replicated on every device; all others are split over the devices by example.
RESIDENT = ("images", "labels", "boxes")
STEPS, MICROBATCHES = "steps", "microbatches"  # names of the loops, in compiled programs as well
# No slot has this number, so the dropout key differs from every augmentation key.
_DROPOUT = np.uint32(0xFFFFFFFF)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss = losses.cross_entropy,
    *,
    preprocess: Preprocess = gather,
    aux_weight: float = 0.0,
    box_weight: float = 0.0,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
    reduce_dtype: Any = None,
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, tuple[Array, Array]]]]:
    """Makes `step(state, batch, key) -> (state, metrics)`.

    Args:
      model: the network; `model.apply(variables, images, train=True)` returns logits f32[N,K].
      optimizer: the optax transform.
      loss: (logits f32[N,K], labels i32[N] or f32[N,K]) to f32[N].
      preprocess: (batch, keys [N]) to {"image": f32[N,H,W,C], "label": i32[N]}, and "target"
        f32[N,K] for a loss with soft targets. It gathers, augments and normalizes the images. The
        key of an example depends only on the key of the run, the step and the slot, so the result
        does not depend on the number of devices.
      aux_weight: weight of the loss of each auxiliary head; with 0 the heads are not computed.
      box_weight: weight of the loss of the box head, see `losses.box_losses`. If nonzero, the
        metrics include `box_loss` and the localization errors.
      accumulate: number of microbatches. They pass through the network one after another; their
        gradients and running statistics are averaged before a single update. BatchNorm normalizes
        within a microbatch. The step equals that of the whole batch on `accumulate` devices with
        local BatchNorm statistics; without BatchNorm and dropout, that of the whole batch.
      ema_decay: decay of the running average `state.ema`, see `state.follow`; 0 for none.
      axis_name: axis of the devices that the batch is split over; None on one device.
      reduce_dtype: type in which the gradients of the devices are added up; None for their own. In
        bfloat16, the devices exchange half of the bytes, and gradients and their sums are rounded
        to 8 bits. (A CPU adds up the rounded gradients in float32.)

    Returns:
      A pure function. `key` is the key of the run; the step folds in its number. It may be two
      keys, [2]: one for dropout (the second) and one for everything else. The metrics are (sum,
      count) pairs over the whole batch: `loss` (without the auxiliary heads), `top1_error`,
      `top5_error`, and, counted once per step, `grad_norm` and `finite`, which is 0 if the loss or
      a gradient is not finite and 1 otherwise.

    Raises:
      ValueError: while tracing, if `aux_weight` is set for a model without auxiliary heads, or a
        device's shard of the batch cannot be split into `accumulate` equal parts.
    """
    differentiate = jax.value_and_grad(
        functools.partial(_objective, model, loss, aux_weight, box_weight), has_aux=True
    )

    def step(state, batch, key):
        key, dropout = key if key.ndim else (key, key)
        key, dropout = (jax.random.fold_in(k, state.step) for k in (key, dropout))
        batch = preprocess(batch, example_keys(key, batch, axis_name))
        dropout = jax.random.fold_in(dropout, _DROPOUT)
        if axis_name:
            dropout = jax.random.fold_in(dropout, lax.axis_index(axis_name))

        def gradient(part, dropout):
            (total, (*rows, batch_stats)), grads = differentiate(
                state.params, state.batch_stats, part, dropout
            )
            return (total, grads, batch_stats), tuple(rows)

        if accumulate == 1:
            means, (logits, per_example, box_losses) = gradient(batch, dropout)
        else:
            parts = _accumulate(gradient, batch, dropout, accumulate)
            means, (logits, per_example, box_losses) = parts
        counted = metrics.classification_pairs(logits, batch["label"], per_example)
        counted |= {name: metrics.pair(values) for name, values in box_losses.items()}
        # Needed even if BatchNorm averages over the devices: each device differentiates its loss.
        (total, grads, batch_stats), counted = _over_devices(
            means, counted, axis_name, reduce_dtype
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if ema_decay:
            state = follow(state, ema_decay)
        norm = optax.tree.norm(grads)
        finite = (jnp.isfinite(total) & jnp.isfinite(norm)).astype(jnp.float32)
        once = {"grad_norm": (norm, jnp.float32(1)), "finite": (finite, jnp.float32(1))}
        return state, counted | once

    return step


def make_eval_step(
    model: nn.Module,
    loss: Loss = losses.cross_entropy,
    *,
    preprocess: Preprocess = gather,
    boxes: bool = False,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], dict[str, tuple[Array, Array]]]:
    """Makes `eval_step(state, batch) -> metrics`.

    Args:
      model: the network; `model.apply(variables, images, train=False)` returns logits f32[N,K].
      loss: (logits f32[N,K], labels i32[N]) to f32[N].
      preprocess: as in `make_train_step`, called with None for the keys.
      boxes: whether to include `box_loss` and the localization errors.
      axis_name: axis of the devices that the batch is split over; None on one device.

    Returns:
      A pure function. The metrics are (sum, count) pairs: `loss`, `top1_error`, `top5_error`. If
      the batch has a `mask` f32[N], only examples with mask 1 are counted.
    """

    def eval_step(state, batch):
        ready = preprocess(batch, None)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        mask, collected = batch.get("mask"), ["endpoints"] if boxes else []
        logits, changed = model.apply(variables, ready["image"], train=False, mutable=collected)
        per_example = loss(logits, ready["label"])
        counted = metrics.classification_pairs(logits, ready["label"], per_example, mask)
        if boxes:
            box_losses = losses.box_losses(logits, changed, ready)
            counted |= {name: metrics.pair(values, mask) for name, values in box_losses.items()}
        return _sum(counted, axis_name)

    return eval_step


def multi_step(step: Callable, steps: int) -> Callable:
    """Makes a function that computes several train steps in one call, for accelerators.

    Do not use it on a CPU, where XLA has no fast kernel for a convolution inside a loop.

    Args:
      step: of `make_train_step`.
      steps: number of steps.

    Returns:
      A function like `step`. Entries per example are stacked, [steps, N, ...]; resident entries are
      not. The metrics are [steps].
    """

    def many(state, batch, key):
        resident = {k: v for k, v in batch.items() if k in RESIDENT}
        stacked = {k: v for k, v in batch.items() if k not in RESIDENT}
        with jax.named_scope(STEPS):
            return lax.scan(
                lambda state, one: step(state, resident | one, key), state, stacked, length=steps
            )

    return many


def run_keys(
    seed: int, init_seed: int | None = None, dropout_seed: int | None = None
) -> tuple[Array, Array]:
    """Makes the keys of a run from its seeds.

    Args:
      seed: the seed of all randomness.
      init_seed: seed of the initialization, if it differs.
      dropout_seed: seed of dropout, if it differs.

    Returns:
      (key of the initialization, key of the run). With `dropout_seed` the second is two keys, [2];
      see `make_train_step`.
    """
    init, key = jax.random.split(jax.random.key(seed))
    if init_seed is not None:
        init, _ = jax.random.split(jax.random.key(init_seed))
    if dropout_seed is not None:
        key = jnp.stack([key, jax.random.split(jax.random.key(dropout_seed))[1]])
    return init, key


def example_keys(key: Array, batch: Batch, axis_name: str | None = None) -> Array:
    """Makes the keys [N] of the examples of a batch from the key of the step and their slots."""
    slot = batch.get("slot")
    if slot is None:
        size = next(len(v) for k, v in batch.items() if k not in RESIDENT)
        slot = jnp.arange(size) + (size * lax.axis_index(axis_name) if axis_name else 0)
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(slot)


def _objective(
    model: nn.Module,
    loss: Loss,
    aux_weight: float,
    box_weight: float,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    dropout: Array,
) -> tuple[Array, tuple[Array, Array, dict[str, Array], Any]]:
    """Computes the loss to differentiate, auxiliary heads and box head included.

    Args:
      model: as in `make_train_step`.
      loss: likewise.
      aux_weight: likewise.
      box_weight: likewise.
      params: parameters of the network.
      batch_stats: its running statistics.
      batch: preprocessed examples.
      dropout: key of dropout.

    Returns:
      The loss f32[], and what else the step needs: logits f32[N,K]; the loss of each example f32[N]
      without the auxiliary heads; box loss and localization errors by name, f32[N] each; the new
      running statistics.
    """
    logits, changed = model.apply(
        {"params": params, "batch_stats": batch_stats},
        batch["image"],
        train=True,
        mutable=["batch_stats", *(["endpoints"] if aux_weight or box_weight else [])],
        rngs={"dropout": dropout},
    )
    target = batch.get("target", batch["label"])
    per_example = loss(logits, target)
    total = per_example.mean()
    if aux_weight:
        for head in _aux_heads(model, changed):
            total += aux_weight * loss(head, target).mean()
    box_losses = {}
    if box_weight:
        box_losses = losses.box_losses(logits, changed, batch)
        total += box_weight * box_losses["box_loss"].mean()
    return total, (logits, per_example, box_losses, changed.get("batch_stats", {}))


def _accumulate(gradient: Callable, batch: Batch, dropout: Array, count: int) -> tuple[Any, Any]:
    """Calls `gradient` for each microbatch.

    Returns the mean of its first results, and the concatenation of its second results.
    """
    size = len(batch["label"])
    if size % count:
        raise ValueError(f"accumulate is {count}; it must divide a device's {size} examples")
    parts = {name: value.reshape(count, -1, *value.shape[1:]) for name, value in batch.items()}
    keys = jax.vmap(lambda i: jax.random.fold_in(dropout, i))(jnp.arange(count))

    def add(sums, part_and_key):
        means, rows = gradient(*part_and_key)
        return jax.tree.map(jnp.add, sums, means), rows

    first = jax.tree.map(lambda x: x[0], (parts, keys))
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, *first)[0])

    def one_by_one(parts, keys):
        # On a CPU XLA has no fast kernel for a convolution inside a loop.
        sums, listed = zeros, []
        for i in range(count):
            sums, row = add(sums, jax.tree.map(lambda x, i=i: x[i], (parts, keys)))
            listed.append(row)
        return sums, jax.tree.map(lambda *r: jnp.concatenate(r), *listed)

    def in_a_loop(parts, keys):
        with jax.named_scope(MICROBATCHES):
            sums, rows = lax.scan(add, zeros, (parts, keys))
        return sums, jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), rows)

    sums, rows = ops.by_platform(in_a_loop, parts, keys, cpu=one_by_one)
    return jax.tree.map(lambda x: x / count, sums), rows


def _aux_heads(model: nn.Module, changed: Mapping[str, Any]) -> list[Array]:
    endpoints = changed.get("endpoints", {})
    heads = [endpoints[name] for name in sorted(endpoints) if name.startswith("aux")]
    if not heads:
        raise ValueError(f"aux_weight is set, but {type(model).__name__} has no auxiliary heads")
    return heads


def _over_devices(means, sums, axis_name, reduce_dtype):
    """Averages (loss, gradients, statistics) and adds up other sums, in one communication."""
    if not axis_name:
        return means, sums
    total, grads, batch_stats = means
    sent = jax.tree.map(lambda g: g.astype(reduce_dtype or g.dtype), grads)
    (total, sent, batch_stats), sums = lax.psum(((total, sent, batch_stats), sums), axis_name)
    grads = jax.tree.map(lambda g, s: s.astype(g.dtype), grads, sent)
    count = lax.psum(1, axis_name)
    return jax.tree.map(lambda x: x / count, (total, grads, batch_stats)), sums


def _sum(tree, axis_name):
    return lax.psum(tree, axis_name) if axis_name else tree
