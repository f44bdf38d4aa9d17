"""jaxcnn: the convolutional networks that made computer vision, in JAX and Flax."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.analysis.summary import Summary, summarize
    from jaxcnn.models.registry import ModelInfo, create_model, endpoints, list_models, model_info
    from jaxcnn.weights.loading import load_pretrained

__version__ = "0.1.0"

# Public names and where they live: imported when first used, so that `jaxcnn --help` need not wait
# for JAX.
_EXPORTS = {
    "ModelInfo": "jaxcnn.models.registry",
    "create_model": "jaxcnn.models.registry",
    "endpoints": "jaxcnn.models.registry",
    "list_models": "jaxcnn.models.registry",
    "model_info": "jaxcnn.models.registry",
    "load_pretrained": "jaxcnn.weights.loading",
    "Summary": "jaxcnn.analysis.summary",
    "summarize": "jaxcnn.analysis.summary",
}
_PACKAGES = (
    "analysis",
    "data",
    "evaluation",
    "metrics",
    "models",
    "studies",
    "training",
    "weights",
)

__all__ = [
    "ModelInfo",
    "Summary",
    "create_model",
    "endpoints",
    "list_models",
    "load_pretrained",
    "model_info",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"jaxcnn.{name}")
    raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_PACKAGES})
