"""What a network sees in image files: preprocessing on the host, answers by name."""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from PIL import Image

from jaxcnn.data.decode import BadImage, decode
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.readers.folders import EXTENSIONS, list_images

_MODES = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True)
class Answer:
    """One of the most probable classes of an image.

    `box` is where it is, (left, top, right, bottom) in pixels, of a network with a box head.
    """

    index: int
    name: str
    probability: float
    box: tuple[float, ...] | None = None


def as_row(answer: Answer) -> dict[str, Any]:
    """The answer as JSON has it; without a box where there is none."""
    return {k: v for k, v in dataclasses.asdict(answer).items() if k != "box" or v is not None}


def read_image(path: str | Path, channels: int = 3) -> Image.Image:
    """An image file as RGB, or as grey for one channel, decoded as in training (see `data.images`).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be decoded.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        pixels = decode(Path(path).read_bytes())
    except BadImage as error:
        raise ValueError(f"{path} cannot be read as an image: it {error}") from error
    return Image.fromarray(pixels).convert(_MODES[channels])


def image_paths(given: Sequence[str], stream: Iterable[str]) -> list[str]:
    """The files that are meant: a folder's images, in order, and for "-" the stream's lines.

    Raises:
      ValueError: a folder has no image in it, or nothing is named.
    """
    found: list[str] = []
    for name in given:
        if name == "-":
            found += [line.strip() for line in stream if line.strip()]
        elif Path(name).is_dir():
            inside = list_images(name)
            if not inside:
                raise ValueError(f"{name} has no image in it ({', '.join(EXTENSIONS)})")
            found += [str(Path(name, image)) for image in inside]
        else:
            found.append(name)
    if not found:
        raise ValueError("no image is named")
    return found


def preprocess(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """An image of mode RGB or L as a network's input, f32[size, size, C].

    Torchvision's evaluation: the shorter side is resized to floor(size / crop), antialiased, the
    longer one in proportion and rounded down; then the central square, rounding half to even.
    """
    width, height = image.size
    short = math.floor(how.size / how.crop)
    scale = (
        (short, short * height // width) if width <= height else (short * width // height, short)
    )
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = image.resize(scale, resampling[how.interpolation])
    left, top = (round((n - how.size) / 2) for n in scale)
    image = image.crop((left, top, left + how.size, top + how.size))
    pixels = np.asarray(image, np.float32).reshape(how.size, how.size, -1) / np.float32(255)
    return (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)


def predict(
    model: nn.Module,
    variables: Mapping[str, Any],
    paths: Sequence[str | Path],
    how: Preprocessing,
    names: Sequence[str],
    *,
    top: int = 5,
    batch_size: int = 16,
    on_bad: Callable[[str | Path, Exception], None] | None = None,
) -> Iterator[list[Answer]]:
    """The `top` most probable classes of each image file, most probable first.

    Args:
      model, variables: the network.
      paths: image files.
      how: the preprocessing that the weights were made for.
      names: of all classes, by index.
      top: number of classes, no more than there are.
      batch_size: images at once.
      on_bad: is told of a file that is not there or is no image, which then has no answers, `[]`;
        None raises the error.

    Raises:
      FileNotFoundError, ValueError: a file is not there, or is no image; raised when it is reached.
      ValueError: its pixels are not finite once they are normalised. A network may give finite
        logits for such an image: XLA may drop a NaN where max(x, 0) is fused with what follows.
    """

    @jax.jit
    def probabilities(images: jax.Array) -> jax.Array:
        logits = model.apply(variables, images, train=False)
        return jax.nn.softmax(logits)  # type: ignore[arg-type]

    batch_size = min(batch_size, len(paths))  # one shape: one compilation
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        batch = np.zeros((batch_size, how.size, how.size, len(how.mean)), np.float32)
        bad = set()
        for i, path in enumerate(chunk):
            try:
                batch[i] = preprocess(read_image(path, len(how.mean)), how)
            except (OSError, ValueError) as error:
                if on_bad is None:
                    raise
                on_bad(path, error)
                bad.add(i)
        if not np.isfinite(batch).all():
            raise ValueError(
                f"images are not finite once they are normalised with mean {how.mean} and standard "
                f"deviation {how.std}"
            )
        for i, row in enumerate(np.asarray(probabilities(batch))[: len(chunk)]):
            if i in bad:
                yield []
                continue
            order = np.argsort(-row, kind="stable")[:top]
            yield [Answer(int(i), names[i], float(row[i])) for i in order]


def imagenet_names() -> tuple[str, ...]:
    """Names of ImageNet's 1000 classes: WordNet id and words, as "n01440764 tench"."""
    text = (
        importlib.resources.files("jaxcnn.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    )
    return tuple(text.splitlines())


def default_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's for 1000 classes, else "class 0", "class 1", ..."""
    if num_classes == 1000:
        return imagenet_names()
    return tuple(f"class {i}" for i in range(num_classes))
