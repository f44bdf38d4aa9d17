"""Reads protocol buffers of a schema that is written as text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._checks import optional_package

# One bit pattern is both a packed list of numbers and a string of bytes: numbers that become arrays
# are declared as bytes, and no number is ever converted by itself.
_TYPES = {
    "float": 2,
    "int64": 3,
    "int32": 5,
    "fixed32": 7,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGE = 11


@functools.cache
def message_class(schema: str, name: str) -> Any:
    """Creates the class of a message.

    Args:
      schema: one message a line, as in "Shape: repeated int64 dim = 1, string name = 2"; types that
        are not basic are messages of the schema.
      name: of the message.

    Raises:
      ValueError: the package protobuf is not installed.
    """
    optional_package("google.protobuf", "convert")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = f"jaxcnn_{name}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for line in filter(None, map(str.strip, schema.splitlines())):
        title, _, fields = line.partition(":")
        message = file.message_type.add(name=title)
        for field in filter(None, map(str.split, fields.split(","))):
            kind, word, _, number = field[-4:]
            added = message.field.add(name=word, number=int(number), label=1)
            if field[0] == "repeated":
                added.label = 3
            if kind in _TYPES:
                added.type = _TYPES[kind]
            else:
                added.type, added.type_name = _MESSAGE, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def parse(path: Path, schema: str, name: str, what: str) -> Any:
    """Reads a file that consists of one message.

    Args:
      path: of the file.
      schema: see `message_class`.
      name: of the message.
      what: kind of the file, for the error.

    Raises:
      ValueError: the file is damaged or of another kind.
    """
    try:
        return parsed(path.read_bytes(), schema, name)
    except ValueError as error:
        raise ValueError(f"{path} is not a valid {what}: {error}") from error


def parsed(data: bytes, schema: str, name: str) -> Any:
    """Reads a message.

    Args:
      data: of the message.
      schema: see `message_class`.
      name: of the message.

    Raises:
      ValueError: the data are damaged.
    """
    message = message_class(schema, name)()
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return message


def numbers(parts: Any, dtype: Any) -> np.ndarray:
    """Converts a packed list that was declared as repeated bytes to an array."""
    data = b"".join(parts)
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        raise ValueError(f"{len(data)} bytes are not a multiple of the size of {np.dtype(dtype)}")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
