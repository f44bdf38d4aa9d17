"""The request of `jaxcnn evaluate`: networks, the protocol of each, and the test set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from jaxcnn._checks import require
from jaxcnn._files import any_path
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.evaluation import evaluate, inference, localization, protocols

if TYPE_CHECKING:
    from jaxcnn.training.ensemble.described import Ensemble

Data = tuple[str, str | None, str]


@dataclasses.dataclass(frozen=True)
class Network:
    """A requested network.

    Attributes:
      what: a run's directory, a weights file or published weights, see `evaluate.open_entry`.
      view: the protocol to evaluate it with.
      label: its name in the table.
    """

    what: str
    view: protocols.View
    label: str


def read(
    what: Sequence[str], like: str | None = None, protocol: str = "center", size: int | None = None
) -> tuple[list[Network], Ensemble | None]:
    """Parses the networks of a command line.

    Args:
      what: "WHAT" or "WHAT@VIEW" for each; an ensemble's directory means all its members.
      like: file that describes an ensemble. Its members define, in order, the views of the networks
        that have none.
      protocol: view of all other networks without one.
      size: input size in pixels for views without one.

    Returns:
      The networks, and the ensemble described by `like`, or None.

    Raises:
      ValueError: a view or the size is invalid, or the file has a different number of members.
    """
    default = protocols.parse_view(protocol)
    requested: list[tuple[str, protocols.View | None]] = []
    for text in what:
        name, at, view = text.rpartition("@")
        if not at or any_path(text).exists():
            name, view = text, ""
        elif not view:
            raise ValueError(f"{text!r} has no view after @; write {name}@center, for example")
        parsed = protocols.parse_view(view) if view else None
        requested += [(member, parsed) for member in evaluate.expand_ensemble(name)]
    ensemble = None
    labels = [f"{name}@{view}" if view else name for name, view in requested]
    views = [view or default for _, view in requested]
    if like is not None:
        from jaxcnn.training.ensemble.described import read_ensemble

        ensemble = read_ensemble(like)
        if len(ensemble.members) != len(requested):
            count = len(requested)
            raise ValueError(
                f"{like} has {len(ensemble.members)} members, but got {count} "
                f"network{'s' * (count != 1)}"
            )
        for i, member in enumerate(ensemble.members):
            views[i] = requested[i][1] or protocols.parse_view(member.view)
            labels[i] = f"{member.name}@{views[i]}"
    if size is not None:
        require(1 <= size <= protocols.LARGEST, "size", size, f"1 to {protocols.LARGEST:,} pixels")
        views = [v if v.size else dataclasses.replace(v, size=size) for v in views]
    return [
        Network(name, view, label) for (name, _), view, label in zip(requested, views, labels)
    ], ensemble


def open_all(networks: Sequence[Network], checkpoint: str = "best") -> list[evaluate.Entry]:
    """Opens the requested networks, each only once even if it is evaluated in several ways.

    Args:
      networks: to be opened.
      checkpoint: "best" or "newest", of runs.
    """
    once = functools.cache(functools.partial(evaluate.open_entry, checkpoint=checkpoint))
    return [once(network.what) for network in networks]


def test_data(entries: Sequence[evaluate.Entry], given: Data | None = None) -> Data:
    """Determines the data to evaluate on.

    Args:
      entries: the networks.
      given: (source, folder, split) of the command line; None for the test set of the first run.

    Returns:
      (source, folder, split).

    Raises:
      ValueError: none is given, and none of the networks is a run.
    """
    data = given or next((entry.data for entry in entries if entry.data), None)
    if data is None:
        raise ValueError("no test data: specify --data SOURCE, such as --data folder:photos")
    return data


def notes(
    networks: Sequence[Network],
    entries: Sequence[evaluate.Entry],
    data: Data,
    test_set: inference.TestSet,
) -> Iterator[str]:
    """Yields remarks on an evaluation: checkpoints, and sizes and classes that differ.

    Args:
      networks: the requested networks.
      entries: the same networks, opened.
      data: (source, folder, split) of the test set.
      test_set: the opened test set.

    Yields:
      Lines of text.
    """
    for network, entry in zip(networks, entries):
        if text := entry.describe_checkpoint(data):
            yield text
        size = network.view.size or entry.preprocessing.size
        if entry.train_size not in (None, size):
            yield f"{entry.name}: trained on {entry.train_size} pixels, tested on {size}"
        if entry.class_subset(test_set) is not None:
            yield (
                f"{entry.name}: evaluated on {test_set.num_classes} of its {entry.classes:,} "
                "classes, the others are masked"
            )


def open_requested(
    entries: Sequence[evaluate.Entry], source: str, folder: str | None, split: str
) -> inference.TestSet:
    """Opens the test set and checks that all networks predict its classes.

    Args:
      entries: the networks.
      source: of the data, see `jaxcnn.data.catalog`.
      folder: of the data; None for the default.
      split: such as "test".

    Raises:
      ValueError: a network has other classes, or the data cannot be opened.
    """
    test_set = evaluate.open_test_set(source, split, folder)
    for entry in entries:
        entry.check_classes(test_set, source)
    return test_set


def predict_all(
    networks: Sequence[Network],
    entries: Sequence[evaluate.Entry],
    test_set: inference.TestSet,
    crop: float | None = None,
    batch_size: int = 64,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Computes the class probabilities of all networks, with progress bars in a terminal.

    Args:
      networks: the requested networks.
      entries: the same networks, opened.
      test_set: to be evaluated.
      crop: fraction of the shorter side that the central crop covers; None for the weights' own.
      batch_size: number of views per batch.

    Returns:
      Probabilities f32[N,K] of each network, and labels i32[N].
    """
    console = Console(stderr=True)
    predictions, labels = [], np.zeros(0, np.int32)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        for network, entry in zip(networks, entries):
            preprocessing = _preprocessing(network, entry, crop)
            task = bar.add_task(network.label, total=len(test_set))
            probabilities, labels = inference.probabilities(
                entry.model_for(network.view.protocol, preprocessing.size),
                entry.variables,
                test_set,
                preprocessing,
                network.view.protocol,
                classes=entry.class_subset(test_set),
                batch_size=batch_size,
                progress=functools.partial(_show, bar, task),
            )
            predictions.append(probabilities)
    return predictions, labels


def _preprocessing(network: Network, entry: evaluate.Entry, crop: float | None) -> Preprocessing:
    """The preprocessing of the weights, with the requested size and crop."""
    weights = entry.preprocessing
    size, crop = network.view.size or weights.size, crop or weights.crop
    return dataclasses.replace(weights, size=size, crop=crop)


def localization_errors(
    networks: Sequence[Network],
    entries: Sequence[evaluate.Entry],
    test_set: inference.TestSet,
    crop: float | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """Computes the localization errors of the networks with a box head, from the central crop.

    Args:
      networks: the requested networks.
      entries: the same networks, opened.
      test_set: to be evaluated.
      crop: fraction of the shorter side that the central crop covers; None for the weights' own.
      batch_size: number of images per batch.

    Returns:
      {label: errors, see `localization.errors`}; empty if the test set has no boxes or only a part
      of the classes.
    """
    errors = {}
    for network, entry in zip(networks, entries):
        model = entry.make()
        is_subset = entry.class_subset(test_set) is not None
        if test_set.has_boxes and not is_subset and localization.has_box_head(model):
            preprocessing = _preprocessing(network, entry, crop)
            viewed = entry.model_for(network.view.protocol, preprocessing.size)
            if getattr(viewed, "dense", False):  # boxes are those of the network's own size
                own = entry.preprocessing.size
                preprocessing = dataclasses.replace(preprocessing, size=own)
            errors[network.label] = localization.errors(
                model, entry.variables, test_set, preprocessing, batch_size=batch_size
            )
    return errors


def _show(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)
