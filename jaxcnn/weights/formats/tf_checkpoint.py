"""Reads TensorFlow's checkpoints without TensorFlow.

The index of a checkpoint is a table of LevelDB: sorted keys with their values, in blocks that have
checksums. In a checkpoint of version 2, `net.ckpt.index` describes the variables, and their bytes
are in `net.ckpt.data-00000-of-00001`. A checkpoint of version 1, such as those that TF-Slim
published, is one file, `net.ckpt`, whose table contains the variables themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import ml_dtypes
import numpy as np

from jaxcnn.weights.formats import keras, protobuf, slim
from jaxcnn.weights.formats.graph import Layers

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48  # bytes: two places of blocks, zeros, and the magic number
_TRAILER = 5  # bytes behind a block: its compression and its checksum
_DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"

# The fields of TensorFlow's messages that are needed; see `protobuf` for bytes in place of numbers.
_SCHEMA = """
Header: int32 num_shards = 1, int32 endianness = 2
Entry: int32 dtype = 1, Shape shape = 2, int32 shard_id = 3, int64 offset = 4, int64 size = 5, \
  fixed32 crc32c = 6, repeated bytes slices = 7
Shape: repeated Dim dim = 2
Dim: int64 size = 1
Saved: Meta meta = 1, Slice data = 2
Meta: repeated Variable tensor = 1
Variable: string name = 1, Shape shape = 2, int32 type = 3
Slice: string name = 1, Tensor data = 3
Tensor: repeated bytes float_val = 5, repeated bytes double_val = 6
Objects: repeated Object nodes = 1
Object: repeated Attribute attributes = 2
Attribute: string full_name = 2, string checkpoint_key = 3
"""

# Types of weights by their numbers in TensorFlow's types.proto.
_DTYPES = {
    1: np.dtype("<f4"), 2: np.dtype("<f8"), 14: np.dtype(ml_dtypes.bfloat16), 19: np.dtype("<f2"),
}  # fmt: skip
_STRING = 7

Arrays = dict[str, np.ndarray]


def index_of(path: Path) -> Path | None:
    """Finds the file with the table of a checkpoint.

    Args:
      path: of that file or of a file of data, or the name that both begin with.

    Returns:
      The path; None if there is no checkpoint of TensorFlow.
    """
    if not path.name:
        return None
    match = _DATA_FILE.fullmatch(path.name)
    names = [path.name, f"{match[1] if match else path.name}.index"]
    return next((p for p in map(path.with_name, names) if p.is_file() and _is_table(p)), None)


def _is_table(path: Path) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - len(_MAGIC), 0))
        return file.read() == _MAGIC


def read(path: Path) -> Layers:
    """Reads the layers of a checkpoint of TF-Slim or Keras.

    Args:
      path: of the file with the table.

    Raises:
      ValueError: the checkpoint is damaged, incomplete, or of other networks.
    """
    try:
        arrays, objects = _variables(path)
        found = slim.layers(arrays)
        return keras.named_layers(_by_full_names(arrays, objects)) if found is None else found
    except ValueError as error:
        text = f"{path} cannot be read as a TensorFlow checkpoint: {error}"
        raise ValueError(text) from error


def _variables(path: Path) -> tuple[Arrays, bytes]:
    """The variables that are floating-point numbers, and the description of objects, if any."""
    rows = dict(_table(path.read_bytes()))
    first = rows.pop(b"", None)
    if first is None:
        raise ValueError("it does not begin with a header")
    if path.suffix == ".index":
        return _version_2(path, protobuf.parsed(first, _SCHEMA, "Header"), rows)
    return _version_1(protobuf.parsed(first, _SCHEMA, "Saved").meta, rows), b""


def _by_full_names(arrays: Arrays, objects: bytes) -> Arrays:
    """Keras' checkpoints: {"conv1/kernel": array}, in the order of the layers."""
    nodes = protobuf.parsed(objects, _SCHEMA, "Objects").nodes
    named = {
        attribute.full_name: arrays[attribute.checkpoint_key]
        for node in nodes
        for attribute in node.attributes
        if attribute.checkpoint_key in arrays and ".OPTIMIZER_SLOT" not in attribute.checkpoint_key
    }
    if not named:
        raise ValueError("its variables do not have names of TF-Slim or Keras")
    return named


# --- tables -------------------------------------------------------------------------------------


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the rows of a table."""
    footer = data[-_FOOTER:]
    if len(data) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("it is not a whole table")
    place, _ = _handle(footer, _handle(footer, 0)[1])
    for _, value in _rows(_block(data, place)):
        yield from _rows(_block(data, _handle(value, 0)[0]))


def _handle(data: bytes, start: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and where the handle ends."""
    offset, start = _varint(data, start)
    size, start = _varint(data, start)
    return (offset, size), start


def _block(data: bytes, place: tuple[int, int]) -> bytes:
    offset, size = place
    stop = offset + size + _TRAILER
    if stop > len(data) - _FOOTER:
        raise ValueError("a block is cut off")
    _compare(data[offset : stop - 4], int.from_bytes(data[stop - 4 : stop], "little"), "a block")
    if data[stop - _TRAILER]:
        raise ValueError("its blocks are compressed, which jaxcnn does not support")
    return data[offset : offset + size]


def _rows(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the rows of a block; a key begins like the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end, start, key = len(block) - 4 * (restarts + 1), 0, b""
    while start < end:
        shared, start = _varint(block, start)
        rest, start = _varint(block, start)
        length, start = _varint(block, start)
        middle = start + rest
        if shared > len(key) or middle + length > end:
            raise ValueError("a row is cut off")
        key = key[:shared] + block[start:middle]
        start = middle + length
        yield key, block[middle:start]


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= len(data):
            break
        byte, start = data[start], start + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
    raise ValueError("a number is cut off")


def _compare(data: bytes, stored: int, what: str) -> None:
    """Raises ValueError if data have another checksum (CRC-32C, rotated, plus a constant)."""
    crc = google_crc32c.value(data)
    if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF != stored:
        raise ValueError(f"{what} has a wrong checksum")


# --- variables ----------------------------------------------------------------------------------


def _version_2(path: Path, header: Any, rows: dict[bytes, bytes]) -> tuple[Arrays, bytes]:
    if header.endianness:
        raise ValueError("its numbers are big-endian")
    arrays, objects, shards = {}, b"", {}
    for key, value in rows.items():
        name, entry = key.decode(errors="replace"), protobuf.parsed(value, _SCHEMA, "Entry")
        if entry.dtype not in _DTYPES and name != _OBJECTS:
            continue
        if entry.slices:
            raise ValueError(f"variable {name} is stored in parts")
        number = entry.shard_id
        if number not in shards:
            shards[number] = _shard(path, number, header.num_shards)
        start, stop = entry.offset, entry.offset + entry.size
        if not 0 <= start <= stop <= len(shards[number]):
            raise ValueError(f"the data of {name} are cut off")
        data = shards[number][start:stop]
        if name == _OBJECTS:
            objects = _text(name, data, entry) if entry.dtype == _STRING else b""
            continue
        _compare(data, entry.crc32c, name)
        arrays[name] = _array(name, np.frombuffer(data, np.uint8), entry.shape, entry.dtype)
    return arrays, objects


def _shard(path: Path, number: int, count: int) -> bytes:
    name = f"{path.stem}.data-{number:05d}-of-{count:05d}"
    if not (path.parent / name).is_file():
        raise ValueError(f"the file {name} must be in the same folder")
    return (path.parent / name).read_bytes()


def _text(name: str, data: bytes, entry: Any) -> bytes:
    """A scalar of text: its length, a checksum of the length, and the text."""
    size, start = _varint(data, 0)
    if start + 4 + size != len(data):
        raise ValueError(f"{name} is cut off")
    _compare(size.to_bytes(4, "little") + data[start:], entry.crc32c, name)
    return data[start + 4 :]


def _version_1(meta: Any, rows: dict[bytes, bytes]) -> Arrays:
    known = {variable.name: variable for variable in meta.tensor if variable.type in (1, 2)}
    arrays = {}
    for value in rows.values():
        saved = protobuf.parsed(value, _SCHEMA, "Saved").data
        if saved.name not in known:
            continue
        if saved.name in arrays:
            raise ValueError(f"variable {saved.name} is stored in parts")
        variable = known[saved.name]
        parts = saved.data.float_val if variable.type == 1 else saved.data.double_val
        data = np.frombuffer(b"".join(parts), np.uint8)
        arrays[saved.name] = _array(saved.name, data, variable.shape, variable.type)
    return arrays


def _array(name: str, data: np.ndarray, shape: Any, dtype: int) -> np.ndarray:
    sizes, kind = [dim.size for dim in shape.dim], _DTYPES[dtype]
    if min(sizes, default=0) < 0 or math.prod(sizes) * kind.itemsize != data.size:
        raise ValueError(f"variable {name} has {data.size:,} bytes for {kind}{sizes}")
    return data.view(kind).reshape(sizes)
