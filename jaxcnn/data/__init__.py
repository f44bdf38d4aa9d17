"""Data sources (`catalog`), batches (`loader`) and augmentation (`augment`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.data.catalog import load, register, unregister
    from jaxcnn.data.sets import Dataset, FileShard, Source

__all__ = ["Dataset", "FileShard", "Source", "load", "register", "unregister"]

# Imported on first use, so that code that only reads the files of runs does not need the readers.
_HOMES = {
    "Dataset": "jaxcnn.data.sets",
    "FileShard": "jaxcnn.data.sets",
    "Source": "jaxcnn.data.sets",
    "load": "jaxcnn.data.catalog",
    "register": "jaxcnn.data.catalog",
    "unregister": "jaxcnn.data.catalog",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
