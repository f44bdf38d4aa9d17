"""Metrics as (sum, count) pairs, so that batches and shards combine exactly.

The functions exported here are traced and compute the pairs of a batch, or combine them. The module
`classification` has metrics of a whole test set: confusion, calibration and confidence intervals.
The module `localization` has those of boxes.
"""

from jaxcnn.metrics.pairs import (
    Pairs,
    classification_pairs,
    combine,
    finalize,
    pair,
    take_label,
    top_k_error,
)

__all__ = [
    "Pairs",
    "classification_pairs",
    "combine",
    "finalize",
    "pair",
    "take_label",
    "top_k_error",
]
