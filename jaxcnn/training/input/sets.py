"""The training and the test set of a run, in memory or streamed from image files."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn

from jaxcnn import _cache
from jaxcnn.data import catalog, crops, stand_ins
from jaxcnn.data.catalog import open_encoded, with_columns
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset, ImageFileDataset
from jaxcnn.models.registry import create_model, model_info
from jaxcnn.training.config import TrackedConfig

# Center crop as a fraction of the shorter side of the resized image: 224 of 256.
_CENTER_CROP = 0.875


@dataclasses.dataclass(frozen=True)
class Stream:
    """How photos are decoded.

    Attributes:
      image_size: training image size, in pixels.
      crop: training crop, see `jaxcnn.data.crops`.
      eval_size: size of the center crop in evaluation.
      eval_resize: size of the shorter side before the center crop.
      workers: number of decoding threads, 0 for one per core.
    """

    image_size: int
    crop: str
    eval_size: int
    eval_resize: int
    workers: int


# (training set, test set, stream), either both sets in memory and None, or both of image files.
Sets = tuple[Any, Any, Stream | None]


def open_sets(config: TrackedConfig) -> Sets:
    """Opens and checks the data sets of `config.data`.

    Returns:
      (training set, test set, stream); the stream is None for sets in memory.

    Raises:
      ValueError: a field or the data are invalid, or the two sets do not match.
      FileNotFoundError: the data do not exist.
    """
    data = config.data
    source = _source(config)
    if not catalog.is_streamed(source, data.dir):
        resident = [
            catalog.load(source, split, data_dir=data.dir)
            for split in (data.train_split, data.test_split)
        ]
        train, test = resident
        _check_alike("images of shape", train.images.shape[1:], test.images.shape[1:])
        _check_alike("classes", train.num_classes, test.num_classes)
        height, width = train.images.shape[1:3]
        if height != width:  # a run records one size, and evaluates a square
            raise ValueError(
                f"the images of {source} are {height}x{width} pixels; images in memory must be "
                "square: crop or pad them in the data source"
            )
        return train, test, None
    stream = _stream(config)
    photos = [
        open_encoded(source, split, data.dir) for split in (data.train_split, data.test_split)
    ]
    return photos[0], photos[1], stream


def stand_in_sets(config: TrackedConfig) -> Sets | None:
    """Makes sets of the same sizes as those of `open_sets`, without images and without the data.

    They are for programs that are compiled and not run.

    Returns:
      (training set, test set, stream); None if the sizes of the source are not known.

    Raises:
      ValueError: a field is invalid.
    """
    data = config.data
    if not stand_ins.is_known(data.source):
        return None
    train, test = (
        stand_ins.stand_in(data.source, split) for split in (data.train_split, data.test_split)
    )
    return train, test, None if isinstance(train, Dataset) else _stream(config)


def image_shape(dataset: Dataset | ImageFileDataset, stream: Stream | None) -> tuple[int, int, int]:
    """Returns (height, width, channels) of a training image."""
    if isinstance(dataset, Dataset):
        height, width, channels = dataset.images.shape[1:]
        return height, width, channels
    assert stream is not None
    return stream.image_size, stream.image_size, 3


def normalized_for(
    model: nn.Module, photos: Dataset | ImageFileDataset
) -> Dataset | ImageFileDataset:
    """Replaces the mean and standard deviation of a set by those of the network, if it has any."""
    statistics = {name: getattr(model, name) for name in ("mean", "std") if hasattr(model, name)}
    return dataclasses.replace(photos, **statistics)


def preprocessing(config: TrackedConfig) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns (preprocessing in evaluation, class names) of a run.

    Raises the same errors as `open_sets`.
    """
    data = config.data
    source = _source(config)
    if not catalog.is_streamed(source, data.dir):
        first = catalog.load(source, "train[:1]", data_dir=data.dir)
        transform = Preprocessing(first.images.shape[1], 1.0, "bilinear", first.mean, first.std)
        return transform, first.class_names
    stream = _stream(config)
    size, resize = stream.eval_size, stream.eval_resize
    crop = size / resize
    while int(size / crop) < resize:  # corrects the rounding of the division
        crop = math.nextafter(crop, 0)
    model = create_model(config.model.name, **dict(config.model.options))
    photos = normalized_for(model, open_encoded(source, data.train_split, data.dir))
    return Preprocessing(size, crop, "bilinear", photos.mean, photos.std), photos.class_names


def training_size(config: TrackedConfig) -> int | None:
    """Returns the height and width of training images; None if they are those of the data."""
    data = config.data
    return _stream(config).image_size if catalog.is_streamed(_source(config), data.dir) else None


def _source(config: TrackedConfig) -> str:
    """The data source, with the columns that the configuration names; sets the cache of copies."""
    data = config.data
    _cache.use(data.get("cache"), data.get("cache_gib"))
    return with_columns(data.source, data.get("image"), data.get("label"))


def _stream(config: TrackedConfig) -> Stream:
    data = config.data
    size = data.image_size
    if size is None:
        size = model_info(config.model.name).known_input_size()[0]
    eval_size = data.eval_size or size
    resize = data.eval_resize or round(eval_size / _CENTER_CROP)
    stream = Stream(size, data.crop or "inception", eval_size, resize, data.workers or 0)
    for field in ("image_size", "eval_size", "eval_resize"):
        if getattr(stream, field) < 1:
            raise ValueError(f"config.data.{field} is {getattr(stream, field)}; it must be above 0")
    if stream.workers < 0:
        raise ValueError(f"config.data.workers is {stream.workers}; it must be 0 or more")
    if resize < eval_size:
        raise ValueError(
            f"config.data.eval_resize is {resize}; it must be at least eval_size, {eval_size}"
        )
    crops.training_crop(stream.crop, size)
    return stream


def _check_alike(what: str, train: object, test: object) -> None:
    if train != test:
        raise ValueError(f"the training split has {what} {train}, the test split {test}")


def with_boxes(
    dataset: Dataset | ImageFileDataset, weight: float, split: str
) -> Dataset | ImageFileDataset:
    """Returns the set with its boxes if they are learned, else without boxes.

    Args:
      dataset: the set.
      weight: `config.loss.box_weight`; boxes are learned unless it is 0.
      split: name of the split, for messages.

    Raises:
      ValueError: boxes are learned and the set has none, or the weight is negative.
    """
    if not weight:
        return dataset.without_boxes()
    if weight < 0:
        raise ValueError(f"config.loss.box_weight is {weight}; it must be 0 or more")
    if not dataset.has_boxes:
        raise ValueError(
            f"config.loss.box_weight is {weight}, but {split!r} of config.data.source has no boxes"
        )
    return dataset
