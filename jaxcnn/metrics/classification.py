"""Classification: the errors of a batch, and what the answers to a whole test set say.

The first functions are traced and give the pairs of a batch. The others, errors by class,
confusion, calibration and intervals, are NumPy functions of probabilities f32[N,K] and labels
i32[N], on the host.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.metrics.pairs import pair

Array = jax.Array


def of_label(values: Array, labels: Array) -> Array:
    """Each example's value of its own class: [N,K] and i32[N] to [N]; NaN for no such class."""
    outside = (labels < 0) | (labels >= values.shape[-1])
    picked = jnp.take_along_axis(values, labels[:, None], axis=-1, mode="clip")[:, 0]
    return jnp.where(outside, jnp.nan, picked)


def top_k_error(logits: Array, labels: Array, k: int) -> Array:
    """1 where the label is not among the k largest logits, else 0: f32[N,K], i32[N] to f32[N].

    Of equal logits the lower class comes first. A NaN ranks above every number, so that a broken
    network is never right.
    """
    own = of_label(logits, labels)[:, None]
    classes = jnp.arange(logits.shape[-1])[None]
    before = ~(logits <= own) | ((logits == own) & (classes < labels[:, None]))
    return (before.sum(-1) >= k).astype(jnp.float32)


def classification_pairs(
    logits: Array, labels: Array, losses: Array, mask: Array | None = None
) -> dict[str, tuple[Array, Array]]:
    """Pairs `loss`, `top1_error` and `top5_error` of a batch.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      losses: f32[N], each example's loss.
      mask: f32[N], 1 for an example and 0 for padding; None counts all.
    """
    return {
        "loss": pair(losses, mask),
        "top1_error": pair(top_k_error(logits, labels, 1), mask),
        "top5_error": pair(top_k_error(logits, labels, 5), mask),
    }


def wrong(probabilities: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether each label is not among the k most probable classes, bool[N].

    Of equal probabilities the lower class comes first. NaN ranks above every number.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before = ~(probabilities <= own) | ((probabilities == own) & earlier)
    return before.sum(-1) >= k


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """i64[K,K]: how many examples of class (row) were taken for class (column)."""
    classes = probabilities.shape[1]
    flat = labels.astype(np.int64) * classes + probabilities.argmax(-1)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def class_errors(table: np.ndarray) -> np.ndarray:
    """Each class's top-1 error f64[K] from `confusion`; NaN for a class without examples."""
    count = table.sum(1)
    return np.where(count > 0, 1 - np.diag(table) / np.maximum(count, 1), np.nan)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error, bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    confidence = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap(
    values: np.ndarray, draws: int, *, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of values [N], by percentiles of `draws` samples with replacement."""
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
