"""What the answers to a whole test set say: errors by class, confusion, calibration, intervals.

Pure functions of probabilities f32[N,K] and labels i32[N], on the host.
"""

from __future__ import annotations

import numpy as np


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
