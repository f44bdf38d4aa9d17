"""Sets of photos that TFDS has built, read without TensorFlow: ImageNet and the like.

Any set with an `image` (JPEG or PNG files of any size) and a `label`, or with `objects` that have a
`label` and a `bbox` (voc): then the image's label is that of its largest object. Boxes are those of
the objects of that label, or the set's own `bbox`. Images stay encoded. The
labels of `imagenet2012_real` are the original ones, so that an error on it is comparable with one
on `imagenet2012`; `real_labels` gives the reassessed ones (arXiv 2006.07159), of which an image has
any number, also none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._checks import one_line, optional_package
from jaxcnn.data import boxes
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import array_record, record_index, tfds
from jaxcnn.data.sets import FileShard

# Parts whose labels are -1 throughout.
_UNLABELLED = {"imagenet2012": ("test",)}
_LABELS = ("label", "original_label")


def open_tfds_images(
    name: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """(class names, {part: examples}) of a set that TFDS has built, by its name.

    Args:
      name: TFDS's name: "imagenet2012", "imagenette/320px-v2".
      data_dir: see `tfds.open_tfds`.

    Raises:
      FileNotFoundError: the set or one of its files is not there.
      ValueError: it is there in formats or with features that cannot be read.
    """
    tensorflow_datasets = optional_package("tensorflow_datasets", "tfds")
    info, form = tfds.open_info(name, data_dir)
    objects = _has_objects(info.features)
    label = "objects" if objects else _label_feature(name, info.features)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}

    def parse(record: bytes) -> Any:
        try:
            return info.features.deserialize_example_np(record, decoders=skip)
        except Exception as error:  # TFDS raises whatever its parts raise
            raise BadImage(f"is no example of the set: {one_line(error)}") from error

    def example(record: bytes) -> tuple[bytes, int]:
        found = parse(record)
        if not objects:
            return found["image"], int(found[label])
        return found["image"], _largest(found["objects"])[0]

    def located(record: bytes) -> np.ndarray:
        found = parse(record)
        return _largest(found["objects"])[1] if objects else boxes.pack(found["bbox"])

    has_boxes = objects or "bbox" in info.features
    parts = {}
    for part, split in info.splits.items():
        if part not in _UNLABELLED.get(name.partition("/")[0], ()):
            record, where, listing = _open_part(split, form)
            parts[part] = FileShard(
                size=split.num_examples,
                read=lambda i, record=record: example(record(i)),  # type: ignore[misc]
                name=where,
                boxes=(lambda i, record=record: located(record(i))) if has_boxes else None,  # type: ignore[misc]
                listing=listing,
            )
    feature = info.features["objects"]["label"] if objects else info.features[label]
    return tuple(map(str, feature.names or range(feature.num_classes))), parts


def real_labels(data_dir: str | os.PathLike | None = None) -> list[tuple[int, ...]]:
    """The reassessed labels of each example of `imagenet2012_real`, in order.

    An answer counts as right if it is one of an image's labels; images without any are left out.
    """
    tensorflow_datasets = optional_package("tensorflow_datasets", "tfds")
    info, form = tfds.open_info("imagenet2012_real", data_dir)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
    split = info.splits["validation"]
    record, _, _ = _open_part(split, form)
    examples = (
        info.features.deserialize_example_np(record(i), decoders=skip)
        for i in range(split.num_examples)
    )
    return [tuple(map(int, example["real_label"])) for example in examples]


def _has_objects(features: Any) -> bool:
    inside = getattr(dict(features.items()).get("objects"), "feature", None)
    return not any(name in features for name in _LABELS) and all(
        name in (inside or ()) for name in ("label", "bbox")
    )


def _largest(objects: Any) -> tuple[int, np.ndarray]:
    """The label of the largest object, and the boxes f32[M,4] of that label."""
    found, labels = np.reshape(objects["bbox"], (-1, 4)), np.asarray(objects["label"])
    if not len(labels):
        raise BadImage("has no object")
    label = int(labels[boxes.area(found).argmax()])
    return label, boxes.pack(found[labels == label])


def _label_feature(name: str, features: Any) -> str:
    has = ", ".join(map(repr, features))
    if "image" not in features:
        raise ValueError(f"tfds:{name} has no feature 'image'; it has {has}")
    if np.dtype(features["image"].np_dtype) != np.uint8:
        raise ValueError(
            f"tfds:{name} has images of {np.dtype(features['image'].np_dtype)}, not u8"
        )
    found = [label for label in _LABELS if label in features]
    if not found or getattr(features[found[0]], "num_classes", None) is None:
        raise ValueError(f"tfds:{name} has no 'label' of one class; it has {has}")
    return found[0]


def _open_part(
    split: Any, form: str
) -> tuple[Callable[[int], bytes], Callable[[int], str], Callable[[int, int], list[str]]]:
    """(record, where, listing): functions of examples' numbers in a split, see `FileShard`."""
    shards = tfds.shards(split, form)
    for path, length in shards:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {length} examples of {split.name!r}")
    read = {"array_record": array_record.read_shards, "tfrecord": _tfrecords}[form](shards)
    place = array_record.place_of(shards)

    def where(i: int) -> str:
        shard, row = place(i)
        return f"{shards[shard][0]}, record {row}"

    def listing(start: int, stop: int) -> list[str]:
        return [f"{start} to {stop}", *(f"{path.stem} {length}" for path, length in shards)]

    return lambda i: read(*place(i)), where, listing


def _tfrecords(shards: list[tuple[Path, int]]) -> Callable[[int, int], bytes]:
    """(shard, row) to a record, by an index of the files."""
    paths = [path for path, _ in shards]
    indexed = record_index.open_index(paths, paths[0].name.partition(".")[0])
    for (path, length), (starts, _) in zip(shards, indexed):
        if len(starts) != length:
            raise ValueError(f"{path} holds {len(starts)} examples; {length} expected")

    def read(shard: int, row: int) -> bytes:
        starts, lengths = indexed[shard]
        return record_index.read_record(paths[shard], int(starts[row]), int(lengths[row]))

    return read
