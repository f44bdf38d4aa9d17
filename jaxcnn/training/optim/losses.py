"""Losses: one number per example, in float32; that of a box head beside the classifier's.

A network with `box_head` says beside its logits four numbers, the box's center x, center y, width
and height in shares of what it sees: "scr" once for all classes, "pcr" for each class (single-class
and per-class regression, Simonyan & Zisserman 2015, arXiv 1409.1556, appendix A.1). The head is a
dense layer on the features that the classifier takes; `config.loss.box_weight` switches it on.

Where this differs from the appendix: class and box are learned by one network at once, from the sum
of both losses, where VGG trains a second network on boxes alone, begun from the classifier's
weights (`config.model.weights` begins one here, too). Boxes of several views are not merged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import layers
from jaxcnn._checks import one_of, shown
from jaxcnn._objects import check_call, is_address, load_object
from jaxcnn.data import boxes as geometry
from jaxcnn.metrics import localization, take_label
from jaxcnn.models import lenet

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy, f32[N,K] and i32[N], or soft targets f32[N,K], to f32[N].

    `label_smoothing` s makes the target t (1 - s) t + s / K (Szegedy et al. 2016, arXiv 1512.00567,
    section 7). A label outside 0..K-1 gives NaN.

    Raises:
      ValueError: label_smoothing is not in [0, 1).
    """
    _check_smoothing(label_smoothing)
    log_p = jax.nn.log_softmax(layers.as_output(logits))
    own = take_label(log_p, labels) if labels.ndim == 1 else (labels * log_p).sum(-1)
    loss = -own
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return loss


def binary_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0, threshold: float | None = None
) -> Array:
    """Mean over the classes of each one's own sigmoid cross-entropy; shapes as `cross_entropy`.

    Of "ResNet strikes back" (Wightman et al. 2021, arXiv 2110.00476, section 3): every class that a
    mixed image shows is present. With `threshold` a target above it counts as 1 and all others as
    0, after the smoothing.

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
    # log(1 + e^x) - t x, of which neither term overflows
    return (jax.nn.softplus(logits) - target * logits).mean(-1)


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
    name: str = "cross_entropy", num_classes: int = 10, /, **options: Any
) -> Callable[[Array, Array], Array]:
    """A loss by name, (logits f32[N,K], labels i32[N]) to f32[N], with its options filled in.

    Args:
      name: one of `LOSSES`, or the address of a function of your own, "my_losses.py:focal" or
        "package.module:focal". With mixup and cutmix labels are shares of the classes, f32[N,K].
      num_classes: K, for which the loss is checked.
      **options: keyword arguments of the function.

    Raises:
      ValueError: the name, an option or its value is unknown, or a function of your own cannot be
        called so or returns something else.
    """
    function = load_object(name) if is_address(name) else LOSSES[one_of("loss.name", name, LOSSES)]
    check_call(f"loss {name!r}", function, "logits", "labels", **options)
    made = functools.partial(function, **options)
    logits = jax.ShapeDtypeStruct((2, num_classes), jnp.float32)
    found: Any = jax.eval_shape(made, logits, jax.ShapeDtypeStruct((2,), jnp.int32))
    if getattr(found, "shape", None) != (2,) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"loss {name!r} returned {shown(found)} for logits float32[2,{num_classes}]; it must "
            "return one number for each example, float32[2]"
        )
    return made


def box_loss(boxes: Array, labels: Array, truth: Array) -> Array:
    """Squared Euclidean distance between (x, y, width, height) found and true: f32[N].

    Args:
      boxes: of the box head, f32[N,4] or f32[N,4K]; of the latter the label's count.
      labels: i32[N]; one outside the classes gives NaN.
      truth: f32[N,M,4]; the first box that has an area is learned. Without one the loss is 0.
    """
    each = boxes.reshape(len(boxes), -1, 4)
    if each.shape[1] == 1:
        own = each[:, 0]
    else:
        own = jnp.stack([take_label(each[..., i], labels) for i in range(4)], -1)
    there = geometry.area(truth) > 0
    first = jnp.take_along_axis(truth, there.argmax(-1)[:, None, None], axis=1)[:, 0]
    distance = jnp.square(own - geometry.to_center(first)).sum(-1)
    return jnp.where(there.any(-1), distance, 0)


def box_losses(logits: Array, changed: Mapping[str, Any], batch: Mapping[str, Array]) -> dict:
    """`box_loss` and the localization errors of a batch, each f32[N].

    `changed` is what the network's `apply` returned besides the logits.
    """
    boxes = changed["endpoints"]["box"]
    errors = localization.errors(logits, boxes, batch["label"], batch["box"])
    return {"box_loss": box_loss(boxes, batch["label"], batch["box"]), **errors}
