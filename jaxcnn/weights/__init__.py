"""Weights: published weights, weights files, and conversion to and from PyTorch's layouts."""

from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.weights.layout import from_torch, to_torch
from jaxcnn.weights.loading import load_pretrained, save
from jaxcnn.weights.pretrained import WEIGHTS

__all__ = ["WEIGHTS", "Preprocessing", "from_torch", "load_pretrained", "save", "to_torch"]
