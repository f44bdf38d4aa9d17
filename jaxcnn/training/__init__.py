"""Training: pure steps, and the loop around them.

from jaxcnn import training

config = training.default_config()
for report in training.train(config, "runs/mine"):
    print(report)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.reporting.report import Report
    from jaxcnn.training.config import default_config, set_duration
    from jaxcnn.training.config.files import read_config
    from jaxcnn.training.loop import train

__all__ = ["Report", "default_config", "read_config", "set_duration", "train"]

# Imported when first used: the loop needs data sources that a pure step does not.
_HOMES = {
    "Report": "jaxcnn.reporting.report",
    "default_config": "jaxcnn.training.config",
    "read_config": "jaxcnn.training.config",
    "set_duration": "jaxcnn.training.config",
    "train": "jaxcnn.training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
