"""Datasets by name: small ones that are loaded into memory, and image files that are streamed.

A custom data source is a function. It is named by its address, "my_data.py:open_mine" or
"package.module:open_mine", or by the name under which it is registered. It is called with the
directory `data_dir` if it has a parameter of this name, and returns one of

  - `(images, labels), (images, labels), class_names`: the training set and the test set in memory,
    with images u8[N,H,W,C], labels i32[N] in [0, number of classes), and the class names by label;
  - a `Source`, which has any number of splits and reads only the requested examples;
  - `class_names, {"train": FileShard, "test": FileShard}`: image files (JPEG, PNG and so on), which
    are decoded, cropped and resized during training.

The function must return the same examples in the same order every time.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxcnn._checks import near, shown
from jaxcnn._objects import check_call, is_address, load_object, mistakes_in_call, parameters
from jaxcnn.data.kinds import KINDS, Splits, split_columns
from jaxcnn.data.preprocessing import STATISTICS, Normalization
from jaxcnn.data.readers import (
    cifar,
    digits,
    mnist,
    synthetic,
    synthetic_boxes,
    tfds,
)
from jaxcnn.data.sets import (
    Dataset,
    FileShard,
    ImageFileDataset,
    Source,
    channel_statistics,
    check_labels,
)
from jaxcnn.data.splits import parse_split

__all__ = ["SOURCES", "Dataset", "load", "open_source", "register", "unregister"]

# Sizes of splits; a split of another size is rejected.
KNOWN_SIZES = {
    "tfds:imagenet2012": {"train": 1_281_167, "validation": 50_000},
    "hf:ILSVRC/imagenet-1k": {"train": 1_281_167, "validation": 50_000},
}

_DRAWN: dict[str, Callable[..., Source]] = {
    "synthetic": synthetic.open_synthetic,
    "synthetic_boxes": synthetic_boxes.open_synthetic_boxes,
}
_KNOWN_KINDS = (*KINDS, *_DRAWN, "files")
SOURCES = (
    "digits",
    "synthetic",
    "synthetic_boxes",
    *(f"tfds:{name}" for name in tfds.NAMES),
    *(f"files:{name}" for name in tfds.FILES),
)


_STREAMED = "has image files, which training streams; only datasets in memory can be loaded"
_OPENED = (
    "it must return ((images, labels), (images, labels), class_names) of the training set and the "
    "test set, or a jaxcnn.data.Source"
)
_KINDS_AND_NAMES = (
    "; `jaxcnn data` lists the kinds of sources, and jaxcnn.data.register names a source for one "
    "program only"
)
_registered: dict[str, Callable[..., Any]] = {}


def register(name: str, open_source: Callable[..., Any]) -> None:
    """Registers a custom data source under a name, for `data.source` and all other uses of names.

    Args:
      name: new name, without a colon; it must not be the name of another source.
      open_source: function that opens the source; see `jaxcnn.data.catalog` for its arguments and
        results.

    Raises:
      ValueError: the name is taken or contains a colon, or the function cannot be called.

      >>> def open_mine():
      ...     images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2
      ...     return (images, labels), (images[:2], labels[:2]), ("cat", "dog")
      >>> register("mine", open_mine)
      >>> load("mine", "train[:3]").images.shape
      (3, 8, 8, 1)
      >>> unregister("mine")
    """
    if name in _registered:
        raise ValueError(f"{name!r} is registered; jaxcnn.data.unregister({name!r}) frees it")
    if name in (*SOURCES, *_KNOWN_KINDS):
        raise ValueError(f"{name!r} is a data source of jaxcnn; give yours another name")
    if is_address(name):
        raise ValueError(f"the name of a data source must not contain a colon, but is {name!r}")
    _check_opener(name, open_source, None)
    _registered[name] = open_source


def unregister(name: str) -> None:
    """Removes a registered data source.

    Args:
      name: name given to `register`.

    Raises:
      ValueError: no source is registered under this name.
    """
    if name not in _registered:
        raise ValueError(f"{name!r} is not registered{near(name, _registered)}")
    del _registered[name]


def load(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Loads a split of a dataset into memory.

    Args:
      name: "digits" (included in scikit-learn), "synthetic" or, with larger images,
        "synthetic:224", "synthetic_boxes" (see `jaxcnn.data.readers.synthetic_boxes`),
        "tfds:cifar10" (prepared with TensorFlow Datasets) or "files:cifar10" (the official files);
        `SOURCES` lists them. Or a custom source, see `jaxcnn.data.catalog`.
      split: "train", "test", "all" (train, then test), or a slice: "train[:45000]", "test[10%:]".
      data_dir: directory of the data. The default for "tfds:..." is the directory of TensorFlow
        Datasets. "files:..." requires the directory of the files or its parent.

    Returns:
      The examples, with the channel statistics of the whole training split.

    Raises:
      ValueError: the name, the split, a label or the content of a file is invalid.
      FileNotFoundError: the dataset or one of its files does not exist.
    """
    source = open_source(name, data_dir)
    sizes = {**source.sizes, "all": sum(source.sizes.get(p, 0) for p in ("train", "test"))}
    try:
        part, start, stop = parse_split(split, sizes)
    except ValueError as error:
        raise ValueError(f"{error} ({name!r})") from None
    boxes = None
    if part == "all":
        parts = [p for p in ("train", "test") if p in sizes]
        pairs = [source.read(p, 0, source.sizes[p]) for p in parts]
        images, labels = (np.concatenate(arrays)[start:stop] for arrays in zip(*pairs))
        if source.boxes:
            all_boxes = [source.boxes(p, 0, source.sizes[p]) for p in parts]
            boxes = np.concatenate(all_boxes)[start:stop]
    else:
        images, labels = source.read(part, start, stop)
        boxes = source.boxes(part, start, stop) if source.boxes else None
    check_labels(labels, len(source.class_names), f"{split!r} of {name!r}")
    custom = _find_custom(name)
    kind, _, rest = name.partition(":")
    known = STATISTICS.get(rest) if custom is None and kind in ("tfds", "files") else None
    if not known and part == "train" and len(labels) == source.sizes[part]:
        known = channel_statistics(images)
    mean, std = known or _train_statistics(name, os.fspath(data_dir) if data_dir else None, custom)
    return Dataset(
        images=np.ascontiguousarray(images),
        labels=labels,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        mean=mean,
        std=std,
        boxes=boxes,
    )


def is_streamed(name: str, data_dir: str | os.PathLike | None = None) -> bool:
    """Returns whether a dataset is streamed from image files instead of loaded into memory.

    Folders, archives and the datasets of TensorFlow Datasets whose images vary in size are
    streamed; see `open_encoded`.

    Args:
      name: see `load` and `open_encoded`.
      data_dir: see `load`.

    Raises:
      ValueError, FileNotFoundError: see `load`.
    """
    custom = _find_custom(name)
    if custom is not None:
        return not isinstance(_open_custom(name, custom, data_dir), Source)
    kind, _, rest = name.partition(":")
    if _has_columns(kind):
        from jaxcnn.data import small

        return not small.is_small(open_parts(name, data_dir)[1])
    if kind in KINDS and kind != "tfds":
        return True
    if kind != "tfds" or not rest or rest in tfds.NAMES:
        return False
    info, _, _ = tfds.open_info(rest, os.path.expanduser(data_dir) if data_dir else data_dir)
    return "image" in info.features and None in info.features["image"].shape


def open_source(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Opens a dataset that fits into memory, without reading its images.

    Args:
      name: see `load`.
      data_dir: see `load`.

    Raises:
      ValueError, FileNotFoundError: see `load`.
    """
    custom = _find_custom(name)
    if custom is not None:
        opened = _open_custom(name, custom, data_dir)
        if not isinstance(opened, Source):
            raise ValueError(f"{name!r} {_STREAMED}")
        return opened
    kind, _, rest = name.partition(":")
    data_dir = os.path.expanduser(data_dir) if data_dir else data_dir
    if name == "digits":
        return digits.open_digits()
    if kind in _DRAWN:
        if not rest:
            return _DRAWN[kind]()
        if not rest.isdecimal() or len(rest) > 9 or int(rest) < 1:
            raise ValueError(f"{name!r} is unknown; it must be like '{kind}:224'")
        return _DRAWN[kind](int(rest))
    if kind == "tfds" and rest:
        return tfds.open_tfds(rest, data_dir)
    if _has_columns(kind):
        from jaxcnn.data import small

        class_names, parts = open_parts(name, data_dir)
        if not small.is_small(parts):
            raise ValueError(f"{name!r} {_STREAMED}")
        return small.small_source(class_names, _with_standard_names(parts))
    if kind in KINDS and kind != "tfds" and rest:
        raise ValueError(f"{name!r} {_STREAMED}")
    if name not in SOURCES:
        hint = near(name, (*SOURCES, *_registered))
        if os.path.isdir(name):
            hint = f"; a folder of images is folder:{name}"
        raise ValueError(f"unknown data source {name!r}{hint or _KINDS_AND_NAMES}")
    if data_dir is None:
        raise ValueError(f"{name!r} needs data_dir, the folder that has the files")
    if rest in cifar.LAYOUTS:
        return cifar.open_cifar(cifar.LAYOUTS[rest], data_dir)
    return mnist.open_idx(rest, data_dir)


def _find_custom(name: str) -> Any:
    """The function of a custom source; None for the sources of this package."""
    if name in _registered:
        return _registered[name]
    kind = name.partition(":")[0]
    if not is_address(name) or kind in _KNOWN_KINDS:
        return None
    if kind in SOURCES:
        raise ValueError(f"unknown data source {name!r}; {kind!r} has no variants")
    if "://" in name:
        known = ", ".join(f"{one}:{name}" for one in ("folder", "archive"))
        raise ValueError(f"unknown data source {name!r}; write its kind first, such as {known}")
    try:
        return load_object(name)
    except ValueError as error:
        raise ValueError(f"data.source {error}{near(kind, _KNOWN_KINDS)}") from error


def _check_opener(name: str, function: Any, data_dir: str | os.PathLike | None) -> dict[str, Any]:
    """Checks that a function can be called, and returns its keyword arguments."""
    takes_dir = data_dir is not None or "data_dir" in parameters(function)
    options = {"data_dir": data_dir} if takes_dir else {}
    check_call(f"data source {name!r}", function, **options)
    return options


def _open_custom(name: str, function: Any, data_dir: str | os.PathLike | None) -> Any:
    """Opens a custom source: a `Source`, or (class names, {part: FileShard}).

    The result is cached, so a run calls the function only once.
    """
    return _call_custom(name, function, os.path.expanduser(data_dir) if data_dir else None)


@functools.lru_cache(maxsize=2)
def _call_custom(name: str, function: Any, data_dir: str | None) -> Any:
    subject = f"data source {name!r}"
    arguments = _check_opener(name, function, data_dir)
    with mistakes_in_call(subject, function):
        opened = function(**arguments)
    if isinstance(opened, Source):

        def read(part: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            with mistakes_in_call(f"{subject}: {part!r}", opened.read):
                found = opened.read(part, start, stop)
            return _arrays(f"{subject}: {part!r}", found)

        parts: Iterable[str] = opened.sizes
        source: Any = dataclasses.replace(
            opened,
            class_names=_class_names(subject, opened.class_names),
            read=read,
        )
    elif isinstance(opened, tuple) and len(opened) == 3:
        source = _from_arrays(subject, *opened)
        parts = source.sizes
    elif _is_parts(opened):
        source = (_class_names(subject, opened[0]), opened[1])
        parts = opened[1]
    else:
        raise ValueError(f"{subject} returned an object of type {type(opened).__name__}; {_OPENED}")
    if "train" not in parts:
        raise ValueError(f"{subject} has no split 'train'; it has {', '.join(parts) or 'none'}")
    return source


def _is_parts(opened: Any) -> bool:
    """Whether the result of a custom source is (class names, {part: FileShard})."""
    pair = isinstance(opened, tuple) and len(opened) == 2 and isinstance(opened[1], Mapping)
    return pair and all(isinstance(part, FileShard) for part in opened[1].values())


def _from_arrays(subject: str, train: Any, test: Any, class_names: Any) -> Source:
    """Creates a source from a training and a test set in memory."""
    arrays = {
        "train": _arrays(f"{subject}: 'train'", train),
        "test": _arrays(f"{subject}: 'test'", test),
    }

    def read(part: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = arrays[part]
        return images[start:stop], labels[start:stop]

    sizes = {part: len(labels) for part, (_, labels) in arrays.items()}
    return Source(_class_names(subject, class_names), sizes, read)


def _arrays(subject: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checks (images u8[N,H,W,C], labels i32[N])."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{subject} is of type {type(pair).__name__}; it must be (images, labels)")
    images, labels = map(np.asarray, pair)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{subject} has images {shown(images)}; they must be uint8[N,H,W,C], 0 to 255"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{subject} has labels {shown(labels)}; they must be int32[N]")
    if len(images) != len(labels):
        raise ValueError(f"{subject} has {len(images):,} images and {len(labels):,} labels")
    return images, labels.astype(np.int32)


def _class_names(subject: str, names: Any) -> tuple[str, ...]:
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    if not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(
            f"{subject} has class names {names!r}; they must be strings, one for each class"
        )
    return tuple(listed)


@functools.lru_cache(maxsize=8)
def _train_statistics(name: str, data_dir: str | None, custom: Any) -> Normalization:
    """Statistics of the training split, or of the first one. `custom` is part of the cache key."""
    source = open_source(name, data_dir)
    split = "train" if "train" in source.sizes else next(iter(source.sizes))
    images, _ = source.read(split, 0, source.sizes[split])
    return channel_statistics(images)


def open_encoded(
    source: str, split: str, data_dir: str | os.PathLike | None = None
) -> ImageFileDataset:
    """Opens a split of a dataset of image files, without reading the images.

    Args:
      source: of one of `jaxcnn.data.kinds`, or a custom source, see `jaxcnn.data.catalog`.
      split: "train", "test" or another split, or a slice such as "train[:90%]". If there is no
        "test", it stands for "val", "valid" or "validation".
      data_dir: directory to which PATH is relative. For "tfds:...", the directory of the prepared
        datasets. It can be a URL such as "gs://bucket/data", whose files are copied when they are
        first needed.

    Raises:
      ValueError: the source or the split is unknown, or the number of examples or classes is wrong.
      FileNotFoundError: the dataset does not exist.
    """
    class_names, parts = open_parts(source, data_dir)
    parts = _with_standard_names(parts)
    try:
        name, start, stop = parse_split(split, {p: part.size for p, part in parts.items()})
    except ValueError as error:
        raise ValueError(f"{error} ({source!r})") from None
    return ImageFileDataset(parts[name], start, stop, class_names)


def open_parts(
    source: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Opens all splits of a dataset of image files, without reading the images.

    Args:
      source: see `open_encoded`.
      data_dir: see `open_encoded`.

    Returns:
      (class names, {split: examples}).

    Raises:
      ValueError, FileNotFoundError: see `open_encoded`.
    """
    custom = _find_custom(source)
    if custom is not None:
        opened = _open_custom(source, custom, data_dir)
        if isinstance(opened, Source):
            raise ValueError(f"{source!r} is a dataset in memory; it has no image files")
        return opened
    kind, _, rest = source.partition(":")
    if kind not in KINDS or not rest:
        known = ", ".join(f"{name}:{kind.place}" for name, kind in KINDS.items())
        hint = "" if kind in KINDS else near(kind, KINDS)
        raise ValueError(f"{source!r} is not a dataset of image files{hint}; write {known}")
    folder = os.path.expanduser(data_dir) if data_dir else None
    class_names, parts = (_open_once if _has_columns(kind) else _open)(source, folder)
    for part, size in KNOWN_SIZES.get(split_columns(source)[0], {}).items():
        if part in parts and parts[part].size != size:
            actual = parts[part].size
            raise ValueError(f"{source}: {part!r} has {actual:,} examples; it must have {size:,}")
    return class_names, parts


def with_columns(source: str, image: str | None = None, label: str | None = None) -> str:
    """Adds the names of columns to a source.

    Args:
      source: such as "hf:uoft-cs/cifar100".
      image: column of the image files; None to find it.
      label: column of the labels; None to find it.

    Raises:
      ValueError: sources of this kind have no columns.

      >>> with_columns("hf:uoft-cs/cifar100", label="coarse_label")
      'hf:uoft-cs/cifar100,label=coarse_label'
    """
    for name, value in (("image", image), ("label", label)):
        if value is None:
            continue
        kind = KINDS.get(source.partition(":")[0])
        if kind is None or not kind.has_columns:
            raise ValueError(
                f"data.{name} is {value!r}, but {source!r} has no columns; sources that have are "
                f"{', '.join(f'{k}:{v.place}' for k, v in KINDS.items() if v.has_columns)}"
            )
        source = f"{source},{name}={value}"
    return source


def _has_columns(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].has_columns


def _open(source: str, data_dir: str | None) -> Splits:
    kind, _, place = source.partition(":")
    place, columns = split_columns(place) if _has_columns(kind) else (place, {})
    return KINDS[kind].open(place, data_dir, columns)


# To open one, the ends of a thousand files may have to be read.
_open_once = functools.lru_cache(maxsize=2)(_open)


def _with_standard_names(parts: Mapping[str, FileShard]) -> dict[str, FileShard]:
    """Adds a validation split under the name "test" if there is no test split."""
    named = dict(parts)
    for other in ("val", "validation", "valid"):
        if other in parts:
            named.setdefault("test", parts[other])
    return named
