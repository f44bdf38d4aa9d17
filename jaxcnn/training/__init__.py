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
    from jaxcnn.training.config import default_config, set_duration
    from jaxcnn.training.loop import train
    from jaxcnn.training.reading import read_config
    from jaxcnn.training.reports import Report

__all__ = ["Report", "default_config", "read_config", "set_duration", "train"]

# Imported when first used: the loop needs data sources that a pure step does not.
_HOMES = {"Report": "reports", "read_config": "reading", "train": "loop"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'config')}"), name)
