"""Networks: one file per paper family, and a registry that finds them by name.

`create_model` builds a network, `model_info` and `list_models` look up published facts, `endpoints`
returns intermediate activations, and `register` adds a network of your own. The residual blocks can
be passed to `create_model("resnet50", block=...)` or subclassed.
"""

from jaxcnn.models.blocks import BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck
from jaxcnn.models.costs import count_macs, count_params
from jaxcnn.models.registry import (
    FAMILIES,
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
    "FAMILIES",
    "BasicBlock",
    "Bottleneck",
    "ModelInfo",
    "PreActBasicBlock",
    "PreActBottleneck",
    "count_macs",
    "count_params",
    "create_model",
    "endpoints",
    "list_aliases",
    "list_models",
    "model_info",
    "register",
    "unregister",
]
