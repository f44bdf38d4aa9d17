"""Converts datasets of image files to archives, and prepares datasets of TensorFlow Datasets."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from jaxcnn._cache import data_path
from jaxcnn._checks import note_once, optional_package
from jaxcnn._files import is_local
from jaxcnn.data.bad_records import retried
from jaxcnn.data.catalog import open_parts
from jaxcnn.data.decode import BadImage, decode, image_size
from jaxcnn.data.loader.ahead import map_ahead
from jaxcnn.data.readers import old_archive, tfds
from jaxcnn.data.readers.archive import Draft
from jaxcnn.data.sets import FileShard

QUALITY = 95  # of resized JPEGs
_LARGEST_JPEG = 65_500  # pixels that libjpeg accepts in height and width


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a conversion.

    Attributes:
      done, total: number of examples written so far, and of all examples.
      bad: name of the last example and why it was copied unchanged; empty if it was converted.
    """

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
    """Writes all splits of a dataset to an archive. Continues an interrupted conversion.

    Without `side` and `quality`, the image files are copied unchanged. Files that cannot be decoded
    are always copied unchanged.

    Args:
      source: see `catalog.open_encoded`; archives of earlier versions are accepted as well.
      out: directory of the archive.
      data_dir: see `catalog.open_encoded`.
      side: resizes larger images to this shorter side, with a Lanczos filter.
      quality: JPEG quality, 1 to 100. If given, all images are encoded again; otherwise only
        resized images are, with a quality of 95.

    Yields:
      The progress after each example.

    Raises:
      FileNotFoundError: the dataset does not exist.
      ValueError: the dataset or an argument is invalid, or `out` exists.
    """
    if side is not None and side < 1:
        raise ValueError(f"--side is {side}; it must be 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"--quality is {quality}; it must be 1 to 100")
    class_names, parts = _open(source, data_dir)
    if any(part.boxes is not None for part in parts.values()):
        note_once(f"{source} has bounding boxes, which an archive does not keep")
    about = {"source": source, "side": side, "quality": quality, "class_names": class_names}
    sizes = {name: part.size for name, part in parts.items()}
    total = sum(sizes.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    with Draft(out, about, sizes) as draft:
        todo = [shard for shard in draft.shards if not draft.has(shard)]
        done = total - sum(shard.length for shard in todo)
        yield Progress(done, total)
        examples = [(parts[s.part], s.first + i) for s in todo for i in range(s.length)]
        converted = map_ahead(lambda e: _converted(e[0], e[1], side, quality), examples)
        for shard in todo:
            with draft.write(shard) as add:
                for name, data, label, bad in itertools.islice(converted, shard.length):
                    if not 0 <= label < len(class_names):
                        raise ValueError(
                            f"{name} has label {label}; the classes are 0 to {len(class_names) - 1}"
                        )
                    add(data, label, name)
                    done += 1
                    yield Progress(done, total, f"{name} {bad}" if bad else "")
        draft.finish()


def _open(
    source: str, data_dir: str | os.PathLike | None
) -> tuple[tuple[str, ...], dict[str, FileShard]]:
    """Like `open_parts`, but accepts archives of earlier versions as well."""
    kind, _, rest = source.partition(":")
    if kind == "archive":
        path = data_path(rest, data_dir)
        if old_archive.is_old_archive(path):
            return old_archive.open_old_archive(path)
    return open_parts(source, data_dir)


def _converted(
    part: FileShard, i: int, side: int | None, quality: int | None
) -> tuple[str, bytes, int, str]:
    """(name, image file, label, why the file could not be converted) of an example."""
    name = part.name(i)
    try:
        data, label = retried(lambda: part.read(i))
    except BadImage as error:
        raise ValueError(f"{name} {error}") from None
    try:
        return name, reencode(data, side, quality), label, ""
    except BadImage as error:
        return name, data, label, str(error)


def reencode(data: bytes, side: int | None, quality: int | None) -> bytes:
    """Resizes and encodes an image file as JPEG.

    Args:
      data: content of the file. It is returned unchanged if neither argument requires a change.
      side: see `write_archive`.
      quality: see `write_archive`.

    Raises:
      BadImage: the file cannot be decoded, or the image is too large for JPEG.
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
    if max(image.size) > _LARGEST_JPEG:
        raise BadImage(f"is {image.width}x{image.height}, too large for JPEG")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality or QUALITY)
    return out.getvalue()


# Files that TensorFlow Datasets cannot download, and the site that offers them.
_MANUAL_FILES = {
    "imagenet2012": ("ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar", "image-net.org"),
    "imagenet2012_subset": ("ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar", "image-net.org"),
    "imagenet2012_real": ("ILSVRC2012_img_val.tar", "image-net.org"),
}


def build_tfds(name: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Downloads and prepares a dataset of TensorFlow Datasets as array_record files.

    A dataset that is already prepared is not changed.

    Args:
      name: name in TensorFlow Datasets.
      data_dir: directory of the prepared datasets, see `tfds.open_tfds`.

    Returns:
      The directory of the dataset.

    Raises:
      ValueError: TensorFlow Datasets has no such dataset.
      FileNotFoundError: TensorFlow is not installed, or files are missing that have to be
        downloaded manually.
    """
    try:
        return tfds.find_folder(name, data_dir)
    except FileNotFoundError:
        pass
    root = tfds.data_root(data_dir)
    if not is_local(root):
        raise ValueError(f"tfds:{name} is not in {root}; build it in a local directory")
    base = name.partition("/")[0]
    manual = root / "downloads" / "manual"
    files, site = _MANUAL_FILES.get(base, ("", ""))
    needed = [file for file in files.split(" and ") if file and not (manual / file).is_file()]
    steps = []
    if importlib.util.find_spec("tensorflow") is None:
        steps.append("install TensorFlow (pip install 'jaxcnn[build]')")
    if needed:
        steps.append(f"download {' and '.join(needed)} from {site} into {manual}")
    if steps:
        raise FileNotFoundError(
            f"to build tfds:{name}, {', and '.join(steps)}; then repeat this command"
        )
    tensorflow_datasets = optional_package("tensorflow_datasets", "tfds")
    try:
        builder = tensorflow_datasets.builder(name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise ValueError(f"TFDS has no dataset {name!r}: {str(error).splitlines()[0]}") from None
    except AssertionError as error:  # raised by TFDS if manual downloads are missing
        raise FileNotFoundError(f"tfds:{name}: {' '.join(str(error).split())}") from None
    return tfds.find_folder(name, root)
