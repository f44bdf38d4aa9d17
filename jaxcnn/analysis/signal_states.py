"""Measures the signals of a network before training, or at a run's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxcnn._files import any_path
from jaxcnn.analysis.signals import Signal, make_program
from jaxcnn.data.decode import decode
from jaxcnn.data.preprocessing import IMAGENET, from_dict
from jaxcnn.data.sets import Dataset
from jaxcnn.evaluation.predict import preprocess
from jaxcnn.models.registry import create_model, model_info
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.input import sets
from jaxcnn.training.output import trained
from jaxcnn.training.output.records import read_manifest
from jaxcnn.training.output.workdir import BEST, CHECKPOINTS
from jaxcnn.training.state import init_variables
from jaxcnn.training.step import run_keys


def of_network(
    name: str, *, batch: int = 16, image_size: int | None = None, seed: int = 0
) -> Iterator[tuple[str, list[Signal]]]:
    """Measures the signals of a network at initialization, on random images and labels.

    Args:
      name: id or alias.
      batch: number of images.
      image_size: height and width in pixels; by default the network's own.
      seed: of weights, images and labels.

    Yields:
      (title, signals).

    Raises:
      ValueError: the name is unknown, a number is less than 1, or the images are too small.
    """
    info = model_info(name)
    _check("batch", batch)
    size = info.known_input_size()[0] if image_size is None else image_size
    _check("image size", size)
    model = create_model(name)
    rng = np.random.default_rng(seed)
    # The contrast of photos, as the network normalizes them.
    contrast = np.divide(IMAGENET[1], info.std) if info.dataset == "imagenet" else 1.0
    shape = (batch, size, size, info.channels)
    images = np.asarray(contrast * rng.standard_normal(shape), np.float32)
    labels = rng.integers(model.num_classes, size=batch).astype(np.int32)
    variables = init_variables(model, run_keys(seed)[0], images.shape)
    yield f"{info.name}, before training", make_program(model)(variables, images, labels, seed)


def of_run(workdir: str | Path, *, batch: int = 16) -> Iterator[tuple[str, list[Signal]]]:
    """Measures the signals of a run at initialization and at all of its checkpoints.

    Args:
      workdir: directory of the run.
      batch: number of images, the first of the test set.

    Yields:
      (title, signals) of each state.

    Raises:
      ValueError: the directory does not contain a run.
      FileNotFoundError: the data is missing.
    """
    workdir = any_path(workdir).absolute()
    manifest = read_manifest(workdir)
    _check("batch", batch)
    config = TrackedConfig(manifest["config"])
    images, labels, classes = _test_images(config, batch, manifest.get("preprocessing"))
    options = dict(config.model.options)
    model = create_model(config.model.name, num_classes=classes, **options)
    program = make_program(model)
    key, _ = run_keys(config.train.seed, config.train.get("init_seed"))  # older runs have none
    if not config.model.get("weights"):  # the run did not start from other weights
        first = init_variables(model, key, (1, *images.shape[1:]))
        yield f"{workdir.name}, before training", program(first, images, labels)
    known: set[int] = set()
    for folder, word in ((CHECKPOINTS, ""), (BEST, " (best)")):
        steps = trained.saved_steps(workdir / folder)
        for step in sorted(set(steps) - known):
            _, state = trained.read_state(workdir / folder, step)
            variables = {"params": state["params"], "batch_stats": state["batch_stats"]}
            variables = jax.tree.map(np.asarray, variables)
            yield f"{workdir.name}, step {step}{word}", program(variables, images, labels)
        known.update(steps)


def _test_images(
    config: TrackedConfig, batch: int, recorded: Mapping[str, Any] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """The first test images as the run preprocesses them, their labels, the number of classes."""
    _, test, _ = sets.open_sets(config)
    preprocessing, names = sets.preprocessing(config)
    if recorded is not None:  # runs of early versions have no record
        preprocessing = from_dict(dict(recorded))
    if isinstance(test, Dataset):
        pixels = test.images[:batch] / np.float32(255)
        mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
        return (pixels - mean) / std, test.labels[:batch], len(names)
    photos, labels = zip(*(test.read(i) for i in range(min(batch, len(test)))))
    opened = (Image.fromarray(decode(photo)) for photo in photos)
    images = np.stack([preprocess(image, preprocessing) for image in opened])
    return images, np.array(labels, np.int32), len(names)


def _check(what: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{what} is {number}; it must be at least 1")
