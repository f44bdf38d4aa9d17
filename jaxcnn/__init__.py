"""jaxcnn: the convolutional networks that made computer vision, in JAX and Flax."""

from jaxcnn.models.registry import ModelInfo, create_model, endpoints, list_models, model_info

__version__ = "0.1.0"

__all__ = ["ModelInfo", "create_model", "endpoints", "list_models", "model_info"]
