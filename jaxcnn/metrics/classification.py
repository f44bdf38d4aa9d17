"""Classification metrics of a batch and of a whole test set.

The first functions are traced and compute the (sum, count) pairs of a batch. The others (errors by
class, confusion, calibration, confidence intervals) are NumPy functions of probabilities f32[N,K]
and labels i32[N].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.metrics.pairs import pair

Array = jax.Array


def take_label(values: Array, labels: Array) -> Array:
    """Selects each example's value for its label.

    Args:
      values: f[N,K].
      labels: i32[N].

    Returns:
      f[N]; NaN where a label is not one of the K classes.
    """
    outside = (labels < 0) | (labels >= values.shape[-1])
    picked = jnp.take_along_axis(values, labels[:, None], axis=-1, mode="clip")[:, 0]
    return jnp.where(outside, jnp.nan, picked)


def top_k_error(logits: Array, labels: Array, k: int) -> Array:
    """Computes the top-k error of each example.

    Among equal logits the class with the lower index ranks first. NaN ranks above every number, so
    that a diverged network never counts as correct.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      k: number of classes that may contain the label.

    Returns:
      f32[N], 1 where the label is not among the k largest logits, else 0.
    """
    target = take_label(logits, labels)[:, None]
    classes = jnp.arange(logits.shape[-1])[None]
    before = ~(logits <= target) | ((logits == target) & (classes < labels[:, None]))
    return (before.sum(-1) >= k).astype(jnp.float32)


def classification_pairs(
    logits: Array, labels: Array, losses: Array, mask: Array | None = None
) -> dict[str, tuple[Array, Array]]:
    """Computes the pairs `loss`, `top1_error` and `top5_error` of a batch.

    Args:
      logits: f32[N,K].
      labels: i32[N].
      losses: f32[N], the loss of each example.
      mask: f32[N], 1 for an example and 0 for padding; None to count all.

    Returns:
      {name: (sum, count)}.
    """
    return {
        "loss": pair(losses, mask),
        "top1_error": pair(top_k_error(logits, labels, 1), mask),
        "top5_error": pair(top_k_error(logits, labels, 5), mask),
    }


def is_wrong(probabilities: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Determines which predictions are wrong: `top_k_error` in NumPy.

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      k: number of classes that may contain the label.

    Returns:
      bool[N], True where the label is not among the k most probable classes.
    """
    target = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before = ~(probabilities <= target) | ((probabilities == target) & earlier)
    return before.sum(-1) >= k


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the examples of each class (row) that are predicted as each class (column).

    Args:
      probabilities: f32[N,K].
      labels: i32[N].

    Returns:
      i64[K,K].
    """
    classes = probabilities.shape[1]
    flat = labels.astype(np.int64) * classes + probabilities.argmax(-1)
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def class_errors(matrix: np.ndarray) -> np.ndarray:
    """Computes the top-1 error of each class.

    Args:
      matrix: confusion matrix i64[K,K].

    Returns:
      f64[K]; NaN for a class without examples.
    """
    count = matrix.sum(1)
    return np.where(count > 0, 1 - np.diag(matrix) / np.maximum(count, 1), np.nan)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Computes the expected calibration error (Guo et al. 2017, arXiv 1706.04599).

    Args:
      probabilities: f32[N,K].
      labels: i32[N].
      bins: number of bins of equal width.
    """
    confidence = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(
    values: np.ndarray, draws: int, *, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Estimates a confidence interval of the mean by the percentile bootstrap.

    Args:
      values: [N].
      draws: number of samples drawn with replacement.
      seed: of the samples.
      level: coverage of the interval.

    Returns:
      (lower bound, upper bound).
    """
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
