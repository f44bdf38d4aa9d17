"""Deployment: networks as files for other programs, a server, and uploads to the hub.

`export_model` writes a trained network as StableHLO, ONNX or weights, with a description and an
example that does not need jaxcnn. `make_app` is the application of `jaxcnn serve`. `push_to_hub`
uploads a run with its model card to the Hugging Face Hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.deploy.artifacts import export_model
    from jaxcnn.deploy.programs import to_onnx, to_stablehlo
    from jaxcnn.deploy.push import push_to_hub
    from jaxcnn.deploy.server import make_app

__all__ = ["export_model", "make_app", "push_to_hub", "to_onnx", "to_stablehlo"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "export_model": "artifacts",
        "to_onnx": "programs",
        "to_stablehlo": "programs",
        "push_to_hub": "push",
        "make_app": "server",
    },
)
