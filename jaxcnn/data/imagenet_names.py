"""The names of ImageNet's classes."""

from __future__ import annotations

import functools
import importlib.resources


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1000 classes: WordNet id and words, as "n01440764 tench"."""
    table = importlib.resources.files("jaxcnn.data").joinpath("imagenet_classes.txt")
    return tuple(table.read_text("utf-8").splitlines())


def wordnet_ids() -> tuple[str, ...]:
    """Returns the WordNet ids of ImageNet's 1000 classes, by label."""
    return tuple(name.split()[0] for name in imagenet_names())
