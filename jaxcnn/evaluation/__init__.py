"""Evaluation: predictions for image files and test sets, test protocols, and ensembles.

`open_entry` opens a run, a weights file or published weights; `predict_files` classifies image
files, and `probabilities` evaluates a test set under one of the `PROTOCOLS`. The modules
`ensembles`, `localization` and `tables` combine predictions, evaluate boxes and print results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.data.imagenet_names import imagenet_names
    from jaxcnn.evaluation import (
        ensembles,
        evaluate,
        localization,
        predict,
        protocols,
        request,
        tables,
    )
    from jaxcnn.evaluation.evaluate import Entry, open_entry, open_test_set
    from jaxcnn.evaluation.inference import probabilities
    from jaxcnn.evaluation.predict import (
        Prediction,
        default_names,
        predict_files,
        preprocess,
        read_image,
    )
    from jaxcnn.evaluation.protocols import PROTOCOLS, Protocol, parse_view

__all__ = [
    "PROTOCOLS",
    "Entry",
    "Prediction",
    "Protocol",
    "default_names",
    "ensembles",
    "evaluate",
    "imagenet_names",
    "localization",
    "open_entry",
    "open_test_set",
    "parse_view",
    "predict",
    "predict_files",
    "preprocess",
    "probabilities",
    "protocols",
    "read_image",
    "request",
    "tables",
]

_MODULES = (
    *("ensembles", "evaluate", "localization", "predict"),
    *("protocols", "request", "tables"),
)
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        **{name: name for name in _MODULES},
        "Entry": "evaluate",
        "open_entry": "evaluate",
        "open_test_set": "evaluate",
        "probabilities": "inference",
        "Prediction": "predict",
        "default_names": "predict",
        "imagenet_names": "predict",
        "predict_files": "predict",
        "preprocess": "predict",
        "read_image": "predict",
        "PROTOCOLS": "protocols",
        "Protocol": "protocols",
        "parse_view": "protocols",
    },
)
