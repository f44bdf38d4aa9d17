"""Training: pure steps, and the loop around them.

from jaxcnn import training

config = training.default_config()
for report in training.train(config, "runs/mine"):
    print(report)
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.reporting.report import Report
    from jaxcnn.training.config import default_config, set_duration
    from jaxcnn.training.config.files import read_config
    from jaxcnn.training.output.trained import TrainedModel, load_run
    from jaxcnn.training.train import train

__all__ = [
    "Report",
    "TrainedModel",
    "default_config",
    "load_run",
    "read_config",
    "set_duration",
    "train",
]

# Imported on first use: the loop needs data sources that a pure step does not.
_HOMES = {
    "Report": "jaxcnn.reporting.report",
    "TrainedModel": "jaxcnn.training.output.trained",
    "default_config": "jaxcnn.training.config",
    "load_run": "jaxcnn.training.output.trained",
    "read_config": "jaxcnn.training.config",
    "set_duration": "jaxcnn.training.config",
    "train": "jaxcnn.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


class _Package(types.ModuleType):
    """Keeps `jaxcnn.training.train` the function after the submodule of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "train" or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
