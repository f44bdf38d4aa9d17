"""Data sources (`catalog`), batches (`loader`) and augmentation (`augment`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxcnn._lazy import lazy_exports

if TYPE_CHECKING:
    from jaxcnn.data.catalog import load, register, unregister
    from jaxcnn.data.sets import Dataset, FileShard, Source

__all__ = ["Dataset", "FileShard", "Source", "load", "register", "unregister"]

# Imported on first use, so that code that only reads the files of runs does not need the readers.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Dataset": "sets",
        "FileShard": "sets",
        "Source": "sets",
        "load": "catalog",
        "register": "catalog",
        "unregister": "catalog",
    },
)
