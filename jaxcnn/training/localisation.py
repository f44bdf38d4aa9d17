"""Learning where an object is: the box head's loss, and what a run needs for it.

A network with `box_head` says beside its logits four numbers, the box's centre x, centre y, width
and height in shares of what it sees: "scr" once for all classes, "pcr" for each class (single-class
and per-class regression, Simonyan & Zisserman 2015, arXiv 1409.1556, appendix A.1). The head is a
dense layer on the features that the classifier takes; `config.loss.box_weight` switches it on.

Where this differs from the appendix: class and box are learnt by one network at once, from the sum
of both losses, where VGG trains a second network on boxes alone, begun from the classifier's
weights (`config.model.weights` begins one here, too). Boxes of several views are not merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.data import boxes as geometry
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.encoded import EncodedSet
from jaxcnn.evaluation import localisation
from jaxcnn.evaluation.metrics import of_label

Array = jax.Array


def box_loss(boxes: Array, labels: Array, truth: Array) -> Array:
    """Squared Euclidean distance between (x, y, width, height) found and true: f32[N].

    Args:
      boxes: of the box head, f32[N,4] or f32[N,4K]; of the latter the label's count.
      labels: i32[N]; one outside the classes gives NaN.
      truth: f32[N,M,4]; the first box that has an area is learnt. Without one the loss is 0.
    """
    each = boxes.reshape(len(boxes), -1, 4)
    if each.shape[1] == 1:
        own = each[:, 0]
    else:
        own = jnp.stack([of_label(each[..., i], labels) for i in range(4)], -1)
    there = geometry.area(truth) > 0
    first = jnp.take_along_axis(truth, there.argmax(-1)[:, None, None], axis=1)[:, 0]
    distance = jnp.square(own - geometry.to_centre(first)).sum(-1)
    return jnp.where(there.any(-1), distance, 0)


def per_example(logits: Array, changed: Mapping[str, Any], batch: Mapping[str, Array]) -> dict:
    """`box_loss` and the localisation errors of a batch, each f32[N].

    `changed` is what the network's `apply` returned besides the logits.
    """
    boxes = changed["endpoints"]["box"]
    errors = localisation.errors(logits, boxes, batch["label"], batch["box"])
    return {"box_loss": box_loss(boxes, batch["label"], batch["box"]), **errors}


def with_boxes(dataset: Dataset | EncodedSet, weight: float, split: str) -> Dataset | EncodedSet:
    """The set with its boxes if they are learnt, else without them.

    Raises:
      ValueError: they are learnt and the set has none.
    """
    if not weight:
        return dataset.without_boxes()
    if weight < 0:
        raise ValueError(f"config.loss.box_weight is {weight}; it must be 0 or more")
    if not dataset.has_boxes:
        raise ValueError(
            f"config.loss.box_weight is {weight}, but {split!r} of config.data.source has no boxes"
        )
    return dataset


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
