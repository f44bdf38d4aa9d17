"""The first training examples of a run, augmented, with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.data.imagenet_names import imagenet_names
from jaxcnn.data.preprocessing import to_pixels
from jaxcnn.data.readers.folders import WORDNET
from jaxcnn.runtime import compilation
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig, validate
from jaxcnn.training.input import loaders
from jaxcnn.training.step import example_keys, run_keys

SHOWN = 40


def first_samples(config: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Computes the first training images of a run, as the network sees them.

    The images are exactly those of the run's first step, except that they are rounded and clipped
    to whole gray levels.

    Args:
      config: configuration of the run.

    Returns:
      Images u8[N,H,W,C], and the label of each. The label of a mixed example names both classes and
      their weights.

    Raises:
      ValueError: the configuration is invalid, see `jaxcnn.training.train`.
      FileNotFoundError: the data is missing.
    """
    validate(config)
    experiment = build_experiment(TrackedConfig(config))
    count = min(SHOWN, experiment.calendar.batch_size // 2 * 2 or 1)  # even, to mix pairs
    batch = loaders.first_slots(experiment, count)
    _, key = run_keys(experiment.config.train.seed)
    keys = example_keys(jax.random.fold_in(key, 0), batch)
    ready = jax.device_get(compilation.jit(experiment.preprocess)(batch, keys))
    train_set = experiment.train_set
    images = to_pixels(ready["image"], train_set.mean, train_set.std)
    names = readable(train_set.class_names)
    if "target" in ready:
        return images, [_mixed(target, names) for target in ready["target"]]
    return images, [names[label] for label in ready["label"]]


def readable(class_names: Sequence[str]) -> list[str]:
    """Replaces WordNet ids such as "n01440764" by the names of ImageNet's classes.

    Args:
      class_names: names or WordNet ids; other names are returned unchanged.
    """
    if not any(WORDNET.fullmatch(name) for name in class_names):
        return list(class_names)
    words = dict(name.split(" ", 1) for name in imagenet_names())
    return [words.get(name, name) for name in class_names]


def _mixed(target: np.ndarray, names: Sequence[str]) -> str:
    parts = [i for i in np.argsort(-target)[:2] if target[i] > 0.005]
    if len(parts) == 1:
        return names[parts[0]]
    return "\n+ ".join(f"{target[i]:.2f} {names[i]}" for i in parts)
