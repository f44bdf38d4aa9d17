"""One file per paper family, and the registry that finds networks by name."""

from jaxcnn.models.registry import (
    ModelInfo,
    create_model,
    endpoints,
    list_aliases,
    list_models,
    model_info,
    register,
    unregister,
)

__all__ = [
    "ModelInfo",
    "create_model",
    "endpoints",
    "list_aliases",
    "list_models",
    "model_info",
    "register",
    "unregister",
]
