"""The figures of `jaxcnn inspect`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jaxcnn.analysis import inside, inside_pictures
from jaxcnn.analysis.samples import readable
from jaxcnn.data.preprocessing import to_pixels
from jaxcnn.evaluation.evaluate import Entry, open_test_set
from jaxcnn.evaluation.inference import TestSet
from jaxcnn.evaluation.predict import default_names, preprocess_file
from jaxcnn.evaluation.tables import confusion_figure
from jaxcnn.reporting.figures import picture_name
from jaxcnn.training.output import trained

_EMBEDDED = 1000  # examples, of which t-SNE takes a few seconds


def draw_inside(
    entry: Entry,
    paths: Sequence[str],
    data: tuple[str, str | None, str] | None,
    count: int,
    on_bad: Callable[[str, Exception], None] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Draws what a trained network has learned.

    Args:
      entry: the network, see `jaxcnn.evaluation.open_entry`.
      paths: image files whose feature maps are drawn; without any, those of the first test example.
      data: (source, folder, split) of a test set; None for none.
      count: number of its examples, at most.
      on_bad: called with the path and the error of an image that cannot be read, which is left out;
        None raises the error.

    Yields:
      (file name, Matplotlib figure) of each picture when it is drawn.

    Raises:
      ValueError: an image or the test set cannot be read, or the test set has other classes.
    """
    model, preprocessing = entry.make(), entry.preprocessing
    test_set = None
    if data is not None:
        test_set = open_test_set(data[0], data[2], data[1])
        entry.check_classes(test_set, data[0])
    size = (preprocessing.size, preprocessing.size, len(preprocessing.mean))
    name, kernels = inside.first_filters(model, entry.variables, size)
    yield "filters.png", inside_pictures.draw_filters(name, kernels)
    taken: set[str] = set()
    for path in paths:
        try:
            image = preprocess_file(path, preprocessing)
        except (OSError, ValueError) as error:
            if on_bad is None:
                raise
            on_bad(path, error)
            continue
        name = picture_name(path, taken)
        yield f"maps_{name}.png", _draw_maps(entry, model, image, name)
    if test_set is None:
        return
    views, labels = inside.read_views(test_set, preprocessing, count)
    if not paths:
        image = views[0] / np.float32(255) - preprocessing.mean
        image /= np.array(preprocessing.std)
        yield "maps_example.png", _draw_maps(entry, model, image.astype(np.float32), "example")
    probabilities, features = inside.predict_views(model, entry.variables, views, preprocessing)
    probabilities, names = of_test_set(entry, test_set, probabilities)
    yield "confusion.png", confusion_figure(probabilities, labels, names)
    yield "certain.png", inside_pictures.draw_contact_sheet(views, labels, probabilities, names)
    chosen = slice(0, None, -(-len(views) // _EMBEDDED))
    places = inside.embed(features[chosen])
    predicted = probabilities[chosen].argmax(1)
    yield (
        "features.png",
        inside_pictures.draw_embedding(places, labels[chosen], predicted, names),
    )


def of_test_set(
    entry: Entry, test_set: TestSet, probabilities: np.ndarray
) -> tuple[np.ndarray, Sequence[str]]:
    """Restricts predictions to the classes of a test set that has a part of the network's.

    Args:
      entry: the network.
      test_set: its labels are indices of its own classes.
      probabilities: f32[N,C] for the C classes of the network.

    Returns:
      (probabilities f32[N,K] for the K classes of the test set, their names).
    """
    names = entry.class_names or test_set.class_names or default_names(entry.classes)
    if (subset := entry.class_subset(test_set)) is not None:
        names, probabilities = test_set.class_names, probabilities[:, list(subset)]
        probabilities = probabilities / probabilities.sum(1, keepdims=True)
    return probabilities, readable(names)


def animate_run(entry: Entry) -> bytes | None:
    """Draws how the filters of a run's first convolution change from checkpoint to checkpoint.

    Args:
      entry: the run, see `jaxcnn.evaluation.open_entry`. It keeps `checkpoint.keep` checkpoints.

    Returns:
      The content of a GIF file; None for weights, and for a run with fewer than two checkpoints.

    Raises:
      ValueError: a checkpoint cannot be read.
    """
    if entry.step is None:
        return None
    model, preprocessing = entry.make(), entry.preprocessing
    size = (preprocessing.size, preprocessing.size, len(preprocessing.mean))
    name, kernels = "", {}
    for step in trained.checkpoint_steps(entry.name):
        try:
            variables = trained.load_run(entry.name, step).variables
        except ValueError:
            if step in trained.checkpoint_steps(entry.name):
                raise
            continue  # the run is in progress, and has replaced the checkpoint by a newer one
        name, kernels[step] = inside.first_filters(model, variables, size)
    return inside_pictures.animate_filters(name, kernels) if len(kernels) > 1 else None


def _draw_maps(entry: Entry, model: nn.Module, image: np.ndarray, title: str) -> Any:
    """Draws the feature maps of a preprocessed image f32[H,W,C]."""
    maps = inside.feature_maps(model, entry.variables, image)
    shown = to_pixels(image, entry.preprocessing.mean, entry.preprocessing.std)
    return inside_pictures.draw_feature_maps(shown, maps, title)
