"""From a configuration to the parts of a run: data, network, optimizer, devices, durations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxcnn.data.sets import Dataset, EncodedSet
from jaxcnn.models.registry import create_model
from jaxcnn.training import parallel
from jaxcnn.training.config import Recorded
from jaxcnn.training.input import preprocess, sets
from jaxcnn.training.input.preprocess import Prepare
from jaxcnn.training.optim import losses, optimizers, schedules
from jaxcnn.training.state import TrainState, abstract_state, abstract_variables

_WEIGHTS = ("aux_weight", "box_weight")  # of config.loss, which the losses do not take
_STEPS_PER_CALL = 25  # on accelerators; a convolution in a loop is several times slower on a CPU


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run.

    `shapes` is the abstract state. Intervals are in steps and need not be whole: something that is
    due every 11.2 steps happens after 11, 22, 34, ...
    """

    train_set: Dataset | EncodedSet
    test_set: Dataset | EncodedSet
    stream: sets.Stream | None
    model: nn.Module
    weights: str | None
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    aux_weight: float
    box_weight: float
    accumulate: int
    bn_examples: int
    ema_decay: float
    optimizer: optax.GradientTransformation
    rate: schedules.Schedule
    prepare: Prepare
    image_shape: tuple[int, ...]
    shapes: TrainState
    mesh: Mesh
    mode: str
    batch_size: int
    eval_batch_size: int
    total_steps: int
    every_eval: float
    every_checkpoint: float
    every_log: int
    steps_per_call: int
    deterministic: bool

    def epoch(self, step: int) -> float:
        """Passes over the training set after so many steps."""
        return step * self.batch_size / len(self.train_set)

    def is_due(self, every: float, step: int) -> bool:
        """Whether something that happens every so many steps happens after this one."""
        return step == self.total_steps or round(round(step / every) * every) == step

    def next_boundary(self, step: int) -> int:
        """The next step after which something other than training happens."""
        return min(
            self.total_steps,
            *(_next(every, step) for every in (self.every_eval, self.every_checkpoint)),
        )

    def steps_at_once(self, step: int) -> int:
        """How many steps the call after this step makes: full calls, then single steps.

        A function of the step alone, so that a resumed run makes the same calls.
        """
        return self.steps_per_call if step + self.steps_per_call <= self.next_boundary(step) else 1


def make_setup(config: Recorded) -> Setup:
    """Loads the data, builds everything, and checks that it fits, without computing a step.

    Raises:
      ValueError: a field, the data, the devices or the network do not fit, named.
    """
    mesh = parallel.make_mesh(config.train.devices or None)
    mode = config.train.parallel
    if mode == "auto":
        mode = "jit" if mesh.size == 1 else "shard_map"
    batch_size = config.train.batch_size
    for examples in (batch_size, config.eval.batch_size):
        parallel.check_batch_size(examples, mesh.size)
    accumulate, bn_sync, bn_group = (
        config.train[name] for name in ("accumulate", "bn_sync", "bn_group")
    )
    bn_examples = parallel.batch_norm_examples(batch_size, mesh.size, accumulate, bn_sync, bn_group)
    data = config.data
    box_weight = config.loss.get("box_weight", 0.0)
    train_set, test_set, stream = sets.open_sets(config)
    train_set = sets.with_boxes(train_set, box_weight, data.train_split)
    test_set = sets.with_boxes(test_set, box_weight, data.test_split)
    if stream and config.train.steps_per_call > 1:
        raise ValueError(
            f"config.train.steps_per_call is {config.train.steps_per_call}; it must be 0 or 1 for "
            "a set that is streamed"
        )
    model = create_model(
        config.model.name,
        num_classes=train_set.num_classes,
        dtype={"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.model.dtype],
        axis_name=parallel.batch_norm_axis(mode, bn_sync, bn_group),
        bn_group=bn_group,
        **dict(config.model.options),
    )
    if stream:
        train_set, test_set = (sets.normalised_for(model, s) for s in (train_set, test_set))
    prepare = preprocess.make_prepare(train_set, data.augment, mixup=data.mixup, cutmix=data.cutmix)
    image_shape = (1, *sets.image_shape(train_set, stream))
    steps_per_epoch = len(train_set) / batch_size
    length = schedules.duration(
        config.train, "length", steps_per_epoch=steps_per_epoch, batch_size=batch_size
    )
    total_steps = max(1, length)
    params = abstract_variables(model, image_shape)["params"]
    check_head(params, config.model.options, box_weight)
    optimizer, rate = optimizers.make_optimizer(
        config.optimizer,
        config.schedule,
        total_steps,
        steps_per_epoch,
        params,
        batch_size=batch_size,
    )
    return Setup(
        train_set=train_set,
        test_set=test_set,
        stream=stream,
        model=model,
        weights=config.model.weights,
        loss=losses.make_loss(**{k: v for k, v in config.loss.items() if k not in _WEIGHTS}),
        aux_weight=config.loss.get("aux_weight", 0.0),
        box_weight=box_weight,
        accumulate=accumulate,
        bn_examples=bn_examples,
        ema_decay=config.train.ema_decay,
        optimizer=optimizer,
        rate=rate,
        prepare=prepare,
        image_shape=image_shape,
        shapes=abstract_state(model, optimizer, image_shape, ema=bool(config.train.ema_decay)),
        mesh=mesh,
        mode=mode,
        batch_size=batch_size,
        eval_batch_size=config.eval.batch_size,
        total_steps=total_steps,
        every_eval=_interval(config.eval, steps_per_epoch, batch_size, total_steps),
        every_checkpoint=_interval(config.checkpoint, steps_per_epoch, batch_size, total_steps),
        every_log=config.log.every_steps,
        steps_per_call=config.train.steps_per_call
        or (1 if stream or mesh.devices.flat[0].platform == "cpu" else _STEPS_PER_CALL),
        deterministic=config.train.deterministic,
    )


def _next(every: float, step: int) -> int:
    times = int(step / every) + 1
    return next(s for k in range(max(0, times - 1), times + 2) if (s := round(k * every)) > step)


def _interval(
    section: Recorded, steps_per_epoch: float, batch_size: int, total_steps: int
) -> float:
    """Steps, which need not be whole."""
    factors = {
        "steps": 1.0,
        "epochs": steps_per_epoch,
        "examples": 1 / batch_size,
        "percent": total_steps / 100,
    }
    every = (section[f"every_{unit}"] for unit in factors)
    steps = next(v * f for v, f in zip(every, factors.values()) if v is not None)
    return max(1.0, steps)


def check_head(params: Mapping[str, Any], options: Mapping[str, Any], weight: float) -> None:
    """Raises ValueError unless the network has a box head just where boxes are learnt."""
    if weight and "box_fc" not in params:
        if options.get("box_head"):
            raise ValueError("this network's classifier takes no features, so it has no box head")
        raise ValueError(
            f"config.loss.box_weight is {weight}; set config.model.options['box_head'] to 'scr' or "
            "'pcr'"
        )
    if not weight and "box_fc" in params:
        raise ValueError("config.model.options has a box_head; set config.loss.box_weight, say 1.0")
