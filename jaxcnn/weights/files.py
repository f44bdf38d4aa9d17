"""Mappings of arrays in files: safetensors, npz, and, where torch is installed, pth."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._files import atomic_write, local_path

SUFFIXES = (".safetensors", ".npz", ".pth")

_METADATA = "__metadata__"  # the entry of an npz file that holds what safetensors has a place for


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file and its metadata, which is empty where it has none.

    Nothing in the file is executed: pickled objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the suffix is unknown, the file cannot be read, or torch is needed and missing.
    """
    path = local_path(path)
    suffix = _suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return {".safetensors": _read_safetensors, ".npz": _read_npz, ".pth": _read_pth}[suffix](path)


def write(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays to a file, in the format of its suffix; the file appears when it is complete.

    A pth file holds no metadata.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: the suffix is unknown, or torch is needed and missing.
    """
    path = local_path(path)
    suffix = _suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no directory {path.parent} to write {path.name} to")
    with atomic_write(path) as draft:
        _WRITERS[suffix](draft, arrays, dict(metadata or {}))


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix!r}; weights are in {', '.join(SUFFIXES)}")
    return path.suffix


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no complete safetensors file: {error}") from error


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            arrays = {key: file[key] for key in file.files}
        return arrays, json.loads(str(arrays.pop(_METADATA, "{}")))
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as npz: {reason}") from error


def _read_pth(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    torch = _torch()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parts raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as weights only: {reason}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f"{path} holds no mapping of names to tensors")
    return {str(key): _array(tensor) for key, tensor in content.items()}, {}


def _array(tensor: Any) -> np.ndarray:
    # NumPy has no bfloat16 of its own.
    is_bfloat16 = str(tensor.dtype) == "torch.bfloat16"
    return (tensor.float() if is_bfloat16 else tensor).detach().numpy()


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "a .pth file needs torch, which is not installed here; where it is, `jaxcnn convert` "
            "makes a .safetensors file of it"
        ) from error
    return torch


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]):
    import safetensors.numpy

    # The writer takes the buffer as it lies in memory: a transposed view would be written wrongly.
    # (ascontiguousarray would turn a scalar into a vector.)
    ordered = {key: np.require(array, requirements="C") for key, array in arrays.items()}
    safetensors.numpy.save_file(ordered, path, metadata=metadata or None)


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]):
    extra = {_METADATA: np.array(json.dumps(metadata))} if metadata else {}
    for key, array in arrays.items():
        if array.dtype.hasobject:  # NumPy would pickle it
            raise ValueError(f"{key!r} is of type {array.dtype}; weights are numbers")
    everything: dict[str, Any] = {**arrays, **extra}
    np.savez(path, **everything)


def _write_pth(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]):
    torch = _torch()
    torch.save({key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}, path)


_WRITERS = {".safetensors": _write_safetensors, ".npz": _write_npz, ".pth": _write_pth}
