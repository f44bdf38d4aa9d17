"""Losses: one number per example, in float32."""

from __future__ import annotations

import jax

from jaxcnn import layers
from jaxcnn.evaluation.metrics import of_label

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
