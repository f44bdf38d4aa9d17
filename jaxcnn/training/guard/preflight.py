"""Checks a few examples of the first batch, before a run writes or compiles anything."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._checks import note_once, shown
from jaxcnn._objects import mistakes_in_network
from jaxcnn.data.sets import Dataset, ImageFileDataset
from jaxcnn.layers import without_axis
from jaxcnn.ops import BatchNorm
from jaxcnn.training.build import Experiment
from jaxcnn.training.input import loaders

_EXAMPLES = 8
# Standard deviations from the mean. White is 2.8 for ImageNet, 13 for MNIST; AlexNet, ZFNet and DPN
# divide by less than the deviation of pixels.
_LARGEST = 30.0


def check(experiment: Experiment) -> None:
    """Checks that images, labels, classes and splits fit the network and the loss.

    Raises:
      ValueError: a check failed; the message names the value and what is valid.
    """
    classes = experiment.train_set.num_classes
    for name, split in (("training", experiment.train_set), ("test", experiment.test_set)):
        if not len(split):
            raise ValueError(f"the {name} split has no examples")
        if isinstance(split, Dataset):
            _check_images(split.images[:_EXAMPLES], f"the {name} split's images")
            _check_labels(split.labels, classes, f"the {name} split's labels")
    labels = _labels(experiment.train_set)
    if labels is not None:
        present = np.unique(labels)
        if len(present) == 1 < classes and isinstance(experiment.train_set, Dataset):
            raise ValueError(
                f"all {len(labels):,} training examples are of class {present[0]}; "
                "if the dataset is sorted by class, choose another slice of it"
            )
        if missing := sorted(set(range(classes)) - set(present.tolist())):
            names = [str(experiment.train_set.class_names[k]) for k in missing[:3]]
            note_once(
                f"{len(missing)} of {classes} classes have no training example: "
                f"{', '.join(names)}{', ...' * (len(missing) > 3)}; the examples of a folder are "
                "sorted by class, so split the photos into folders train and val"
            )
    batch = loaders.first_slots(experiment, min(_EXAMPLES, experiment.calendar.batch_size))
    _check_images(batch["image"], "the first batch's images")
    if batch["image"].shape[1:] != experiment.image_shape[1:]:
        raise ValueError(
            f"the first batch's images are {_format_shape(batch['image'].shape[1:])}; the network "
            f"is made for {_format_shape(experiment.image_shape[1:])}"
        )
    _check_labels(batch["label"], classes, "the first batch's labels")
    _check_prepared(np.asarray(experiment.preprocess(batch, None)["image"]), experiment)
    check_network(experiment)


def _labels(split: Dataset | ImageFileDataset) -> np.ndarray | None:
    """The labels of a split, if they are known without reading its files."""
    if isinstance(split, Dataset):
        return split.labels
    labels = split.part.labels
    return None if labels is None else np.asarray(labels(split.start, split.stop))


def check_network(experiment: Experiment) -> None:
    """Checks that the network fits the classes and the batch; reads no data.

    Raises:
      ValueError: a check failed; the message names the value and what is valid.
    """
    _check_head(experiment, experiment.train_set.num_classes)
    _check_batch_norm(experiment)


def _check_images(images: np.ndarray, what: str) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"{what} are {images.dtype}; they must be uint8, 0 to 255")
    if images.max() == images.min():
        raise ValueError(f"all pixels of {what} have the same value, {images.max()}")
    if images.max() <= 1:
        raise ValueError(f"{what} range from 0 to 1; they must be uint8, 0 to 255")


def _check_labels(labels: np.ndarray, classes: int, what: str) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{what} are {labels.dtype}; they must be integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{what} range from {labels.min()} to {labels.max()}; the classes are 0 to "
            f"{classes - 1}"
        )


def _check_prepared(images: np.ndarray, experiment: Experiment) -> None:
    """Checks float images as the network receives them."""
    how = f"with mean {experiment.train_set.mean} and standard deviation {experiment.train_set.std}"
    if not np.isfinite(images).all():
        raise ValueError(f"the first batch is not finite after normalization {how}")
    if np.abs(images).max() > max(_LARGEST, 1 / min(experiment.train_set.std)):
        raise ValueError(
            f"the first batch ranges from {images.min():.1f} to {images.max():.1f} after "
            f"normalization {how}; both must be for pixels between 0 and 1"
        )


def _check_head(experiment: Experiment, classes: int) -> None:
    """Checks the shape of the logits, and that auxiliary heads exist if their loss has a weight."""
    shapes = experiment.shapes
    variables = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    images = jax.ShapeDtypeStruct(experiment.image_shape, jnp.float32)
    model = without_axis(experiment.model)
    with mistakes_in_network(experiment.config.model.name):
        logits, endpoints = jax.eval_shape(
            lambda v, x: model.apply(v, x, train=False, mutable=["endpoints"]), variables, images
        )
        if not type(model).__module__.startswith("jaxcnn."):
            _trace_training(model, variables, experiment)
    if len(getattr(logits, "shape", ())) != 2:
        raise ValueError(
            f"the network returned {shown(logits)} for images {shown(images)}; it must return "
            f"logits, float32[1,{classes}]"
        )
    if logits.shape[-1] != classes:
        raise ValueError(
            f"the network has {logits.shape[-1]} outputs; the training set has {classes} classes"
        )
    if experiment.aux_weight and not any(
        name.startswith("aux") for name in endpoints.get("endpoints", {})
    ):
        raise ValueError(
            f"config.loss.aux_weight is {experiment.aux_weight}, but "
            f"{experiment.config.model.name!r} has no auxiliary heads"
        )


def _trace_training(model: Any, variables: Any, experiment: Experiment) -> None:
    shape = (experiment.calendar.batch_size, *experiment.image_shape[1:])
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    jax.eval_shape(
        lambda v, x, key: model.apply(
            v, x, train=True, mutable=["batch_stats", "endpoints"], rngs={"dropout": key}
        ),
        variables, images, jax.random.key(0),
    )  # fmt: skip


def _check_batch_norm(experiment: Experiment) -> None:
    """Checks that no BatchNorm normalizes a single value, which would make all outputs equal."""
    if experiment.batch_norm_examples > 1:
        return
    degenerate: list[str] = []

    def inspect(call, args, kwargs, context):
        module = context.module
        is_norm = isinstance(module, BatchNorm) and context.method_name == "__call__"
        if is_norm and math.prod(args[0].shape[1:-1]) == 1:
            degenerate.append("/".join(module.path))
        return call(*args, **kwargs)

    model = without_axis(experiment.model)
    with mistakes_in_network(experiment.config.model.name), nn.intercept_methods(inspect):
        jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images, train=True),
            jax.ShapeDtypeStruct(experiment.image_shape, jnp.float32),
        )
    if degenerate:
        raise ValueError(
            f"BatchNorm {degenerate[0]!r} normalizes 1x1 maps of single examples, so its output "
            "does not depend on the image; use larger images, or more examples at once "
            "(config.train.batch_size, accumulate, bn_group)"
        )


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
