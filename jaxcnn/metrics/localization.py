"""The localization error of ILSVRC: a guess is a class and a box, and both must be correct."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcnn.data import boxes as geometry

Array = jax.Array
OVERLAP = 0.5  # least intersection over union of a correct box
ERRORS = ("localization_top1_error", "localization_top5_error")


def guesses(logits: Array, boxes: Array, count: int) -> tuple[Array, Array]:
    """Selects the most probable classes and their boxes.

    Args:
      logits: f32[N,K].
      boxes: output of the box head, f32[N,4] for all classes or f32[N,4K], see
        `jaxcnn.data.boxes`.
      count: number of guesses G, at most K.

    Returns:
      Classes i32[N,G], the lower index first among equal logits, and boxes f32[N,G,4] as (top,
      left, bottom, right).
    """
    _, classes = jax.lax.top_k(logits, min(count, logits.shape[-1]))
    return classes, class_boxes(boxes, classes)


def class_boxes(boxes: Array, classes: Array) -> Array:
    """Selects the boxes of the given classes.

    Args:
      boxes: as in `guesses`.
      classes: i32[N,G].

    Returns:
      f32[N,G,4] as (top, left, bottom, right).
    """
    each = boxes.reshape(len(boxes), -1, 4)
    if each.shape[1] == 1:  # one for all classes
        picked = jnp.broadcast_to(each, (*classes.shape, 4))
    else:
        picked = jnp.take_along_axis(each, classes[:, :, None], axis=1)
    return geometry.from_center(picked)


def errors(logits: Array, boxes: Array, labels: Array, truth: Array) -> dict[str, Array]:
    """Computes the top-1 and top-5 localization errors of each example.

    A guess is correct if its class is the label and its intersection over union with any of the
    image's boxes is at least 0.5 (Russakovsky et al. 2015, arXiv 1409.0575, section 4.2). An image
    without boxes always counts as an error.

    Args:
      logits: f32[N,K].
      boxes: as in `guesses`.
      labels: i32[N].
      truth: f32[N,M,4], the boxes of the label's objects, see `jaxcnn.data.boxes`.

    Returns:
      For each name in `ERRORS` f32[N], 1 where none of the first one or five guesses is correct,
      else 0.
    """
    classes, guessed = guesses(logits, boxes, 5)
    correct = is_correct(classes, guessed, labels, truth)
    correct &= ~jnp.isnan(logits).any(-1, keepdims=True)
    return {name: 1 - correct[:, :k].any(-1).astype(jnp.float32) for name, k in zip(ERRORS, (1, 5))}


def is_correct(classes: Array, guessed: Array, labels: Array, truth: Array) -> Array:
    """Determines which guesses are correct.

    Args:
      classes: i32[N,G], see `guesses`.
      guessed: f32[N,G,4], their boxes.
      labels: i32[N].
      truth: f32[N,M,4], the boxes of the label's objects.

    Returns:
      bool[N,G].
    """
    overlap = geometry.iou(guessed[:, :, None], truth[:, None]).max(-1)
    return (classes == labels[:, None]) & (overlap >= OVERLAP)
