"""Data sets by name: small ones that are read into memory, and image files that are streamed.

A source of your own is a function. Its address is its name, "my_data.py:open_mine" or
"package.module:open_mine", or else the name by which it is registered. It is called once, with the
folder `data_dir` if it has a parameter of this name, and returns one of

  - `(images, labels), (images, labels), class_names`: the training set and the test set in memory,
    with images u8[N,H,W,C] from 0 to 255, labels i32[N] in [0, number of classes), and the names of
    the classes by label;
  - a `Source`, which has any number of parts and reads only the examples that are asked for;
  - `class_names, {"train": FileShard, "test": FileShard}`: image files (JPEG, PNG and so on), which are
    decoded, cropped and resized while the network is trained.

It must return the same examples in the same order whenever it is called.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn._checks import near, shown
from jaxcnn._files import local_path
from jaxcnn._objects import check_call, is_address, load_object, parameters
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

# Sets of image files.
KINDS = ("folder", "archive", "tfds")
_OTHER_NAMES = {"test": ("val", "validation")}
# Splits that are known to be a different set if they have another size.
KNOWN_SIZES = {"tfds:imagenet2012": {"train": 1_281_167, "validation": 50_000}}

_DRAWN: dict[str, Callable[..., Source]] = {
    "synthetic": synthetic.open_synthetic,
    "synthetic_boxes": synthetic_boxes.open_synthetic_boxes,
}
_KNOWN_KINDS = (*KINDS, *_DRAWN, "files")
_FILES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
SOURCES = (
    "digits",
    "synthetic",
    "synthetic_boxes",
    *(f"tfds:{name}" for name in tfds.NAMES),
    *(f"files:{name}" for name in _FILES),
)


_OPENED = (
    "it must return ((images, labels), (images, labels), class_names) of the training set and the "
    "test set, or a jaxcnn.data.Source"
)
_REGISTERED_ELSEWHERE = "; jaxcnn.data.register names a source for one program only"
_registered: dict[str, Callable[..., Any]] = {}


def register(name: str, open_source: Callable[..., Any]) -> None:
    """Gives a data source of your own a name, for `data.source` and everything that takes one.

    Args:
      name: not that of another source, and without a colon.
      open_source: see the module's text for what it is given and returns.

    Raises:
      ValueError: the name is taken or has a colon, or the function cannot be called.

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
        raise ValueError(f"{name!r} is no name for a data source: it contains a colon")
    _check_opener(name, open_source, None)
    _registered[name] = open_source


def unregister(name: str) -> None:
    """Frees a name that `register` gave. Raises ValueError if there is none."""
    if name not in _registered:
        raise ValueError(f"{name!r} is not registered{near(name, _registered)}")
    del _registered[name]


def load(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Reads a split of a set into memory.

    Args:
      name: "digits" (inside scikit-learn), "synthetic" or, of larger images, "synthetic:224",
        "synthetic_boxes" (see `jaxcnn.data.readers.synthetic_boxes`),
        "tfds:cifar10" (what TFDS has built) or "files:cifar10" (the official files); `SOURCES`
        lists them. Or a source of your own, see the module's text.
      split: "train", "test", "all" (train, then test), or a slice: "train[:45000]", "test[10%:]".
      data_dir: where the data lie. For "tfds:..." by default TFDS's own folder; "files:..." needs
        it: the folder with the files or the one above.

    Raises:
      ValueError: the name, the split, a label or the content of a file is wrong.
      FileNotFoundError: the set or one of its files is not there.
    """
    source = open_source(name, data_dir)
    sizes = {**source.sizes, "all": sum(source.sizes.get(p, 0) for p in ("train", "test"))}
    try:
        part, start, stop = parse_split(split, sizes)
    except ValueError as error:
        raise ValueError(f"{error} ({name!r})") from None
    boxes = None
    if part == "all":
        both = [source.read(p, 0, source.sizes[p]) for p in ("train", "test") if p in sizes]
        images, labels = (np.concatenate(arrays)[start:stop] for arrays in zip(*both))
        if source.boxes:
            each = [source.boxes(p, 0, source.sizes[p]) for p in ("train", "test") if p in sizes]
            boxes = np.concatenate(each)[start:stop]
    else:
        images, labels = source.read(part, start, stop)
        boxes = source.boxes(part, start, stop) if source.boxes else None
    check_labels(labels, len(source.class_names), f"{part!r} of {name!r}")
    own = _find_own(name)
    known = STATISTICS.get(name.partition(":")[2]) if own is None else None
    mean, std = known or _train_statistics(name, os.fspath(data_dir) if data_dir else None, own)
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
    """Whether a set is streamed from image files (see `open_encoded`), and not read into memory.

    Folders and archives are, and of TFDS's sets those whose images have various sizes. Raises as
    `load` does where a set of TFDS is not there.
    """
    own = _find_own(name)
    if own is not None:
        return not isinstance(_open_own(name, own, data_dir), Source)
    kind, _, rest = name.partition(":")
    if kind in KINDS and kind != "tfds":
        return True
    if kind != "tfds" or not rest or rest in tfds.NAMES:
        return False
    info, _ = tfds.open_info(rest, os.path.expanduser(data_dir) if data_dir else data_dir)
    return "image" in info.features and None in info.features["image"].shape


def open_source(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Finds a set by name, without reading its images. Raises as `load` does."""
    own = _find_own(name)
    if own is not None:
        opened = _open_own(name, own, data_dir)
        if not isinstance(opened, Source):
            raise ValueError(f"{name!r} has image files, which are streamed; see `open_encoded`")
        return opened
    kind, _, rest = name.partition(":")
    data_dir = os.path.expanduser(data_dir) if data_dir else data_dir
    if name == "digits":
        return digits.open_digits()
    if kind in _DRAWN:
        if not rest:
            return _DRAWN[kind]()
        if not rest.isdecimal() or len(rest) > 9 or int(rest) < 1:
            raise ValueError(f"{name!r} is unknown; it must be such as '{kind}:224'")
        return _DRAWN[kind](int(rest))
    if kind == "tfds" and rest:
        return tfds.open_tfds(rest, data_dir)
    if name not in SOURCES:
        hint = near(name, (*SOURCES, *_registered))
        raise ValueError(f"unknown data source {name!r}{hint or _REGISTERED_ELSEWHERE}")
    if data_dir is None:
        raise ValueError(f"{name!r} needs data_dir, the folder that has the files")
    if rest in cifar.LAYOUTS:
        return cifar.open_cifar(cifar.LAYOUTS[rest], data_dir)
    return mnist.open_idx(rest, data_dir)


def _find_own(name: str) -> Any:
    """The function behind a registered name or an address; None of the sources of this package."""
    if name in _registered:
        return _registered[name]
    kind = name.partition(":")[0]
    if not is_address(name) or kind in _KNOWN_KINDS:
        return None
    try:
        return load_object(name)
    except ValueError as error:
        raise ValueError(f"data.source {error}{near(kind, _KNOWN_KINDS)}") from error


def _check_opener(name: str, function: Any, data_dir: str | os.PathLike | None) -> dict[str, Any]:
    """The arguments that a function is called with, checked."""
    taken = data_dir is not None or "data_dir" in parameters(function)
    options = {"data_dir": data_dir} if taken else {}
    check_call(f"data source {name!r}", function, **options)
    return options


def _open_own(name: str, function: Any, data_dir: str | os.PathLike | None) -> Any:
    """What a source of the user's own returns, checked: a `Source`, or (class names, {part: FileShard}).

    A function is called once for both sets and the statistics of a run.
    """
    return _call_own(name, function, os.path.expanduser(data_dir) if data_dir else None)


@functools.lru_cache(maxsize=2)
def _call_own(name: str, function: Any, data_dir: str | None) -> Any:
    what = f"data source {name!r}"
    opened = function(**_check_opener(name, function, data_dir))
    if isinstance(opened, Source):
        parts: Iterable[str] = opened.sizes
        source: Any = dataclasses.replace(
            opened,
            class_names=_class_names(what, opened.class_names),
            read=lambda *where: _arrays(f"{what}: {where[0]!r}", opened.read(*where)),
        )
    elif isinstance(opened, tuple) and len(opened) == 3:
        source = _from_arrays(what, *opened)
        parts = source.sizes
    elif _is_parts(opened):
        source = (_class_names(what, opened[0]), opened[1])
        parts = opened[1]
    else:
        raise ValueError(f"{what} returned an object of type {type(opened).__name__}; {_OPENED}")
    if "train" not in parts:
        raise ValueError(f"{what} has no part 'train'; it has {', '.join(parts) or 'none'}")
    return source


def _is_parts(opened: Any) -> bool:
    """Whether this is (class names, {part: FileShard})."""
    pair = isinstance(opened, tuple) and len(opened) == 2 and isinstance(opened[1], Mapping)
    return pair and all(isinstance(part, FileShard) for part in opened[1].values())


def _from_arrays(what: str, train: Any, test: Any, class_names: Any) -> Source:
    """The source of a training and a test set that are in memory."""
    arrays = {"train": _arrays(f"{what}: 'train'", train), "test": _arrays(f"{what}: 'test'", test)}

    def read(part: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = arrays[part]
        return images[start:stop], labels[start:stop]

    sizes = {part: len(labels) for part, (_, labels) in arrays.items()}
    return Source(_class_names(what, class_names), sizes, read)


def _arrays(what: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """(images u8[N,H,W,C], labels i32[N]), checked."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"{what} is of type {type(pair).__name__}; it must be (images, labels)")
    images, labels = map(np.asarray, pair)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{what} has images {shown(images)}; they must be uint8[N,H,W,C], 0 to 255"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{what} has labels {shown(labels)}; they must be int32[N]")
    if len(images) != len(labels):
        raise ValueError(f"{what} has {len(images):,} images and {len(labels):,} labels")
    return images, labels.astype(np.int32)


def _class_names(what: str, names: Any) -> tuple[str, ...]:
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    if not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(
            f"{what} has class names {names!r}; they must be texts, one for each class"
        )
    return tuple(listed)


@functools.lru_cache(maxsize=8)
def _train_statistics(name: str, data_dir: str | None, own: Any) -> Normalization:
    """Of the training split; `own`, the function of a source, is a part of the cache's key."""
    source = open_source(name, data_dir)
    images, _ = source.read("train", 0, source.sizes["train"])
    return channel_statistics(images)


def open_encoded(source: str, split: str, data_dir: str | os.PathLike | None = None) -> ImageFileDataset:
    """Opens a split of a set of image files, reading no image.

    Args:
      source: "folder:PATH" (see `folders`), "archive:PATH" (see `archive`), "tfds:NAME", or a
        source of your own, see the module's text.
      split: "train", "test" (or the part's own name), or a slice such as "train[:90%]".
      data_dir: PATH is taken from here; for "tfds:..." the folder of the built sets.

    Raises:
      ValueError: unknown source or split, or the wrong number of examples or classes.
      FileNotFoundError: the set is not there.
    """
    class_names, parts = open_parts(source, data_dir)
    parts = _with_usual_names(parts)
    try:
        name, start, stop = parse_split(split, {p: part.size for p, part in parts.items()})
    except ValueError as error:
        raise ValueError(f"{error} ({source!r})") from None
    return ImageFileDataset(parts[name], start, stop, class_names)


def open_parts(
    source: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """(class names, {part: examples}) of a set, by the parts' own names. Raises as above."""
    own = _find_own(source)
    if own is not None:
        return _open_own(source, own, data_dir)
    kind, _, rest = source.partition(":")
    if kind not in KINDS or not rest:
        hint = near(kind, KINDS)
        raise ValueError(
            f"{source!r} is no set of image files{hint}; write folder:PATH, archive:PATH, tfds:NAME"
        )
    if kind == "tfds":
        from jaxcnn.data.readers import tfds_images

        class_names, parts = tfds_images.open_tfds_images(
            rest, os.path.expanduser(data_dir) if data_dir else data_dir
        )
    else:
        path = Path(local_path(data_dir or ""), local_path(rest))
        if kind == "folder":
            from jaxcnn.data.readers import folders

            class_names, parts = folders.open_folder(path)
        else:
            from jaxcnn.data.readers import archive

            class_names, parts = archive.open_archive(path)
    for part, size in KNOWN_SIZES.get(source, {}).items():
        if part in parts and parts[part].size != size:
            found = parts[part].size
            raise ValueError(f"{source}: {part!r} has {found:,} examples; it must have {size:,}")
    return class_names, parts


def _with_usual_names(parts: Mapping[str, FileShard]) -> dict[str, FileShard]:
    """Where there is no "test", a validation part stands for it."""
    named = dict(parts)
    for usual, others in _OTHER_NAMES.items():
        for other in others:
            if other in named:
                named.setdefault(usual, named[other])
    return named
