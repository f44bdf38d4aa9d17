"""Locates objects with a box head: boxes in whole images, the localization error, and drawings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from jaxcnn._files import any_path, real_path, writable
from jaxcnn.data import boxes, crops
from jaxcnn.data.augment import pipeline
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset
from jaxcnn.evaluation import inference, protocols
from jaxcnn.evaluation.predict import Prediction, read_image
from jaxcnn.metrics import localization
from jaxcnn.reporting.figures import picture_name
from jaxcnn.runtime import compilation

_COLOR = "#ff3030"
_CENTER = protocols.PROTOCOLS["center"]


def has_box_head(model: nn.Module) -> bool:
    """Returns whether a network has a box head."""
    return getattr(model, "box_head", None) is not None


def locate(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Sequence[np.ndarray],
    preprocessing: Preprocessing,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicts the most probable classes of images and a box for each, from the central crop.

    Args:
      model: a network with a box head.
      variables: its variables.
      images: each u8[H,W,C], of any size.
      preprocessing: size, crop, interpolation and normalization.
      count: number of guesses G, at most the number of classes.

    Returns:
      Logits f32[N,K]; classes i32[N,G]; their boxes f32[N,G,4] as (top, left, bottom, right), in
      fractions of the whole image's height and width.
    """
    views = [
        protocols.all_views(
            image, _CENTER, preprocessing.size, preprocessing.crop, preprocessing.interpolation
        )[0][0]
        for image in images
    ]
    apply = _compiled(model, preprocessing.mean, preprocessing.std, count)
    logits, classes, guessed = map(np.asarray, apply(variables, np.stack(views)))
    windows = [crops.center(*image.shape[:2], **_sides(preprocessing)) for image in images]
    whole = [
        boxes.out_of(cropped, window, *image.shape[:2])
        for cropped, window, image in zip(guessed, windows, images)
    ]
    return logits, classes, np.stack(whole)


def errors(
    model: nn.Module,
    variables: Mapping[str, Any],
    test_set: inference.TestSet,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """Computes the localization errors on a test set with boxes, counting every example once.

    Args:
      model: a network with a box head.
      variables: its variables.
      test_set: with boxes.
      preprocessing: size, crop, interpolation and normalization.
      batch_size: number of images per batch.

    Returns:
      {name: error}, fractions for the names in `jaxcnn.metrics.localization.ERRORS`.

    Raises:
      ValueError: an example has no box, or its image cannot be read.
    """
    wrong: dict[str, list[Any]] = {name: [] for name in localization.ERRORS}
    examples, total = inference.examples(test_set), len(test_set)
    for start in range(0, total, batch_size):
        rows = range(start, min(start + batch_size, total))
        images, labels = zip(*(next(examples) for _ in rows))
        truth = np.stack([_boxes(test_set, i) for i in rows])
        bare = np.flatnonzero(~(boxes.area(truth) > 0).any(-1))
        if len(bare):
            raise ValueError(f"example {start + bare[0]} of the test set has no box")
        short = [images[0]] * (batch_size - len(rows))  # one shape: one compilation
        _, classes, found = locate(model, variables, [*images, *short], preprocessing, 5)
        guesses = (classes[: len(rows)], found[: len(rows)], np.array(labels), truth)
        correct = np.asarray(localization.is_correct(*map(jnp.asarray, guesses)))
        for name, k in zip(localization.ERRORS, (1, 5)):
            wrong[name].append(np.logical_not(correct[:, :k].any(-1)))
    return {name: float(np.concatenate(found).mean()) for name, found in wrong.items()}


def add_boxes(
    model: nn.Module,
    variables: Mapping[str, Any],
    predictions: Iterable[tuple[str, list[Prediction]]],
    preprocessing: Preprocessing,
    top: int,
    folder: str | None = None,
) -> Iterator[tuple[str, list[Prediction]]]:
    """Adds boxes to the predictions for image files.

    Args:
      model: a network with a box head.
      variables: its variables.
      predictions: (path, predictions, most probable first) of each image file.
      preprocessing: size, crop, interpolation and normalization.
      top: number of predictions per image.
      folder: where to write each image with the box of its first prediction, as a PNG file under
        the image's name; None to write nothing.

    Yields:
      (path, predictions with boxes) of each image file.
    """
    taken: set[str] = set()
    if folder is not None:
        any_path(folder).mkdir(parents=True, exist_ok=True)
    for path, guesses in predictions:
        image = read_image(path, len(preprocessing.mean))
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        boxes = locate(model, variables, [pixels], preprocessing, top)[2][0]
        guesses = [
            dataclasses.replace(prediction, box=_in_pixels(box, image))
            for prediction, box in zip(guesses, boxes)
        ]
        if folder is not None:
            draw(image, guesses[0], any_path(folder) / f"{picture_name(path, taken)}.png")
        yield path, guesses


def check_drawings(paths: Iterable[str | Path], folder: str | Path) -> None:
    """Raises ValueError if a drawing of `add_boxes` would replace one of the images.

    Args:
      paths: of the image files.
      folder: see `add_boxes`.
    """
    taken: set[str] = set()
    files = [any_path(path) for path in paths]
    images = set(map(real_path, files))
    for path in files:
        target = any_path(folder) / f"{picture_name(str(path), taken)}.png"
        if real_path(target) in images:
            raise ValueError(
                f"the drawing of {path} would replace the image {target}; choose another folder"
            )


def draw(image: Image.Image, prediction: Prediction, path: str | Path) -> None:
    """Writes an image with the box and the class name of a prediction.

    Args:
      image: the whole image.
      prediction: with a box.
      path: of the image file to write.
    """
    picture = image.convert("RGB")
    left, top, right, bottom = prediction.box or (0, 0, 0, 0)
    corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    pen, line = ImageDraw.Draw(picture), max(1, min(picture.size) // 100)
    pen.rectangle(corners, outline=_COLOR, width=line)
    pen.text((corners[0] + line + 1, corners[1] + line), prediction.name, fill=_COLOR)
    with writable(path) as local:
        picture.save(local)


def _in_pixels(box: np.ndarray, image: Image.Image) -> tuple[float, ...]:
    """A box in fractions, clipped to the image, as (left, top, right, bottom) in pixels."""
    top, left, bottom, right = boxes.visible(box).tolist()
    width, height = image.size
    sides = (left * width, top * height, right * width, bottom * height)
    return tuple(round(side, 1) for side in sides)


def _sides(preprocessing: Preprocessing) -> dict[str, int]:
    return {"size": preprocessing.size, "side": math.floor(preprocessing.size / preprocessing.crop)}


def _boxes(test_set: inference.TestSet, index: int) -> np.ndarray:
    if isinstance(test_set, Dataset):
        assert test_set.boxes is not None
        return test_set.boxes[index]
    return test_set.boxes(index)


@functools.lru_cache(maxsize=4)
def _compiled(
    model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], count: int
) -> Callable[..., tuple[Any, ...]]:
    """A function of (variables, views u8[N,h,w,C]) to logits, classes and boxes."""

    @compilation.jit
    def apply(variables: Mapping[str, Any], views: Any) -> tuple[Any, ...]:
        images = pipeline.normalize(views, mean, std)
        logits: Any
        logits, changed = model.apply(variables, images, train=False, mutable=["endpoints"])
        return logits, *localization.guesses(logits, changed["endpoints"]["box"], count)

    return apply
