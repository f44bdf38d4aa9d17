"""Metrics as (sum, count) pairs, so that batches and shards combine exactly.

The functions exported here are traced and compute the pairs of a batch, or combine them. The
modules `classification` and `localization` hold the metrics themselves, among them confusion,
calibration and confidence intervals of a whole test set.
"""

from jaxcnn.metrics.classification import classification_pairs, take_label, top_k_error
from jaxcnn.metrics.pairs import Pairs, combine, finalize, pair

__all__ = [
    "Pairs",
    "classification_pairs",
    "combine",
    "finalize",
    "pair",
    "take_label",
    "top_k_error",
]
