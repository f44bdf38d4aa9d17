"""The index of an archive: what it must hold before anything is read by it."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._checks import one_line


def read_index(
    path: Path, content: bytes, dtype: np.dtype, size: int
) -> tuple[dict[str, Any], np.ndarray, bytes]:
    """The entries of an archive's index, which is an .npz: "about", "records" and "names".

    Args:
      path: of the archive, for messages.
      content: the index.
      dtype: of a record, with the fields "length" and "label".
      size: bytes of all records together.

    Raises:
      ValueError: an entry is missing or of another type, or they do not go together.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            records, names = arrays["records"], arrays["names"].tobytes()
        count = len(zlib.decompress(names).decode().split("\n"))
        classes, parts = about["class_names"], about["parts"]
        fault = _fault(classes, parts, records, count, dtype, size)
    except Exception as error:  # NumPy and zipfile raise whatever their parts raise
        fault = one_line(error)
    if fault:
        raise ValueError(f"{path} has an index that cannot be: {fault}")
    return about, records, names


def _fault(
    classes: Any, parts: Any, records: np.ndarray, names: int, dtype: np.dtype, size: int
) -> str:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "its classes are no list of names"
    if not isinstance(parts, dict) or not all(type(n) is int and n >= 0 for n in parts.values()):
        return "its parts have no numbers of images"
    if records.dtype != dtype or records.ndim != 1:
        return f"its records are {records.dtype}{list(records.shape)}"
    if sum(parts.values()) != len(records) or names != max(1, len(records)):
        return (
            f"it has {len(records):,} records and {names:,} names for parts of "
            f"{sum(parts.values()):,} images"
        )
    if records["length"].sum(dtype=np.uint64) != size:
        return f"its records have {records['length'].sum(dtype=np.uint64):,} bytes, not {size:,}"
    labels = records["label"]
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        return f"its labels reach from {labels.min()} to {labels.max()} of {len(classes)} classes"
    return ""
