"""Metrics, as (sum, count) pairs where they are taken batch by batch."""

from jaxcnn.metrics.classification import classification_pairs, of_label, top_k_error
from jaxcnn.metrics.pairs import Pairs, combine, finalise, pair

__all__ = [
    "Pairs",
    "classification_pairs",
    "combine",
    "finalise",
    "of_label",
    "pair",
    "top_k_error",
]
