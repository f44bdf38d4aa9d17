"""Classifies image files: preprocessing on the host, and predictions with class names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from PIL import Image

from jaxcnn._files import any_path, files_below, is_local
from jaxcnn.data.decode import BadImage, check_bytes, check_resized, decode
from jaxcnn.data.imagenet_names import imagenet_names
from jaxcnn.data.loader.ahead import cores, map_ahead
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.readers.folders import EXTENSIONS, is_image, list_images

_MODES = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A class that a network predicts for an image.

    Attributes:
      index: of the class.
      name: of the class.
      probability: of the class, between 0 and 1.
      box: (left, top, right, bottom) of the object in pixels, from a network with a box head.
    """

    index: int
    name: str
    probability: float
    box: tuple[float, ...] | None = None


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Converts a prediction to a dictionary for JSON, without the box if there is none."""
    return {k: v for k, v in dataclasses.asdict(prediction).items() if k != "box" or v is not None}


def read_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Reads an image file, decoded as in training (see `jaxcnn.data.decode`).

    Args:
      path: of the file.
      channels: 3 for RGB, 1 for grayscale.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be decoded.
    """
    path = any_path(path)
    if is_local(path) and not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        check_bytes(path.stat().st_size)
        return decode_image(path.read_bytes(), channels)
    except BadImage as error:
        raise ValueError(f"{path} cannot be read as an image: it {error}") from error


def decode_image(data: bytes, channels: int = 3) -> Image.Image:
    """Decodes the content of an image file as in training.

    Args:
      data: content of the file.
      channels: 3 for RGB, 1 for grayscale.

    Raises:
      BadImage: it cannot be decoded.
    """
    return Image.fromarray(decode(data)).convert(_MODES[channels])


def image_paths(given: Sequence[str], stream: Iterable[str]) -> list[str]:
    """Expands folders, and "-" for paths on standard input, to a list of image files.

    Args:
      given: paths of image files and folders, or "-".
      stream: standard input, one path per line.

    Raises:
      ValueError: a folder contains no image, or there is no path at all.
    """
    paths: list[str] = []
    for name in given:
        if name == "-":
            paths += [line.strip() for line in stream if line.strip()]
        elif (folder := any_path(name)).is_dir():
            inside = list_images(name) if is_local(folder) else _images_in_bucket(folder)
            if not inside:
                raise ValueError(f"{name} contains no image ({', '.join(EXTENSIONS)})")
            paths += [str(folder / image) for image in inside]
        else:
            paths.append(name)
    if not paths:
        raise ValueError("no image is given: name files, folders, or - for paths on standard input")
    return paths


def _images_in_bucket(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in files_below(folder))
    return sorted(name for name in names if is_image(name))


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Preprocesses an image as torchvision does for evaluation.

    The shorter side is resized to floor(size / crop) with antialiasing, the longer side in
    proportion and rounded down. Then the central square is cropped, rounding half to even, and the
    channels are normalized.

    Args:
      image: of mode "RGB" or "L".
      preprocessing: size, crop, interpolation and normalization.

    Returns:
      f32[size,size,C].

    Raises:
      BadImage: it is too narrow.
    """
    size = preprocessing.size
    width, height = image.size
    short = math.floor(size / preprocessing.crop)
    scale = (
        (short, short * height // width) if width <= height else (short * width // height, short)
    )
    check_resized(height=scale[1], width=scale[0])
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = image.resize(scale, resampling[preprocessing.interpolation])
    left, top = (round((n - size) / 2) for n in scale)
    image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image, np.float32).reshape(size, size, -1) / np.float32(255)
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    return (pixels - mean) / std


def preprocess_file(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    """Reads and preprocesses an image file.

    Args:
      path: of the file.
      preprocessing: see `preprocess`.

    Returns:
      f32[size,size,C].

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be decoded, or is too narrow.
    """
    image = read_image(path, len(preprocessing.mean))
    try:
        return preprocess(image, preprocessing)
    except BadImage as error:
        raise ValueError(f"{path} cannot be used: it {error}") from error


def predict_files(
    model: nn.Module,
    variables: Mapping[str, Any],
    paths: Sequence[str | Path],
    preprocessing: Preprocessing,
    names: Sequence[str],
    *,
    top: int = 5,
    batch_size: int = 16,
    on_bad: Callable[[str | Path, Exception], None] | None = None,
) -> Iterator[list[Prediction]]:
    """Predicts the most probable classes of image files.

    Args:
      model: the network.
      variables: its variables.
      paths: image files.
      preprocessing: the preprocessing that the weights were trained for.
      names: of all classes, by index.
      top: number of predictions per image, at most the number of classes.
      batch_size: number of images per batch.
      on_bad: called with the path and the error of a file that cannot be read, for which `[]` is
        yielded; None raises the error.

    Yields:
      The `top` predictions for each file, most probable first.

    Raises:
      FileNotFoundError: a file does not exist; raised when it is reached.
      ValueError: a file is not an image, or its pixels are not finite after normalization. (The
        logits of such an image may be finite, since XLA may drop a NaN when it fuses max(x, 0).)
    """

    @jax.jit
    def probabilities(images: jax.Array) -> jax.Array:
        logits = model.apply(variables, images, train=False)
        return jax.nn.softmax(logits)  # type: ignore[arg-type]

    def load(path: str | Path) -> np.ndarray | Exception:
        try:
            return preprocess_file(path, preprocessing)
        except (OSError, ValueError) as error:
            return error

    batch_size = max(1, min(batch_size, len(paths)))  # one shape: one compilation
    shape = (batch_size, preprocessing.size, preprocessing.size, len(preprocessing.mean))
    loaded = map_ahead(load, paths, ahead=2 * batch_size + cores())
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        batch = np.zeros(shape, np.float32)
        bad = set()
        for i, (path, image) in enumerate(zip(chunk, loaded)):
            if not isinstance(image, Exception):
                batch[i] = image
                continue
            if on_bad is None:
                raise image
            on_bad(path, image)
            bad.add(i)
        if not np.isfinite(batch).all():
            raise ValueError(
                f"images are not finite after normalization with mean {preprocessing.mean} and "
                f"standard deviation {preprocessing.std}"
            )
        for i, row in enumerate(np.asarray(probabilities(batch))[: len(chunk)]):
            if i in bad:
                yield []
                continue
            order = np.argsort(-row, kind="stable")[:top]
            yield [Prediction(int(i), names[i], float(row[i])) for i in order]


def default_names(num_classes: int) -> tuple[str, ...]:
    """Returns ImageNet's class names for 1000 classes, else "class 0", "class 1", ...

    Args:
      num_classes: number of classes.
    """
    if num_classes == 1000:
        return imagenet_names()
    return tuple(f"class {i}" for i in range(num_classes))
