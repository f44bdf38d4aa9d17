"""Builds an experiment from a configuration: data, network, optimizer, devices, calendar."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxcnn._objects import mistakes_in_network
from jaxcnn.data.sets import Dataset, ImageFileDataset
from jaxcnn.models.registry import create_model
from jaxcnn.training import parallel
from jaxcnn.training.clock import Calendar, make_calendar
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.input import preprocess, sets
from jaxcnn.training.input.preprocess import Preprocess
from jaxcnn.training.optim import RESERVED_FIELDS, losses, optimizers, schedules
from jaxcnn.training.state import TrainState, abstract_state, abstract_variables

_STEPS_PER_CALL = 25  # on accelerators; on a CPU convolutions in a loop are several times slower


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The objects that a configuration describes, built and checked; no step is computed yet.

    Attributes:
      config: the configuration; it tracks which fields were read.
      train_set: the training set, in memory or as image files.
      test_set: the test set, likewise.
      stream: how image files are decoded and cropped; None for a set in memory.
      model: the network, with the axis over which BatchNorm averages.
      loss: (logits f32[N,K], labels i32[N] or f32[N,K]) to f32[N].
      optimizer: the optax transform.
      learning_rate: function of the step; None if the optimizer sets its rate itself.
      preprocess: (batch, keys) to the inputs of the network, on the device.
      image_shape: (1, H, W, C) in training.
      shapes: the abstract training state.
      mesh: the devices.
      mode: how a step uses the devices; see `parallel`.
      batch_norm_examples: number of examples in each set of BatchNorm statistics.
      calendar: the steps after which to log, evaluate and save.
    """

    config: TrackedConfig
    train_set: Dataset | ImageFileDataset
    test_set: Dataset | ImageFileDataset
    stream: sets.Stream | None
    model: nn.Module
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    optimizer: optax.GradientTransformation
    learning_rate: schedules.Schedule | None
    preprocess: Preprocess
    image_shape: tuple[int, ...]
    shapes: TrainState
    mesh: Mesh
    mode: str
    batch_norm_examples: int
    calendar: Calendar

    @property
    def aux_weight(self) -> float:
        """Weight of the loss of each auxiliary head."""
        return self.config.loss.get("aux_weight", 0.0)

    @property
    def box_weight(self) -> float:
        """Weight of the loss of the box head; 0 if boxes are not learned."""
        return self.config.loss.get("box_weight", 0.0)

    @property
    def eval_batch_size(self) -> int:
        """Examples evaluated at a time: `eval.batch_size`, rounded up so that devices share it."""
        return math.ceil(self.config.eval.batch_size / self.mesh.size) * self.mesh.size


def build_experiment(
    config: TrackedConfig,
    *,
    devices: Sequence[jax.Device] | None = None,
    opened: sets.Sets | None = None,
) -> Experiment:
    """Loads the data, builds all objects and checks them, without computing a step.

    Args:
      config: a configuration that passed `jaxcnn.training.config.validate`.
      devices: the devices to choose from; by default those that JAX sees.
      opened: the data sets; by default those of `sets.open_sets`.

    Returns:
      The experiment.

    Raises:
      ValueError: a field, the data, the devices or the network do not fit together.
    """
    mesh = parallel.make_mesh(config.train.devices or None, devices)
    mode, bn_examples = _parallelism(config, mesh)
    train_set, test_set, stream = _open_data(config, opened)
    model = _make_model(config, train_set.num_classes, mode)
    if stream:
        train_set, test_set = (sets.normalized_for(model, s) for s in (train_set, test_set))
    data = config.data
    preprocess_batch = preprocess.make_preprocess(
        train_set, data.augment, mixup=data.mixup, cutmix=data.cutmix
    )
    image_shape = (1, *sets.image_shape(train_set, stream))
    preprocess.check_custom_steps(preprocess_batch, data.augment, image_shape)
    single_steps = stream is not None or mesh.devices.flat[0].platform == "cpu"
    steps_per_call = config.train.steps_per_call or (1 if single_steps else _STEPS_PER_CALL)
    calendar = make_calendar(config, len(train_set), steps_per_call)
    with mistakes_in_network(config.model.name):
        params = abstract_variables(model, image_shape)["params"]
    check_head(params, config.model.options, config.loss.get("box_weight", 0.0))
    optimizer, rate = make_optimizer(config, calendar, params)
    shapes = abstract_state(model, optimizer, image_shape, ema=bool(config.train.ema_decay))
    _check_optimizer_state(config.optimizer.get("name"), shapes.opt_state)
    is_mixed = bool(data.mixup or data.cutmix)
    loss_options = {k: v for k, v in config.loss.items() if k not in RESERVED_FIELDS["loss"]}
    return Experiment(
        config=config,
        train_set=train_set,
        test_set=test_set,
        stream=stream,
        model=model,
        loss=losses.make_loss(
            config.loss.get("name", "cross_entropy"),
            train_set.num_classes,
            is_mixed,
            **loss_options,
        ),
        optimizer=optimizer,
        learning_rate=rate,
        preprocess=preprocess_batch,
        image_shape=image_shape,
        shapes=shapes,
        mesh=mesh,
        mode=mode,
        batch_norm_examples=bn_examples,
        calendar=calendar,
    )


def make_optimizer(
    config: Mapping[str, Any],
    calendar: Calendar,
    params: Any,
    rate: schedules.Schedule | None = None,
) -> tuple[optax.GradientTransformation, schedules.Schedule | None]:
    """Makes the optimizer of a configuration.

    Args:
      config: the configuration.
      calendar: provides the length of the run and of an epoch.
      params: the parameters or their shapes.
      rate: learning rate as a function of the step; replaces `config.schedule`.

    Returns:
      (optimizer, learning rate as a function of the step); see `optimizers.make_optimizer`.
    """
    return optimizers.make_optimizer(
        config["optimizer"],
        config["schedule"],
        calendar.total_steps,
        calendar.train_examples / calendar.batch_size,
        params,
        batch_size=calendar.batch_size,
        rate=rate,
    )


def check_head(params: Mapping[str, Any], options: Mapping[str, Any], weight: float) -> None:
    """Raises ValueError unless the network has a box head if and only if boxes are learned."""
    if weight and "box_fc" not in params:
        if options.get("box_head"):
            raise ValueError("this network's classifier takes no features, so it has no box head")
        raise ValueError(
            f"config.loss.box_weight is {weight}; set config.model.options['box_head'] to 'scr' or "
            "'pcr'"
        )
    if not weight and "box_fc" in params:
        raise ValueError(
            "config.model.options has a box_head; set config.loss.box_weight, such as 1"
        )


def _check_optimizer_state(name: Any, state: Any) -> None:
    """Raises ValueError if an optimizer's state has what checkpoints cannot hold."""
    for leaf in jax.tree.leaves(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise ValueError(
                f"the state of optimizer {name!r} has a random key, {leaf.dtype}, which "
                "checkpoints cannot hold"
            )


def _parallelism(config: TrackedConfig, mesh: Mesh) -> tuple[str, int]:
    """Returns (mode, examples in each set of BatchNorm statistics), checked."""
    mode = config.train.parallel
    if mode == "auto":
        mode = "jit" if mesh.size == 1 else "shard_map"
    batch_size = config.train.batch_size
    parallel.check_batch_size(batch_size, mesh.size, "config.train.batch_size")
    if (config.data.mixup or config.data.cutmix) and batch_size // mesh.size % 2:
        raise ValueError(
            f"config.train.batch_size is {batch_size}, {batch_size // mesh.size} for each of "
            f"{mesh.size} devices; mixup and cutmix need an even number for each"
        )
    accumulate, bn_sync, bn_group = (
        config.train[name] for name in ("accumulate", "bn_sync", "bn_group")
    )
    return mode, parallel.batch_norm_examples(batch_size, mesh.size, accumulate, bn_sync, bn_group)


def _open_data(config: TrackedConfig, opened: sets.Sets | None) -> sets.Sets:
    """Returns (training set, test set, stream); the sets have boxes only if boxes are learned."""
    train_set, test_set, stream = opened or sets.open_sets(config)
    box_weight = config.loss.get("box_weight", 0.0)
    train_set = sets.with_boxes(train_set, box_weight, config.data.train_split)
    test_set = sets.with_boxes(test_set, box_weight, config.data.test_split)
    if stream and config.train.steps_per_call > 1:
        raise ValueError(
            f"config.train.steps_per_call is {config.train.steps_per_call}; it must be 0 or 1 for "
            "a streamed dataset"
        )
    return train_set, test_set, stream


def _make_model(config: TrackedConfig, num_classes: int, mode: str) -> nn.Module:
    bn_sync, bn_group = config.train.bn_sync, config.train.bn_group
    return create_model(
        config.model.name,
        num_classes=num_classes,
        dtype={"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.model.dtype],
        axis_name=parallel.batch_norm_axis(mode, bn_sync, bn_group),
        bn_group=bn_group,
        **dict(config.model.options),
    )
