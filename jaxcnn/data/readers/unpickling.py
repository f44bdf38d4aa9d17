"""Reads pickles of dictionaries, lists, strings and NumPy arrays, without executing code."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np


def read_pickle(path: str | os.PathLike) -> Any:
    """Reads a pickle. Strings of Python 2 are returned as bytes.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is not a pickle, is truncated, or contains anything but plain data.
    """
    local = os.fspath(path)
    try:
        with open(local, "rb") as file:
            return _PlainUnpickler(file, encoding="bytes").load()
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged pickles can raise almost any exception
        size = os.path.getsize(local)
        raise ValueError(
            f"{path} ({size} bytes) is truncated or not a pickle of plain data: {error}"
        ) from None


def _encode(text: str, encoding: str) -> bytes:
    """Decodes bytes as written by protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it needs the codec {encoding!r}")
    return text.encode(encoding)


def _reconstruct(_: Any, shape: tuple[int, ...], dtype: bytes) -> np.ndarray:
    return _NEW_ARRAY(np.ndarray, shape, dtype)


_EMPTY = np.empty(0)
_NEW_ARRAY: Any = _EMPTY.__reduce__()[0]
_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): None,  # called, it could view any bytes as pointers to objects
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("numeric", "_frombuffer", _EMPTY.__reduce_ex__(5)[0]),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it needs {module}.{name}")
        return _ALLOWED[module, name]
