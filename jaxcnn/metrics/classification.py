"""Metrics of a whole test set, in NumPy: errors by class, confusion, calibration, intervals.

The arguments are probabilities f32[N,K] and labels i32[N].
"""

from __future__ import annotations

import numpy as np


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

    Returns:
      The error, 0 to 1; NaN if a probability is NaN.
    """
    confidence = probabilities.max(-1).astype(np.float64)
    if np.isnan(confidence).any():
        return float("nan")
    right = probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(
    values: np.ndarray, draws: int, *, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Estimates a confidence interval of the mean by the percentile bootstrap.

    If all values are 0 or all are 1, all samples are alike, and the interval is the exact one of a
    binomial proportion (Clopper and Pearson 1934).

    Args:
      values: [N].
      draws: number of samples drawn with replacement.
      seed: of the samples.
      level: coverage of the interval.

    Returns:
      (lower bound, upper bound).
    """
    if values.min() == values.max() in (0, 1):
        bound = ((1 - level) / 2) ** (1 / len(values))
        return (0.0, 1 - bound) if values.max() == 0 else (bound, 1.0)
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
