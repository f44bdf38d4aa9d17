"""Datasets of the Hugging Face hub in Parquet files, such as "hf:ILSVRC/imagenet-1k".

The files are in a folder (as `hf download` and the caches of the hub and of `datasets` store them),
or are downloaded. `hub_layout` assigns them to splits. Names of classes are in the metadata of the
files or in the README.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import data_path, fetch
from jaxcnn._checks import note_once
from jaxcnn._files import is_local
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, hub_layout, parquet
from jaxcnn.data.sets import FileShard, names_of_labels


def open_hub(
    place: str, data_dir: str | os.PathLike | None, columns: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens a dataset of the hub.

    Args:
      place: path of a folder, beginning with "/", "." or "~", or OWNER/NAME/CONFIGURATION@REVISION,
        of which only NAME is necessary.
      data_dir: directory that a relative path belongs to. For a NAME, a directory with the files,
        or a cache to download them to; None for the hub's own.
      columns: see `parquet.find_columns`.

    Returns:
      (class names, {split: examples}), without splits that have no labels.

    Raises:
      FileNotFoundError: the folder or one of its files does not exist.
      ValueError: the dataset is not on the hub, cannot be downloaded or is not one of images.
    """
    folder, config = find_folder(place, data_dir)
    names, card = list(_parquet_files(folder)), hub_layout.read_card(folder)
    subject = f"hf:{place}"
    config, files = hub_layout.split_files(names, card, config, subject)
    hub_layout.check_complete(folder, files)
    fetch(folder / name for found in files.values() for name in found)
    opened = {s: [parquet.open_file(folder / n) for n in found] for s, found in files.items()}
    _check_sizes(opened, hub_layout.of_config(card.get("dataset_info"), config), subject)
    for empty in [split for split, found in opened.items() if not any(f.rows for f in found)]:
        note_once(f"{subject}: the files of {empty!r} have no rows; it is left out")
        del opened[empty]
    if not opened:
        raise ValueError(f"{subject} has no examples")
    try:
        chosen = parquet.find_columns(opened.get("train", next(iter(opened.values())))[0], columns)
    except ValueError as error:
        raise ValueError(f"{subject}: {error}") from None
    for found in opened.values():
        for file in found:
            _check_columns(file, chosen)
    labels = {split: _Labels(found, chosen.label) for split, found in opened.items()}
    labels = {split: one for split, one in labels.items() if not one.all_missing()}
    if not labels:
        raise ValueError(f"{subject} has no labels in column {chosen.label!r}")
    class_names = chosen.class_names or _names_of_card(card, config, chosen.label)
    if class_names is None:
        class_names = names_of_labels(labels.get("train", next(iter(labels.values()))).unique())
    return class_names, {
        split: _part(opened[split], chosen, one, class_names) for split, one in labels.items()
    }


def find_folder(place: str, data_dir: str | os.PathLike | None) -> tuple[Path, str | None]:
    """Finds or downloads the files of a dataset.

    Args:
      place: see `open_hub`.
      data_dir: see `open_hub`.

    Returns:
      (folder, name of the configuration or None).
    """
    if place.startswith(("/", ".", "~")) or not is_local(place) or os.path.isabs(place):
        path = data_path(place, data_dir)
        if path.is_dir():
            return _newest_snapshot(path), None
        if path.parent.is_dir() and any(_parquet_files(path.parent)):
            return path.parent, path.name
        raise FileNotFoundError(f"there is no folder {path}")
    name, _, revision = place.partition("@")
    owner_and_name, config = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:]) or None
    if data_dir:
        root = data_path(data_dir)
        for folder in (root / owner_and_name, root / owner_and_name.split("/")[-1]):
            if any(_parquet_files(folder)):
                return folder, config
        if _is_dataset(root, owner_and_name.split("/")[-1]):
            return root, config
        if not is_local(root):
            raise FileNotFoundError(f"hf:{place} is not in {root}")
    from jaxcnn.data.readers import hub_download

    try:
        return hub_download.fetch(owner_and_name, revision or None, config, data_dir), config
    except (FileNotFoundError, ValueError) as error:
        if not Path(place).is_dir():
            raise
        raise type(error)(f"{error}; for the folder {place}, write hf:./{place}") from None


def _is_dataset(folder: Path, name: str) -> bool:
    """Whether a folder is that of a dataset, and not one that has several of them."""
    own = ("*.parquet", "data/*.parquet", "default/*.parquet", "default/*/*.parquet")
    if any(any(folder.glob(pattern)) for pattern in own):
        return True
    said = folder.name == name or (folder / "README.md").is_file()
    return said and any(any(folder.glob(f"{below}*.parquet")) for below in ("*/", "*/*/"))


def _newest_snapshot(path: Path) -> Path:
    """The snapshot of a folder of the hub's cache, `datasets--OWNER--NAME`; other folders as is."""
    for reference in (path / "refs" / "main", path / "refs" / "convert" / "parquet"):
        if reference.is_file():
            snapshot = path / "snapshots" / reference.read_text("utf-8").strip()
            if any(_parquet_files(snapshot)):
                return snapshot
    return path


def _parquet_files(folder: Path) -> Iterator[str]:
    """Yields the sorted names of the Parquet files in a folder, relative to it."""
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if not any(part.startswith(".") for part in name.split("/")):
            yield name


def _check_sizes(
    opened: Mapping[str, Sequence[parquet.File]], info: Mapping[str, Any], subject: str
) -> None:
    splits = info.get("splits")
    described = list(splits.values()) if isinstance(splits, dict) else splits
    for entry in described if isinstance(described, list) else ():
        if not isinstance(entry, dict):
            continue
        name, expected = str(entry.get("name")), entry.get("num_examples")
        name = name if name in opened else hub_layout.split_in(name) or name
        if name not in opened:
            continue
        size = sum(file.rows for file in opened[name])
        if isinstance(expected, int) and size != expected:
            raise ValueError(
                f"{subject}: {name!r} has {size:,} examples; its description says {expected:,}"
            )


def _check_columns(file: parquet.File, chosen: parquet.Columns) -> None:
    schema = file.footer.schema
    paths = {schema.column(i).path for i in range(len(schema))}
    for column in (chosen.image, chosen.label):
        if column not in paths:
            raise ValueError(f"{file.path} has no column {column!r}; it has {', '.join(paths)}")


class _Labels:
    """The labels of a split, read when they are needed."""

    def __init__(self, files: Sequence[parquet.File], column: str):
        self._files, self._column = files, column
        self._read: dict[int, list[int | str | None]] = {}

    def get(self, file: int) -> list[int | str | None]:
        """Returns the labels of a file."""
        if file not in self._read:
            try:
                self._read[file] = parquet.read_labels(self._files[file], self._column)
            except BadImage as error:
                path = self._files[file].path
                raise ValueError(f"{path}: column {self._column!r} {error}") from None
        return self._read[file]

    def all_missing(self) -> bool:
        """Returns whether all labels are -1 or null, as in the test split of ImageNet."""
        return all(
            label in (None, parquet.NO_LABEL)
            for file in range(len(self._files))
            for label in self.get(file)
        )

    def unique(self) -> set[int | str]:
        """Returns the different labels."""
        found = {label for file in range(len(self._files)) for label in self.get(file)}
        return {label for label in found if label not in (None, parquet.NO_LABEL)}


def _names_of_card(card: Mapping[str, Any], config: str, label: str) -> tuple[str, ...] | None:
    """The class names in the README, as a list or as {"0": name, ...}."""
    features = hub_layout.of_config(card.get("dataset_info"), config).get("features")
    if isinstance(features, dict):  # of the cache of `datasets`
        names = features.get(label, {}).get("names")
        return tuple(map(str, names)) if isinstance(names, list) and names else None
    for feature in features if isinstance(features, list) else ():
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        if isinstance(kind, dict) and feature.get("name") == label:
            names = kind.get("class_label", {}).get("names")
            names = list(names.values()) if isinstance(names, dict) else names
            return tuple(map(str, names)) if isinstance(names, list) and names else None
    return None


def _part(
    files: Sequence[parquet.File],
    columns: parquet.Columns,
    labels: _Labels,
    class_names: tuple[str, ...],
) -> FileShard:
    place = array_record.place_of([(file.path, file.rows) for file in files])
    image = parquet.value_reader(files, columns.image)
    numbers = {name: i for i, name in enumerate(class_names)}

    def read(i: int) -> tuple[bytes, int]:
        file, row = place(i)
        label = labels.get(file)[row]
        number = numbers.get(label) if isinstance(label, str) else label
        if number is None or not 0 <= number < len(class_names):
            raise BadImage(f"has the label {label!r}; there are {len(class_names)} classes")
        return image(file, row), number

    def name(i: int) -> str:
        file, row = place(i)
        return f"{files[file].path}, row {row}"

    def listing(start: int, stop: int) -> list[str]:
        shards = (f"{file.path.name} {file.rows}" for file in files)
        return [f"{start} to {stop}", columns.image, columns.label, *shards]

    return FileShard(int(np.sum([f.rows for f in files])), read, name, listing=listing)
