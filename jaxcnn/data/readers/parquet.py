"""Random access to the rows of Parquet files that hold image files and labels.

Rows are found through the row groups that the footers of the files list. An image is stored as
binary, or as a struct of `bytes` and `path`, as the library `datasets` does. A label is an integer
or a text. Columns that are not named are found by type; `datasets` stores the types of features and
the names of classes in the metadata of the schema.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._checks import near, one_line, optional_package
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import parquet_pages

# Preferred names, if several columns have the right type.
_IMAGES = ("image", "img", "jpg", "png", "webp", "picture", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "cls", "class", "target", "category")
NO_LABEL = -1
_TYPES = {"image": "binary or a struct of bytes and path", "label": "integer or text"}


class Columns(NamedTuple):
    """The columns of a set of images.

    Attributes:
      image: path of the column of image files in the schema, such as "image.bytes".
      label: name of the column of labels.
      class_names: from the metadata of the schema; None if it has none.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None


class File(NamedTuple):
    """A Parquet file.

    Attributes:
      path: of the file.
      footer: its `pyarrow.parquet.FileMetaData`.
      starts: number of the first row of each row group, and the number of rows.
    """

    path: Path
    footer: Any
    starts: np.ndarray

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.starts[-1])


def open_file(path: Path) -> File:
    """Reads the footer of a Parquet file.

    Args:
      path: of the file.

    Raises:
      FileNotFoundError: it does not exist.
      ValueError: it is not a Parquet file, or it is truncated.
    """
    parquet = optional_package("pyarrow.parquet", "hf")
    import pyarrow

    local = os.fspath(path)
    try:
        with open(local, "rb") as file:
            footer = parquet.read_metadata(file)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} is not a Parquet file, or damaged: {one_line(error)}") from error
    lengths = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    return File(path, footer, np.cumsum([0, *lengths]))


def find_columns(file: File, wanted: Mapping[str, str]) -> Columns:
    """Finds the columns of images and labels.

    Args:
      file: of which the schema is used.
      wanted: {"image" or "label": name of the column}; others are found by type.

    Raises:
      ValueError: there is no such column, its type is not supported, or several would do.
    """
    schema = file.footer.schema.to_arrow_schema()
    features = _features(schema)
    image = _choose("image", wanted, schema, _IMAGES, lambda f: _image_rank(f, features))
    label = _choose("label", wanted, schema, _LABELS, lambda f: _label_rank(f, features))
    field = schema.field(image)
    names = features.get(label, {}).get("names")
    return Columns(
        image if not field.type.num_fields else f"{image}.bytes",
        label,
        tuple(map(str, names)) if names else None,
    )


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The features that `datasets` stored in the metadata of a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: f for name, f in features.items() if isinstance(f, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _choose(
    what: str,
    wanted: Mapping[str, str],
    schema: Any,
    usual: Sequence[str],
    rank: Callable[[Any], int],
) -> str:
    """The name of a column: the wanted one, or the one of the highest rank that has a usual name.

    `rank` returns 0 for a column of another type and 1 if only the type fits.
    """
    has = ", ".join(f"{field.name!r} ({field.type})" for field in schema)
    if name := wanted.get(what):
        if name not in schema.names:
            raise ValueError(f"there is no column {name!r}{near(name, schema.names)}; it has {has}")
        if not rank(schema.field(name)):
            kind = schema.field(name).type
            raise ValueError(f"column {name!r} is {kind}; it must be {_TYPES[what]}")
        return name
    ranks = {field.name: rank(field) for field in schema}
    best = max(ranks.values(), default=0)
    found = [name for name, value in ranks.items() if value == best > 1]
    named = [name for name in usual if name in found]
    if not (named or len(found) == 1):
        problem = f"{len(found)} columns could be the {what}" if found else f"no column of {what}s"
        raise ValueError(f"{problem}; name one with data.{what}=COLUMN; it has {has}")
    return named[0] if named else found[0]


def _image_rank(field: Any, features: Mapping[str, Mapping[str, Any]]) -> int:
    import pyarrow.types as types

    kind = field.type
    if types.is_struct(kind):
        inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        kind = inner.get("bytes") if set(inner) <= {"bytes", "path"} else None
    if kind is None or not (types.is_binary(kind) or types.is_large_binary(kind)):
        return 0
    return 3 if features.get(field.name, {}).get("_type") == "Image" else 2


def _label_rank(field: Any, features: Mapping[str, Mapping[str, Any]]) -> int:
    """Without metadata, a label is recognized only by a usual name: many columns are numbers."""
    import pyarrow.types as types

    kind = field.type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        return 0
    if features.get(field.name, {}).get("_type") == "ClassLabel" and types.is_integer(kind):
        return 3
    return 2 if field.name in _LABELS else 1


def read_labels(file: File, column: str) -> list[int | str | None]:
    """Reads the labels of all rows of a file.

    Args:
      file: to read.
      column: name of the column.

    Raises:
      ValueError: the column is damaged.
    """
    groups = range(file.footer.num_row_groups)
    return _read(file, groups, column).column(0).to_pylist() if groups else []


def _read(file: File, groups: Iterable[int], column: str) -> Any:
    """Row groups of a column as a table. Raises `BadImage` if they are damaged."""
    import pyarrow
    import pyarrow.parquet

    local = os.fspath(file.path)
    try:
        with open(local, "rb") as opened:
            parquet = pyarrow.parquet.ParquetFile(
                opened, metadata=file.footer, page_checksum_verification=True
            )
            return parquet.read_row_groups(list(groups), columns=[column], use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f"is damaged: {one_line(error)}") from None


def value_reader(files: Sequence[File], column: str) -> Callable[[int, int], bytes]:
    """Returns a function that reads the value at (file, row) of a binary column.

    Threads may call the function. It raises `BadImage` if the row has no value or is damaged.

    Args:
      files: the files of a split.
      column: path of the column, see `Columns`.
    """
    locks = [threading.Lock() for _ in files]
    known: list[dict[int, parquet_pages.Values | None]] = [{} for _ in files]

    @functools.lru_cache(maxsize=2)
    def whole_group(number: int, group: int) -> Any:
        return _read(files[number], [group], column).column(0)

    def read(number: int, row: int) -> bytes:
        file = files[number]
        group = int(np.searchsorted(file.starts, row, "right")) - 1
        row -= int(file.starts[group])
        with locks[number]:  # threads that read neighbors prepare a row group once
            if group not in known[number]:
                known[number][group] = _find_values(file, group, column)
            values = known[number][group]
            if values is None:
                value = whole_group(number, group)[row].as_py()
                data = value["bytes"] if isinstance(value, dict) else value
        if values is not None:
            data = parquet_pages.read_value(file.path, values, row)
        if data is None:
            raise BadImage("has no image")
        return data

    return read


def _find_values(file: File, group: int, column: str) -> parquet_pages.Values | None:
    """The places of the values of a row group; None if they can only be read together."""
    schema = file.footer.schema
    index = {schema.column(i).path: i for i in range(len(schema))}.get(column)
    if index is None:
        raise ValueError(f"{file.path} has no column {column!r}")
    chunk = file.footer.row_group(group).column(index)
    try:
        return parquet_pages.find_values(
            file.path, chunk, schema.column(index).max_definition_level
        )
    except parquet_pages.Unsupported:
        return None
