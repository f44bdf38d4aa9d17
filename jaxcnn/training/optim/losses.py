"""Losses of the classifier and of the box head: one float32 number per example.

A network with a `box_head` also predicts a box: the center x, center y, width and height, as
fractions of the input image. "scr" predicts one box for all classes, "pcr" one for each class
(single-class and per-class regression, Simonyan & Zisserman 2015, arXiv 1409.1556, appendix A.1).
The head is a dense layer on the features of the classifier; `config.loss.box_weight` enables it.

Differences from the appendix: one network learns class and box together, from the sum of both
losses, whereas VGG trains a second network on boxes alone, initialized with the weights of the
classifier (`config.model.weights` does this here). Boxes of several views are not merged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import layers
from jaxcnn._checks import one_line, one_of, shown
from jaxcnn._objects import check_call, is_address, load_object, mistakes_in_call
from jaxcnn.data import boxes as geometry
from jaxcnn.metrics import localization, take_label
from jaxcnn.models import lenet

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy.

    Args:
      logits: f32[N,K].
      labels: i32[N], or soft targets f32[N,K]. A label outside 0..K-1 gives NaN.
      label_smoothing: s replaces the target t by (1 - s) t + s / K (Szegedy et al. 2016, arXiv
        1512.00567, section 7).

    Returns:
      The loss of each example, f32[N].

    Raises:
      ValueError: label_smoothing is not in [0, 1).
    """
    _check_smoothing(label_smoothing)
    log_p = jax.nn.log_softmax(layers.as_output(logits))
    likelihood = take_label(log_p, labels) if labels.ndim == 1 else (labels * log_p).sum(-1)
    loss = -likelihood
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return loss


def binary_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, threshold: float | None = None
) -> Array:
    """Sigmoid cross-entropy of each class, averaged over the classes.

    From "ResNet strikes back" (Wightman et al. 2021, arXiv 2110.00476, section 3), where every
    class in a mixed image is a positive.

    Args:
      logits: f32[N,K].
      labels: i32[N], or soft targets f32[N,K]. A label outside 0..K-1 gives NaN.
      label_smoothing: as in `cross_entropy`.
      threshold: if set, targets above it become 1 and all others 0, after the smoothing.

    Returns:
      The loss of each example, f32[N].

    Raises:
      ValueError: label_smoothing or threshold is not in [0, 1).
    """
    _check_smoothing(label_smoothing)
    if threshold is not None and not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; it must be in [0, 1) or None")
    logits = layers.as_output(logits)
    classes = logits.shape[-1]
    if labels.ndim == 1:
        outside = (labels < 0) | (labels >= classes)
        target = jnp.where(outside[:, None], jnp.nan, jax.nn.one_hot(labels, classes))
    else:
        target = labels
    target = (1 - label_smoothing) * target + label_smoothing / classes
    if threshold is not None:
        target = jnp.where(jnp.isnan(target), target, (target > threshold).astype(logits.dtype))
    # softplus(x) - t x is the same, but has no digits left for large x and t = 1.
    present, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(target * present + (1 - target) * absent).mean(-1)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")


LOSSES: dict[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "lenet_mse": lenet.mse_loss,
    "lenet_map": lenet.map_loss,
}


def make_loss(
    name: str = "cross_entropy", num_classes: int = 10, soft: bool = False, /, **options: Any
) -> Callable[[Array, Array], Array]:
    """Makes a loss from its name and options, and checks it.

    Args:
      name: one of `LOSSES`, or the address of a custom function, "my_losses.py:focal" or
        "package.module:focal". With mixup and cutmix its labels are soft targets, f32[N,K].
      num_classes: the number of classes K, for the check.
      soft: whether labels will be soft targets, for the check.
      **options: keyword arguments of the function.

    Returns:
      Function of (logits f32[N,K], labels i32[N]) that returns f32[N].

    Raises:
      ValueError: the name or an option is unknown, an option has an invalid value, or a custom
        function does not accept these arguments or does not return f32[N].
    """
    function = load_object(name) if is_address(name) else LOSSES[one_of("loss.name", name, LOSSES)]
    check_call(f"loss {name!r}", function, "logits", "labels", **options)
    loss = functools.partial(function, **options)
    logits = jax.ShapeDtypeStruct((2, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    own = mistakes_in_call(f"loss {name!r}", function) if is_address(name) else nullcontext()
    with own:
        out: Any = jax.eval_shape(loss, logits, labels)
    if getattr(out, "shape", None) != (2,) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(
            f"loss {name!r} returned {shown(out)} for logits float32[2,{num_classes}]; it must "
            "return one number for each example, float32[2]"
        )
    if soft:
        _check_soft(name, loss, logits)
    return loss


def _check_soft(name: str, loss: Callable, logits: jax.ShapeDtypeStruct) -> None:
    """Raises ValueError unless a loss takes soft targets."""
    found: Any = None
    try:
        found = jax.eval_shape(loss, logits, jax.ShapeDtypeStruct(logits.shape, jnp.float32))
        problem = f"it returned {shown(found)}"
    except Exception as error:
        problem = one_line(error)
    if getattr(found, "shape", None) != logits.shape[:1]:
        raise ValueError(
            f"loss {name!r} does not take the soft targets f32[N,K] of mixup and cutmix: {problem}"
        )


def box_loss(boxes: Array, labels: Array, truth: Array) -> Array:
    """Squared Euclidean distance between the predicted and the true (x, y, width, height).

    Args:
      boxes: the output of the box head, f32[N,4], or f32[N,4K], of which the box of the label is
        used.
      labels: i32[N]; a label outside 0..K-1 gives NaN.
      truth: f32[N,M,4]; the first box with an area is the target. Without one the loss is 0.

    Returns:
      The loss of each example, f32[N].
    """
    per_class = boxes.reshape(len(boxes), -1, 4)
    if per_class.shape[1] == 1:
        predicted = per_class[:, 0]
    else:
        predicted = jnp.stack([take_label(per_class[..., i], labels) for i in range(4)], -1)
    valid = geometry.area(truth) > 0
    target = jnp.take_along_axis(truth, valid.argmax(-1)[:, None, None], axis=1)[:, 0]
    distance = jnp.square(predicted - geometry.to_center(target)).sum(-1)
    return jnp.where(valid.any(-1), distance, 0)


def box_losses(logits: Array, changed: Mapping[str, Any], batch: Mapping[str, Array]) -> dict:
    """Computes the `box_loss` and the localization errors of a batch.

    Args:
      logits: f32[N,K].
      changed: the mutated collections that the network's `apply` returned.
      batch: with "label" i32[N] and "box" f32[N,M,4].

    Returns:
      {name: f32[N]}.
    """
    boxes = changed["endpoints"]["box"]
    errors = localization.errors(logits, boxes, batch["label"], batch["box"])
    return {"box_loss": box_loss(boxes, batch["label"], batch["box"]), **errors}
