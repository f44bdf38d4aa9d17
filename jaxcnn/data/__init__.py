"""Data sources (`catalog`), batches (`loader`) and augmentation (`augment`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.data.augment.pipeline import normalize
    from jaxcnn.data.catalog import load, register, unregister
    from jaxcnn.data.loader.resident import batch_indices
    from jaxcnn.data.sets import Dataset, FileShard, Source

__all__ = [
    "Dataset",
    "FileShard",
    "Source",
    "batch_indices",
    "load",
    "normalize",
    "register",
    "unregister",
]

# Imported on first use, so that code that only reads the files of runs does not need the readers.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Dataset": "sets",
        "FileShard": "sets",
        "Source": "sets",
        "batch_indices": "loader.resident",
        "load": "catalog",
        "normalize": "augment.pipeline",
        "register": "catalog",
        "unregister": "catalog",
    },
)
