"""Datasets of photos prepared with TensorFlow Datasets, such as ImageNet, without TensorFlow.

A dataset must have an `image` (JPEG or PNG files of any size) and a `label`, or `objects` with
`label` and `bbox` (such as voc). In the latter case the label of an image is that of its largest
object, and its boxes are those of all objects with this label. Otherwise the boxes are the feature
`bbox`, if there is one. Images remain encoded.

The labels of `imagenet2012_real` are the original ones, so that errors are comparable with those on
`imagenet2012`. `real_labels` returns the reassessed ones (arXiv 2006.07159), of which an image can
have any number, including none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._cache import fetch
from jaxcnn._checks import one_line, optional_package
from jaxcnn.data import boxes
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, parquet, record_index, tfds
from jaxcnn.data.sets import FileShard

# Splits whose labels are all -1.
_UNLABELED = {"imagenet2012": ("test",)}
_LABELS = ("label", "original_label")


def open_tfds_images(
    name: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens a prepared dataset of photos.

    Args:
      name: name in TFDS, such as "imagenet2012" or "imagenette/320px-v2".
      data_dir: see `tfds.open_tfds`.

    Returns:
      (class names, {split: examples}).

    Raises:
      FileNotFoundError: the dataset or one of its files does not exist.
      ValueError: the formats or features of the dataset are not supported.
    """
    tensorflow_datasets = optional_package("tensorflow_datasets", "tfds")
    info, form, folder = tfds.open_info(name, data_dir)
    objects = _has_objects(info.features)
    label = "objects" if objects else _label_feature(name, info.features)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}

    def parse(record: bytes) -> Any:
        try:
            return info.features.deserialize_example_np(record, decoders=skip)
        except Exception as error:  # TFDS does not document its exceptions
            raise BadImage(f"is not an example of the dataset: {one_line(error)}") from error

    def example(record: bytes) -> tuple[bytes, int]:
        features = parse(record)
        if not objects:
            return features["image"], int(features[label])
        return features["image"], _largest(features["objects"])[0]

    def read_boxes(record: bytes) -> np.ndarray:
        features = parse(record)
        return _largest(features["objects"])[1] if objects else boxes.pack(features["bbox"])

    has_boxes = objects or "bbox" in info.features
    parts = {}
    for part, split in info.splits.items():
        if part not in _UNLABELED.get(name.partition("/")[0], ()):
            record, where, listing = _open_part(split, form, folder)
            parts[part] = FileShard(
                size=split.num_examples,
                read=lambda i, record=record: example(record(i)),  # type: ignore[misc]
                name=where,
                boxes=(lambda i, record=record: read_boxes(record(i))) if has_boxes else None,  # type: ignore[misc]
                listing=listing,
            )
    feature = info.features["objects"]["label"] if objects else info.features[label]
    return tuple(map(str, feature.names or range(feature.num_classes))), parts


def real_labels(data_dir: str | os.PathLike | None = None) -> list[tuple[int, ...]]:
    """Reads the reassessed labels of `imagenet2012_real`.

    A prediction is correct if it is one of the labels of the image. Images without labels are
    excluded from the evaluation.

    Args:
      data_dir: see `tfds.open_tfds`.

    Returns:
      The labels of each example, in order.
    """
    tensorflow_datasets = optional_package("tensorflow_datasets", "tfds")
    info, form, folder = tfds.open_info("imagenet2012_real", data_dir)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
    split = info.splits["validation"]
    record, _, _ = _open_part(split, form, folder)
    examples = (
        info.features.deserialize_example_np(record(i), decoders=skip)
        for i in range(split.num_examples)
    )
    return [tuple(map(int, example["real_label"])) for example in examples]


def _has_objects(features: Any) -> bool:
    fields = getattr(dict(features.items()).get("objects"), "feature", None)
    return not any(name in features for name in _LABELS) and all(
        name in (fields or ()) for name in ("label", "bbox")
    )


def _largest(objects: Any) -> tuple[int, np.ndarray]:
    """Returns the label of the largest object, and the boxes f32[M,4] with this label."""
    all_boxes, labels = np.reshape(objects["bbox"], (-1, 4)), np.asarray(objects["label"])
    if not len(labels):
        raise BadImage("has no object")
    label = int(labels[boxes.area(all_boxes).argmax()])
    return label, boxes.pack(all_boxes[labels == label])


def _label_feature(name: str, features: Any) -> str:
    has = ", ".join(map(repr, features))
    if "image" not in features:
        raise ValueError(f"tfds:{name} has no feature 'image'; it has {has}")
    if np.dtype(features["image"].np_dtype) != np.uint8:
        raise ValueError(
            f"tfds:{name} has images of {np.dtype(features['image'].np_dtype)}, not u8"
        )
    names = [label for label in _LABELS if label in features]
    if not names or getattr(features[names[0]], "num_classes", None) is None:
        raise ValueError(f"tfds:{name} has no 'label' of one class; it has {has}")
    return names[0]


def _open_part(
    split: Any, form: str, folder: Path
) -> tuple[Callable[[int], bytes], Callable[[int], str], Callable[[int, int], list[str]]]:
    """(record, name, listing): functions of indices of examples in a split, see `FileShard`."""
    shards = tfds.shards(split, form, folder)
    for path, length in shards:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {length} examples of {split.name!r}")
    read = _READERS[form](shards)
    place = array_record.place_of(shards)

    def where(i: int) -> str:
        shard, row = place(i)
        return f"{shards[shard][0]}, record {row}"

    def listing(start: int, stop: int) -> list[str]:
        return [f"{start} to {stop}", *(f"{path.stem} {length}" for path, length in shards)]

    return lambda i: read(*place(i)), where, listing


def _tfrecords(shards: list[tuple[Path, int]]) -> Callable[[int, int], bytes]:
    """Returns a function that reads the record at (shard, row), with an index of the files."""
    paths = [path for path, _ in shards]
    indexed = record_index.open_index(paths, paths[0].name.partition(".")[0])
    for (path, length), (starts, _) in zip(shards, indexed):
        if len(starts) != length:
            raise ValueError(f"{path} holds {len(starts)} examples; {length} expected")

    def read(shard: int, row: int) -> bytes:
        starts, lengths = indexed[shard]
        return record_index.read_record(paths[shard], int(starts[row]), int(lengths[row]))

    return read


def _parquets(shards: list[tuple[Path, int]]) -> Callable[[int, int], bytes]:
    """Returns a function that reads the record at (shard, row) of Parquet files."""
    fetch(path for path, _ in shards)
    files = [parquet.open_file(path) for path, _ in shards]
    for file, (path, length) in zip(files, shards):
        if file.rows != length:
            raise ValueError(f"{path} holds {file.rows} examples; {length} expected")
    return parquet.value_reader(files, tfds.PARQUET_COLUMN)


_READERS: dict[str, Callable[[list[tuple[Path, int]]], Callable[[int, int], bytes]]] = {
    "array_record": array_record.read_shards,
    "tfrecord": _tfrecords,
    "parquet": _parquets,
}
