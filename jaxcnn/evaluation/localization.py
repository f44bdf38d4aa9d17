"""Where a network sees what: its boxes of whole images, the localisation error, and pictures."""

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

from jaxcnn.data import boxes, crops
from jaxcnn.data.augment import pipeline
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset
from jaxcnn.evaluation import evaluate, protocols
from jaxcnn.evaluation.predict import Answer, read_image
from jaxcnn.metrics import localization
from jaxcnn.runtime import compilation

_COLOUR = "#ff3030"
_CENTER = protocols.PROTOCOLS["center"]


def has_box_head(model: nn.Module) -> bool:
    """Whether the network says where an object is."""
    return getattr(model, "box_head", None) is not None


def locate(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Sequence[np.ndarray],
    how: Preprocessing,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most probable classes of whole images, each with its box, from the central crop.

    Args:
      model, variables: a network with a box head.
      images: each u8[H,W,C], of any size.
      how: size, crop, interpolation and normalisation.
      count: guesses G, no more than there are classes.

    Returns:
      Logits f32[N,K]; classes i32[N,G]; their boxes f32[N,G,4] (top, left, bottom, right), shares
      of the whole image.
    """
    views = [
        protocols.all_views(image, _CENTER, how.size, how.crop, how.interpolation)[0][0]
        for image in images
    ]
    answer = _compiled(model, how.mean, how.std, count)
    logits, classes, found = map(np.asarray, answer(variables, np.stack(views)))
    windows = [crops.centre(*image.shape[:2], **_sides(how)) for image in images]
    whole = [
        boxes.out_of(own, window, *image.shape[:2])
        for own, window, image in zip(found, windows, images)
    ]
    return logits, classes, np.stack(whole)


def errors(
    model: nn.Module,
    variables: Mapping[str, Any],
    test_set: evaluate.TestSet,
    how: Preprocessing,
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """The localisation errors of a set that has boxes, in shares, every example counted once.

    Raises:
      ValueError: an example has no box, or its image cannot be read.
    """
    wrong: dict[str, list[Any]] = {name: [] for name in localization.ERRORS}
    examples, total = evaluate.examples(test_set), len(test_set)
    for start in range(0, total, batch_size):
        rows = range(start, min(start + batch_size, total))
        images, labels = zip(*(next(examples) for _ in rows))
        truth = np.stack([_boxes(test_set, i) for i in rows])
        bare = np.flatnonzero(~(boxes.area(truth) > 0).any(-1))
        if len(bare):
            raise ValueError(f"example {start + bare[0]} of the test set has no box")
        short = [images[0]] * (batch_size - len(rows))  # one shape: one compilation
        _, classes, found = locate(model, variables, [*images, *short], how, 5)
        answered = (classes[: len(rows)], found[: len(rows)], np.array(labels), truth)
        right = np.asarray(localization.right(*map(jnp.asarray, answered)))
        for name, k in zip(localization.ERRORS, (1, 5)):
            wrong[name].append(np.logical_not(right[:, :k].any(-1)))
    return {name: float(np.concatenate(found).mean()) for name, found in wrong.items()}


def with_boxes(
    model: nn.Module,
    variables: Mapping[str, Any],
    answered: Iterable[tuple[str, list[Answer]]],
    how: Preprocessing,
    top: int,
    folder: str | None = None,
) -> Iterator[tuple[str, list[Answer]]]:
    """Adds the boxes to the `top` answers of each image file.

    With `folder` it writes there each image with the box of its first answer, under the image's
    name, as PNG.
    """
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for path, answers in answered:
        image = read_image(path, len(how.mean))
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        found = locate(model, variables, [pixels], how, top)[2][0]
        answers = [
            dataclasses.replace(answer, box=_in_pixels(box, image))
            for answer, box in zip(answers, found)
        ]
        if folder is not None:
            draw(image, answers[0], Path(folder) / f"{Path(path).stem}.png")
        yield path, answers


def draw(image: Image.Image, answer: Answer, path: str | Path) -> None:
    """Writes the image with the answer's box and name."""
    picture = image.convert("RGB")
    left, top, right, bottom = answer.box or (0, 0, 0, 0)
    corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    pen, line = ImageDraw.Draw(picture), max(1, min(picture.size) // 100)
    pen.rectangle(corners, outline=_COLOUR, width=line)
    pen.text((corners[0] + line + 1, corners[1] + line), answer.name, fill=_COLOUR)
    picture.save(path)


def _in_pixels(box: np.ndarray, image: Image.Image) -> tuple[float, ...]:
    """A box in shares as (left, top, right, bottom) in pixels, as far as it is in the image."""
    top, left, bottom, right = boxes.visible(box).tolist()
    width, height = image.size
    sides = (left * width, top * height, right * width, bottom * height)
    return tuple(round(side, 1) for side in sides)


def _sides(how: Preprocessing) -> dict[str, int]:
    return {"size": how.size, "side": math.floor(how.size / how.crop)}


def _boxes(test_set: evaluate.TestSet, index: int) -> np.ndarray:
    if isinstance(test_set, Dataset):
        assert test_set.boxes is not None
        return test_set.boxes[index]
    return test_set.boxes(index)


@functools.lru_cache(maxsize=4)
def _compiled(
    model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], count: int
) -> Callable:
    """(variables, views u8[N,h,w,C]) to logits, classes and boxes."""

    @compilation.jit
    def answer(variables, views):
        images = pipeline.normalise(views, mean, std)
        logits: Any
        logits, changed = model.apply(variables, images, train=False, mutable=["endpoints"])
        return logits, *localization.guesses(logits, changed["endpoints"]["box"], count)

    return answer
