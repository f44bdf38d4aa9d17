"""Weights in and out: torch's layouts, files, and what others have published."""

from jaxcnn.weights.layout import from_torch, to_torch
from jaxcnn.weights.loading import load_pretrained, save
from jaxcnn.weights.pretrained import WEIGHTS, Preprocessing

__all__ = ["WEIGHTS", "Preprocessing", "from_torch", "load_pretrained", "save", "to_torch"]
