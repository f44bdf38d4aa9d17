"""Losses: one number per example, in float32."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

from jaxcnn import layers
from jaxcnn.evaluation.metrics import of_label
from jaxcnn.models import lenet
from jaxcnn.models.registry import near

Array = jax.Array


def cross_entropy(logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy, f32[N,K] and i32[N] to f32[N].

    `label_smoothing` s makes the target (1 - s) one-hot + s / K (Szegedy et al. 2016, arXiv
    1512.00567, section 7). A label outside 0..K-1 gives NaN.

    Raises:
      ValueError: label_smoothing is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")
    log_p = jax.nn.log_softmax(layers.as_output(logits))
    loss = -of_label(log_p, labels)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return loss


LOSSES: dict[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "lenet_mse": lenet.mse_loss,
    "lenet_map": lenet.map_loss,
}


def make_loss(name: str = "cross_entropy", **options: Any) -> Callable[[Array, Array], Array]:
    """A loss by name, (logits f32[N,K], labels i32[N]) to f32[N], with its options filled in.

    Raises:
      ValueError: the name, an option or its value is unknown.
    """
    if name not in LOSSES:
        hint = near(name, LOSSES) or f"; known are {', '.join(LOSSES)}"
        raise ValueError(f"unknown loss {name!r}{hint}")
    known = list(inspect.signature(LOSSES[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of loss {name!r}{near(option, known)}")
    made = functools.partial(LOSSES[name], **options)
    jax.eval_shape(
        made, jax.ShapeDtypeStruct((1, 10), "float32"), jax.ShapeDtypeStruct((1,), "int32")
    )
    return made
