"""Kinds of datasets of image files: the syntax of their sources, and functions that open them.

A source is "KIND:PLACE", such as "folder:photos". For the kinds that store examples in columns or
fields ("hf", "wds"), the place can be followed by the names of those to read, as in
"hf:uoft-cs/cifar100,label=coarse_label".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxcnn._cache import data_path
from jaxcnn.data.sets import FileShard

Splits = tuple[tuple[str, ...], dict[str, FileShard]]  # class names, {split: examples}
COLUMNS = ("image", "label")
_COLUMN = re.compile(rf"(?P<rest>.*),(?P<name>{'|'.join(COLUMNS)})=(?P<value>[^,]*)", re.S)


class Kind(NamedTuple):
    """A kind of datasets of image files.

    Attributes:
      place: what follows the colon.
      open: function of (place, `data_dir`, {"image" or "label": column}) that opens all splits.
      has_columns: whether columns can be selected.
    """

    place: str
    open: Callable[[str, str | os.PathLike | None, Mapping[str, str]], Splits]
    has_columns: bool = False


def split_columns(place: str) -> tuple[str, dict[str, str]]:
    """Splits a place into the place itself and the names of columns.

    Args:
      place: what follows the colon of a source.

      >>> split_columns("uoft-cs/cifar100,image=img,label=coarse_label")
      ('uoft-cs/cifar100', {'label': 'coarse_label', 'image': 'img'})
    """
    columns: dict[str, str] = {}
    while found := _COLUMN.fullmatch(place):
        place = found["rest"]
        columns.setdefault(found["name"], found["value"])
    return place, columns


def without_place(source: str) -> str:
    """Returns a source without the path of its files, to compare sources whose files have moved.

    Only for kinds whose examples are compared by names and labels or by checksums.

    Args:
      source: as in `data.source`.

      >>> without_place("folder:/data/photos"), without_place("wds:/data/{0..9}.tar,label=cls")
      ('folder:', 'wds:,label=cls')
      >>> without_place("tfds:cifar10")
      'tfds:cifar10'
    """
    kind, colon, place = source.partition(":")
    if kind not in ("folder", "archive", "imagenet", "wds"):
        return source
    columns = split_columns(place)[1] if KINDS[kind].has_columns else {}
    return kind + colon + "".join(f",{name}={columns[name]}" for name in sorted(columns))


def _open_folder(place: str, data_dir: str | os.PathLike | None, _: Mapping[str, str]) -> Splits:
    from jaxcnn.data.readers import folders

    return folders.open_folder(data_path(place, data_dir))


def _open_archive(place: str, data_dir: str | os.PathLike | None, _: Mapping[str, str]) -> Splits:
    from jaxcnn.data.readers import archive

    return archive.open_archive(data_path(place, data_dir))


def _open_imagenet(place: str, data_dir: str | os.PathLike | None, _: Mapping[str, str]) -> Splits:
    from jaxcnn.data.readers import imagenet

    return imagenet.open_imagenet(data_path(place, data_dir))


def _open_tfds(place: str, data_dir: str | os.PathLike | None, _: Mapping[str, str]) -> Splits:
    from jaxcnn.data.readers import tfds_images

    return tfds_images.open_tfds_images(place, data_dir)


def _open_hub(place: str, data_dir: str | os.PathLike | None, columns: Mapping[str, str]) -> Splits:
    from jaxcnn.data.readers import hub

    return hub.open_hub(place, data_dir, columns)


def _open_shards(
    place: str, data_dir: str | os.PathLike | None, columns: Mapping[str, str]
) -> Splits:
    from jaxcnn.data.readers import webdataset

    return webdataset.open_shards(data_path(place, data_dir), columns)


KINDS = {
    "folder": Kind("PATH", _open_folder),
    "archive": Kind("PATH", _open_archive),
    "imagenet": Kind("PATH", _open_imagenet),
    "tfds": Kind("NAME", _open_tfds),
    "hf": Kind("NAME or PATH", _open_hub, has_columns=True),
    "wds": Kind("PATTERN", _open_shards, has_columns=True),
}
# What `jaxcnn data` lists: (example, contents).
EXAMPLES = (
    ("digits", "1,797 handwritten digits, shipped with scikit-learn"),
    ("synthetic, synthetic:96", "generated images, 32 or 96 pixels wide"),
    ("synthetic_boxes", "generated images with the boxes of their objects"),
    ("files:cifar10", "official files of CIFAR-10, CIFAR-100, MNIST or Fashion-MNIST"),
    ("tfds:imagenet2012", "any dataset with images and labels, prepared by TensorFlow Datasets"),
    ("hf:ILSVRC/imagenet-1k", "Parquet files of the Hugging Face hub, downloaded if necessary"),
    ("hf:/data/imagenet-1k", "the same files in a folder, such as that of `hf download`"),
    ("wds:/data/imagenet-train-{0000..1023}.tar", "tar files in the format of WebDataset"),
    ("imagenet:/data/ILSVRC", "ImageNet as Kaggle or image-net.org distribute it"),
    ("imagenet:/data/imagenet-r", "ImageNet-A, -R, -V2 and -Sketch, for evaluation"),
    ("folder:photos", "images in photos/train/<class> and photos/val/<class>"),
    ("archive:photos_256", "ArrayRecord files, written by `jaxcnn prepare`"),
    ("my_data.py:open_mine", "your own function, see `jaxcnn.data.catalog`"),
)
