"""The localisation error of ILSVRC: a guess is a class and a box, and both have to be right."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcnn.data import boxes as geometry

Array = jax.Array
OVERLAP = 0.5  # intersection over union that counts as found
ERRORS = ("localisation_top1_error", "localisation_top5_error")


def guesses(logits: Array, boxes: Array, count: int) -> tuple[Array, Array]:
    """The most probable classes, each with its box.

    Args:
      logits: f32[N,K].
      boxes: what the box head says, f32[N,4] for all classes or f32[N,4K], as `to_centre`.
      count: guesses G, no more than there are classes.

    Returns:
      Classes i32[N,G], of equal logits the lower first, and boxes f32[N,G,4] (top, left, ...).
    """
    _, classes = jax.lax.top_k(logits, min(count, logits.shape[-1]))
    return classes, of_classes(boxes, classes)


def of_classes(boxes: Array, classes: Array) -> Array:
    """The boxes f32[N,G,4] (top, left, bottom, right) of classes i32[N,G]."""
    each = boxes.reshape(len(boxes), -1, 4)
    if each.shape[1] == 1:  # one for all classes
        picked = jnp.broadcast_to(each, (*classes.shape, 4))
    else:
        picked = jnp.take_along_axis(each, classes[:, :, None], axis=1)
    return geometry.from_centre(picked)


def errors(logits: Array, boxes: Array, labels: Array, truth: Array) -> dict[str, Array]:
    """1 where none of the best one or five guesses is right, else 0: each f32[N].

    A guess is right if its class is the label and its intersection over union with any of the
    image's boxes is at least 0.5 (Russakovsky et al. 2015, arXiv 1409.0575, section 4.2). An image
    without boxes cannot be answered.

    Args:
      logits, boxes: as `guesses`.
      labels: i32[N].
      truth: f32[N,M,4], the boxes of the label's objects, see `jaxcnn.data.boxes`.
    """
    classes, found = guesses(logits, boxes, 5)
    good = right(classes, found, labels, truth) & ~jnp.isnan(logits).any(-1, keepdims=True)
    return {name: 1 - good[:, :k].any(-1).astype(jnp.float32) for name, k in zip(ERRORS, (1, 5))}


def right(classes: Array, found: Array, labels: Array, truth: Array) -> Array:
    """Whether each guess is, bool[N,G]; classes i32[N,G] and boxes f32[N,G,4] as `guesses`."""
    overlap = geometry.iou(found[:, :, None], truth[:, None]).max(-1)
    return (classes == labels[:, None]) & (overlap >= OVERLAP)
