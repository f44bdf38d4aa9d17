"""Reads PyTorch checkpoints without PyTorch, and without executing code in them.

A checkpoint is a zip file of a pickle and the bytes of the tensors. Only tensors and plain
containers are created. Any other object in the pickle (options of optimizers,
`argparse.Namespace`s, NumPy scalars, paths, whole modules) is replaced by a `Stranger`, without
importing or calling anything.
"""

from __future__ import annotations

import collections
import logging
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_log = logging.getLogger(__name__)

# Prefixes that wrappers of a network add to every key.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
# Names of the weights in a checkpoint, and parts of the names of averaged weights.
_WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "weights")
_AVERAGES = ("ema", "average", "swa")
_OTHERS = ("optim", "sched", "scaler")
_DEPTH = 4  # levels of nested mappings that are searched

_STORAGES = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "Untyped": np.uint8,
}
_DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}


def is_checkpoint(path: Path) -> bool:
    """Returns whether a file has the format of PyTorch since version 1.6."""
    return zipfile.is_zipfile(path)


def read(path: Path) -> Any:
    """Reads the contents of a checkpoint.

    Args:
      path: of the file.

    Returns:
      Containers, arrays, and `Stranger`s.

    Raises:
      ValueError: the file is damaged or not a PyTorch checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _Unpickler(file).load()
    except Exception as error:  # damaged pickles raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as a checkpoint of PyTorch: {reason}") from error


def weights_in(content: Any, path: Path) -> dict[str, np.ndarray]:
    """Finds the weights of the network in the contents of a checkpoint.

    Among several mappings, the one with the most arrays is selected, and a warning is logged.
    Averaged weights are used only if there are no others.

    Args:
      content: see `read`.
      path: of the file, for messages.

    Returns:
      {key: array}.

    Raises:
      ValueError: there is no mapping of names to arrays.
    """
    found = list(_mappings(content, ()))
    if not found:
        what = f"; it is a {content.name}" if isinstance(content, Stranger) else ""
        raise ValueError(f"{path} holds no mapping of names to tensors{what}")
    where, arrays = min(found, key=lambda f: (_is_average(f[0]), -len(f[1]), _rank(f[0])))
    others = [".".join(place) for place, rest in found if place != where and len(rest) > 1]
    if others:
        _log.warning(
            "%s: the weights are those of %r; it also holds %s",
            path, ".".join(where), ", ".join(map(repr, others)),
        )  # fmt: skip
    return arrays


def without_prefixes(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the prefixes that data parallelism, compilation or a trainer adds to most names.

    A prefix is kept if its removal would make names collide.

    Args:
      arrays: {key: array}.
    """
    found = dict(arrays)
    while prefix := next((p for p in _PREFIXES if _has_most(found, p)), None):
        short = {key: key.removeprefix(prefix) for key in found}
        if len(set(short.values())) < len(short):
            return found
        found = {short[key]: array for key, array in found.items()}
    return found


def _has_most(arrays: Mapping[str, np.ndarray], prefix: str) -> bool:
    return 2 * sum(key.startswith(prefix) for key in arrays) > len(arrays)


def _mappings(
    content: Any, where: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
    """(position, {key: array}) of each mapping with arrays."""
    if not isinstance(content, Mapping):
        return
    arrays = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, np.ndarray)
    }
    if arrays:
        yield where, arrays
    for key, value in content.items():
        named = isinstance(key, str) and not any(other in key.lower() for other in _OTHERS)
        if named and len(where) < _DEPTH:
            yield from _mappings(value, (*where, key))


def _is_average(where: tuple[str, ...]) -> bool:
    return any(part in name.lower() for name in where for part in _AVERAGES)


def _rank(where: tuple[str, ...]) -> int:
    name = where[-1] if where else ""
    return _WEIGHTS.index(name) if name in _WEIGHTS else len(_WEIGHTS)


class Stranger:
    """Placeholder for an object that is not created.

    Attributes:
      name: of its class.
    """

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stranger:
        """Ignores the arguments of the object."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignores an item of a list."""

    def add(self, value: Any) -> None:
        """Ignores an item of a set."""

    def __call__(self, *args: Any, **kwargs: Any) -> Stranger:
        """Returns itself, as if it were the object that a class or function creates."""
        return self


class _Storage:
    """The type of a storage."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: zipfile.ZipFile):
        pickles = [name for name in file.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it has no data.pkl")
        self._file, self._folder = file, pickles[0].removesuffix("data.pkl")
        order = f"{self._folder}byteorder"
        if order in file.namelist() and self._member("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")
        self._read: dict[str, bytes] = {}
        super().__init__(file.open(pickles[0]), encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Returns the substitute of a class or function; nothing is imported."""
        if (module, name) in _MADE:
            return _MADE[module, name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            kind = name.removesuffix("Storage")
            if kind in _STORAGES:
                return _Storage(_STORAGES[kind])
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        return type("Stranger", (Stranger,), {"name": f"{module}.{name}"})

    def persistent_load(self, found: Any) -> np.ndarray:
        """Returns the values of a storage."""
        _, kind, key, _, _ = found
        if not isinstance(kind, _Storage):
            raise ValueError(f"it holds tensors of {getattr(kind, 'name', kind)}")
        if key not in self._read:
            self._read[key] = self._member(f"data/{key}")
        return np.frombuffer(self._read[key], kind.dtype)

    def _member(self, name: str) -> bytes:
        info = self._file.getinfo(self._folder + name)
        if info.compress_type != zipfile.ZIP_STORED:  # PyTorch compresses nothing
            raise ValueError(f"{name} is compressed")
        return self._file.read(info)


def _tensor(storage: np.ndarray, offset: int, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """The values of a tensor, [size]; raises ValueError if it exceeds its storage."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    count = math.prod(size)
    if min((*size, *stride, offset)) < 0 or len(size) != len(stride) or count > storage.size:
        raise ValueError(f"a tensor of shape {size} has {storage.size} values")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if count and last >= storage.size:
        raise ValueError(f"a tensor of shape {size} reaches beyond its {storage.size} values")
    if not count:
        return np.empty(size, storage.dtype)
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def _tensor_of_type(storage: np.ndarray, *arguments: Any) -> np.ndarray:
    """The values of a tensor whose storage is bytes; the type is one of the arguments."""
    offset, size, stride, _, _, dtype, *_ = arguments
    return _tensor(storage.view(np.uint8).view(dtype.dtype), offset, size, stride)


def _parameter(values: Any, *rest: Any) -> Any:
    return values


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return function(*arguments)


_MADE = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}
