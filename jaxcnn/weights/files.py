"""Reads and writes weights files: safetensors, npz, and PyTorch checkpoints.

PyTorch checkpoints are read without PyTorch, see `torch_files`, but it is required to write them.
All formats preserve types that NumPy lacks (bfloat16 and fp8).
Changed bits are found when a file is read: npz and pth files have checksums of their own, and
safetensors files get them as metadata.
"""

from __future__ import annotations

import json
import math
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxcnn._files import any_path, has_folder, is_local, readable, writable, written_by
from jaxcnn.weights import torch_files

SUFFIXES = (".safetensors", ".npz", ".pth")
_PICKLE = b"\x80"  # the first byte of a pickle
_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")  # of PyTorch checkpoints

_OTHER_TYPES = {  # by the name of ml_dtypes, with the name of safetensors
    "bfloat16": (ml_dtypes.bfloat16, "BF16"),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
    "float8_e5m2": (ml_dtypes.float8_e5m2, "F8_E5M2"),
}
_DTYPES = "__dtypes__"  # the entry of an npz file with these types, {key: name} as JSON
_METADATA = "__metadata__"  # the entry of an npz file with the metadata, as JSON
_DIGESTS = "crc32"  # metadata of a safetensors file, {key: type, shape and checksum} as JSON


MOST_UNPACKED = 1032  # bytes for a byte that is deflated; there can be no more
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

_BY_NAME = {name: np.dtype(dtype) for dtype, name in _OTHER_TYPES.values()}


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the arrays and the metadata of a weights file.

    No code in the file is executed: pickled objects are rejected.

    Args:
      path: of the file; the suffix determines the format.

    Returns:
      {key: array}, and the metadata, which is empty if the file has none.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the suffix is unknown, the file cannot be read, or PyTorch is required but not
        installed.
    """
    path = any_path(path)
    suffix = _suffix(path)
    if is_local(path) and not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with readable(path) as local:
        try:
            return _READERS[suffix](local)
        except ValueError as error:
            if local == path:
                raise
            raise ValueError(str(error).replace(str(local), str(path))) from error


def stated(path: str | Path, metadata: Mapping[str, str], name: str, kind: type) -> Any:
    """What a file's metadata say in JSON by this name; None if they do not.

    Raises ValueError that names the file if it is not JSON of this type.
    """
    try:
        value = json.loads(metadata.get(name, "null"))
    except (ValueError, RecursionError):
        value = metadata[name]
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{path} has invalid metadata: {name} is {value!r:.60}")
    return value


def is_weights(name: str) -> bool:
    """Returns whether a name has the suffix of a weights file."""
    return name.lower().endswith((*SUFFIXES, *_TORCH))


def write(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a weights file atomically.

    Args:
      path: of the file; the suffix determines the format.
      arrays: {key: array}.
      metadata: to be stored with the arrays; a .pth file stores none.

    Raises:
      FileNotFoundError: the directory does not exist.
      ValueError: the suffix is unknown, or PyTorch is required but not installed.
    """
    path = any_path(path)
    suffix = _suffix(path)
    if not has_folder(path):
        raise FileNotFoundError(f"there is no directory {path.parent} to write {path.name} to")
    if suffix == ".pth":
        _torch(path)  # before a draft is begun
    with writable(path) as draft:
        _WRITERS[suffix](draft, arrays, dict(metadata or {}))


def _suffix(path: Path) -> str:
    if not is_weights(path.name):
        known = ", ".join(dict.fromkeys((*SUFFIXES, *_TORCH)))
        raise ValueError(f"{path} ends in {path.suffix!r}; weights are in {known}")
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES else ".pth"


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            others = {key for key, part in slices.items() if part.get_dtype() in _BY_NAME}
            arrays = {key: file.get_tensor(key) for key in slices if key not in others}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    arrays |= _read_other_types(path, others)
    if _DIGESTS in metadata:
        _compare(path, metadata.pop(_DIGESTS), _digests(arrays, metadata))
    return arrays, metadata


def _digests(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, str]:
    """{key: type, shape and checksum} of the arrays, and as `_METADATA` that of the metadata."""
    found = {_METADATA: f"{zlib.crc32(json.dumps(metadata, sort_keys=True).encode()):08x}"}
    for key, array in arrays.items():
        bits = np.ascontiguousarray(array).view(np.uint8)
        found[key] = f"{array.dtype} {list(array.shape)} {zlib.crc32(bits.data):08x}"
    return found


def _compare(path: Path, saved: str, found: Mapping[str, str]) -> None:
    try:
        known = dict(json.loads(saved))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its checksums cannot be read") from error
    for key in {**known, **found}:
        if known.get(key) != found.get(key):
            raise ValueError(f"{path} is damaged: {key} has a wrong checksum")


def _read_other_types(path: Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """Arrays of types that safetensors cannot convert to NumPy, from a file that it has checked."""
    if not keys:
        return {}
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        found = {}
        for key in keys:
            start, stop = header[key]["data_offsets"]
            file.seek(8 + length + start)
            flat = np.frombuffer(file.read(stop - start), _BY_NAME[header[key]["dtype"]])
            found[key] = flat.reshape(header[key]["shape"])
    return found


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a complete zip file")
        with np.load(path, allow_pickle=False) as file:
            assert file.zip is not None
            _check_sizes(file.zip, path.stat().st_size)
            arrays = {key: file[key] for key in file.files}
        metadata, types = (
            _texts(json.loads(str(arrays.pop(key, "{}")))) for key in (_METADATA, _DTYPES)
        )
        return {key: _typed(key, a, types.get(key)) for key, a in arrays.items()}, metadata
    except Exception as error:  # NumPy and zipfile raise whatever their parts raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} cannot be read as npz: {reason}") from error


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError if an array is larger than what a file of this size can hold of it."""
    for entry in archive.infolist():
        held = min(entry.compress_size, size)
        most = held if entry.compress_type == zipfile.ZIP_STORED else MOST_UNPACKED * held
        with archive.open(entry) as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            claimed = file.tell() + math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and (claimed != entry.file_size or claimed > most):
            raise ValueError(
                f"{entry.filename} declares {dtype}{list(shape)}, but holds {held:,} bytes"
            )


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"its metadata are not a mapping of strings: {value!r:.60}")
    return value


def _typed(key: str, array: np.ndarray, name: str | None) -> np.ndarray:
    """The array with the type of this name.

    NumPy reads arrays of types that it lacks as untyped bytes.
    """
    if name is None and (array.dtype.kind != "V" or array.dtype.names):
        return array
    if name is None and array.dtype.itemsize == 2:
        name = "bfloat16"  # float16 is NumPy's own
    if name not in _OTHER_TYPES:
        raise ValueError(f"{key!r} has values of {array.dtype.itemsize} bytes, of an unknown type")
    kind = np.dtype(_OTHER_TYPES[name][0])
    if array.dtype.itemsize != kind.itemsize:
        raise ValueError(f"{key!r} is {array.dtype}, but its metadata declare {name}")
    return array.view(kind)


def _read_pth(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if torch_files.is_checkpoint(path):
        content = torch_files.read(path)
    elif _is_old_pth(path):
        content = _read_old_pth(path)
    else:
        raise ValueError(
            f"{path} is damaged or not a checkpoint of PyTorch: it has {path.stat().st_size:,} "
            "bytes, and is neither a complete zip file nor a pickle"
        )
    return torch_files.weights_in(content, path), {}


def _is_old_pth(path: Path) -> bool:
    """Whether a file may be a checkpoint of PyTorch before 1.6: a pickle, or earlier a tar file."""
    with open(path, "rb") as file:
        return file.read(1) == _PICKLE or tarfile.is_tarfile(path)


def _read_old_pth(path: Path) -> Any:
    """A checkpoint of PyTorch before 1.6, with arrays in place of tensors."""
    torch = _torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises exceptions of many types
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be read as weights only: {reason}") from error

    def arrays(value: Any) -> Any:
        if torch.is_tensor(value):
            # NumPy has no bfloat16 of its own.
            value = value.float() if value.dtype == torch.bfloat16 else value
            return value.detach().numpy()
        return {k: arrays(v) for k, v in value.items()} if isinstance(value, Mapping) else value

    return arrays(content)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} needs torch, which is not installed: only files of PyTorch 1.6 and newer can "
            "be read without it, and none can be written; `jaxcnn convert` on a machine with torch "
            "makes a .safetensors file of it"
        ) from error
    return torch


def _write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    import safetensors.numpy

    # The writer copies the buffer as it is in memory, so that a transposed view would be wrong.
    # (ascontiguousarray would turn a scalar into a vector.)
    ordered = {key: np.require(array, requirements="C") for key, array in arrays.items()}
    metadata[_DIGESTS] = json.dumps(_digests(ordered, metadata))
    path.touch()
    mode = path.stat().st_mode
    with written_by(safetensors.SafetensorError, path):
        safetensors.numpy.save_file(ordered, path, metadata=metadata)
    path.chmod(mode)  # safetensors 0.8 lets only the owner read its files


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    extra = {_METADATA: np.array(json.dumps(metadata))} if metadata else {}
    types = {k: a.dtype.name for k, a in arrays.items() if a.dtype.name in _OTHER_TYPES}
    if types:
        extra[_DTYPES] = np.array(json.dumps(types))
    for key, array in arrays.items():
        if array.dtype.hasobject:  # NumPy would pickle it
            raise ValueError(f"{key!r} is of type {array.dtype}; weights are numbers")
    bits = {key: arrays[key].view(f"u{arrays[key].dtype.itemsize}") for key in types}
    everything: dict[str, Any] = {**arrays, **bits, **extra}
    with open(path, "wb") as file:  # to a path NumPy may add a suffix
        np.savez(file, **everything)


def _write_pth(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    torch = _torch(path)

    def tensor(array: np.ndarray) -> Any:
        name = array.dtype.name
        if name not in _OTHER_TYPES:
            return torch.from_numpy(np.array(array))
        bits = np.array(array).view(f"u{array.dtype.itemsize}")
        return torch.from_numpy(bits).view(getattr(torch, name))

    torch.save({key: tensor(array) for key, array in arrays.items()}, path)


_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz, ".pth": _read_pth}
_WRITERS = {".safetensors": _write_safetensors, ".npz": _write_npz, ".pth": _write_pth}
