"""jaxcnn: the convolutional networks that made computer vision, in JAX and Flax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn import (
        analysis,
        data,
        deploy,
        evaluation,
        layers,
        metrics,
        models,
        ops,
        reporting,
        studies,
        training,
        weights,
    )
    from jaxcnn.analysis.drawing import Drawing, draw
    from jaxcnn.analysis.summary import Summary, summarize
    from jaxcnn.models.registry import ModelInfo, create_model, endpoints, list_models, model_info
    from jaxcnn.weights.loading import load_pretrained

__version__ = "0.1.0"

__all__ = [
    "Drawing",
    "ModelInfo",
    "Summary",
    "analysis",
    "create_model",
    "data",
    "deploy",
    "draw",
    "endpoints",
    "evaluation",
    "layers",
    "list_models",
    "load_pretrained",
    "metrics",
    "model_info",
    "models",
    "ops",
    "reporting",
    "studies",
    "summarize",
    "training",
    "weights",
]

_MODULES = (
    *("analysis", "data", "deploy", "evaluation", "layers", "metrics"),
    *("models", "ops", "reporting", "studies", "training", "weights"),
)
# Importing jaxcnn does not import JAX, so that `jaxcnn --help` starts quickly.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        **{name: name for name in _MODULES},
        "ModelInfo": "models.registry",
        "create_model": "models.registry",
        "endpoints": "models.registry",
        "list_models": "models.registry",
        "model_info": "models.registry",
        "load_pretrained": "weights.loading",
        "Drawing": "analysis.drawing",
        "draw": "analysis.drawing",
        "Summary": "analysis.summary",
        "summarize": "analysis.summary",
    },
)
