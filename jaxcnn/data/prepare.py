"""Writes a set of image files into one archive, and builds TFDS sets."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from jaxcnn.data.bad_records import retried
from jaxcnn.data.catalog import open_parts
from jaxcnn.data.decode import BadImage, decode, image_size
from jaxcnn.data.loader.streaming import cores
from jaxcnn.data.readers import tfds
from jaxcnn.data.readers.archive import Draft
from jaxcnn.data.sets import Part

QUALITY = 95  # of JPEGs that are resized


@dataclasses.dataclass(frozen=True)
class Progress:
    """So many of all examples are done; `bad` says why one was left as it is."""

    done: int
    total: int
    bad: str = ""


def write_archive(
    source: str,
    out: Path,
    *,
    data_dir: str | os.PathLike | None = None,
    side: int | None = None,
    quality: int | None = None,
) -> Iterator[Progress]:
    """Writes all parts of a set into one file; goes on where an earlier call ended.

    Without `side` and `quality` the files stay as they are, byte for byte. A file that shows no
    image stays as it is too.

    Args:
      source: see `catalog.open_encoded`.
      out: the archive.
      data_dir: see `catalog.open_encoded`.
      side: images with more pixels on the shorter side are resized to this, with Lanczos' filter.
      quality: of the JPEGs, 1 to 100. With it all images are encoded anew, without only those that
        are resized, with 95.

    Raises:
      FileNotFoundError: the set is not there.
      ValueError: the set or an argument is wrong, or `out` is there already.
    """
    if side is not None and side < 1:
        raise ValueError(f"the shorter side is {side}; it must be 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"the quality is {quality}; it must be 1 to 100")
    class_names, parts = open_parts(source, data_dir)
    examples = [(part, i) for part in parts.values() for i in range(part.size)]
    about = {
        "source": source,
        "side": side,
        "quality": quality,
        "class_names": class_names,
        "parts": {name: part.size for name, part in parts.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Draft(out, about)
    try:
        yield Progress(len(draft), len(examples))
        todo = examples[len(draft) :]
        for data, label, bad in _in_order(lambda e: _made(e[0], e[1], side, quality), todo):
            part, i = examples[len(draft)]
            if not 0 <= label < len(class_names):
                raise ValueError(
                    f"{part.name(i)} has label {label}; the classes are 0 to {len(class_names) - 1}"
                )
            draft.add(data, label)
            yield Progress(len(draft), len(examples), f"{part.name(i)} {bad}" if bad else "")
        draft.finish(part.name(i) for part, i in examples)
    finally:
        draft.close()


def _made(part: Part, i: int, side: int | None, quality: int | None) -> tuple[bytes, int, str]:
    """The file, its label, and why it could not be made anew."""
    try:
        data, label = retried(lambda: part.read(i))
    except BadImage as error:
        raise ValueError(f"{part.name(i)} {error}") from None
    try:
        return reencode(data, side, quality), label, ""
    except BadImage as error:
        return data, label, str(error)


def reencode(data: bytes, side: int | None, quality: int | None) -> bytes:
    """An image file as a smaller JPEG; the same bytes if nothing is to be done.

    Raises:
      BadImage: it shows no image.
    """
    height, width = image_size(data)
    short = min(height, width)
    resized = side is not None and short > side
    if not resized and quality is None:
        return data
    image = Image.fromarray(decode(data))
    if side is not None and resized:
        new = round(width * side / short), round(height * side / short)
        image = image.resize(new, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality or QUALITY)
    return out.getvalue()


def _in_order(make: Callable, items: list) -> Iterator:
    """make(item) of each, by threads, a few ahead."""
    with ThreadPoolExecutor(cores(), "jaxcnn-prepare") as pool:
        coming: collections.deque[Future] = collections.deque()
        try:
            for item in items:
                coming.append(pool.submit(make, item))
                if len(coming) > 8 * cores():
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


# What TFDS cannot download itself, and where it is to be had.
_BY_HAND = {
    "imagenet2012": ("ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar", "image-net.org"),
    "imagenet2012_subset": ("ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar", "image-net.org"),
    "imagenet2012_real": ("ILSVRC2012_img_val.tar", "image-net.org"),
}


def build_tfds(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Builds a TFDS set as array_record files, downloading what can be; returns its folder.

    A set that is there already is left as it is.

    Raises:
      ValueError: TensorFlow is not installed, or TFDS does not know the set.
      FileNotFoundError: files that only a person can download are not there.
    """
    try:
        return tfds.find_folder(name, data_dir)
    except FileNotFoundError:
        pass
    root = tfds.data_root(data_dir)
    base = name.partition("/")[0]
    manual = root / "downloads" / "manual"
    files, site = _BY_HAND.get(base, ("", ""))
    needed = [file for file in files.split(" and ") if file and not (manual / file).is_file()]
    steps = []
    if importlib.util.find_spec("tensorflow") is None:
        steps.append("install TensorFlow (pip install 'jaxcnn[build]')")
    if needed:
        steps.append(f"download {' and '.join(needed)} from {site} into {manual}")
    if steps:
        raise FileNotFoundError(
            f"to build tfds:{name}, {', and '.join(steps)}; then run this again"
        )
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise ValueError(f"TFDS has no set {name!r}: {str(error).splitlines()[0]}") from None
    except AssertionError as error:  # TFDS's way to ask for files
        raise FileNotFoundError(f"tfds:{name}: {' '.join(str(error).split())}") from None
    return tfds.find_folder(name, root)
