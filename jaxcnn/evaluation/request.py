"""What `jaxcnn evaluate` is asked: which networks, each tested in which way, on which data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jaxcnn.evaluation import evaluate, localization, protocols

if TYPE_CHECKING:
    from jaxcnn.training.ensemble.described import Ensemble

Data = tuple[str, str | None, str]


@dataclasses.dataclass(frozen=True)
class Network:
    """What to open, how to test it, and what to call it."""

    what: str
    view: protocols.View
    label: str


def read(
    what: Sequence[str], like: str | None = None, protocol: str = "center", size: int | None = None
) -> tuple[list[Network], Ensemble | None]:
    """The networks that were asked for, and the ensemble of the file `like`.

    Args:
      what: each WHAT or WHAT@VIEW; the directory of an ensemble stands for all of its members.
      like: file that says how each of them is tested, in order, unless it has a view of its own.
      protocol: view of the others.
      size: of the input, for views that do not say it.

    Raises:
      ValueError: a view cannot be read, or the file has another number of members.
    """
    usual = protocols.parse_view(protocol)
    asked: list[tuple[str, protocols.View | None]] = []
    for text in what:
        name, at, view = text.rpartition("@")
        if not at or Path(text).exists():
            name, view = text, ""
        elif not view:
            raise ValueError(f"{text!r} names no view after @; write {name}@center, for example")
        own = protocols.parse_view(view) if view else None
        asked += [(one, own) for one in evaluate.members_of(name)]
    ensemble = None
    labels = [f"{name}@{view}" if view else name for name, view in asked]
    views = [view or usual for _, view in asked]
    if like is not None:
        from jaxcnn.training.ensemble.described import read_ensemble

        ensemble = read_ensemble(like)
        if len(ensemble.members) != len(asked):
            raise ValueError(
                f"{like} has {len(ensemble.members)} members, {len(asked)} networks are given"
            )
        for i, member in enumerate(ensemble.members):
            views[i] = asked[i][1] or protocols.parse_view(member.view)
            labels[i] = f"{member.name}@{views[i]}"
    if size is not None:
        views = [v if v.size else dataclasses.replace(v, size=size) for v in views]
    return [Network(name, v, text) for (name, _), v, text in zip(asked, views, labels)], ensemble


def open_all(networks: Sequence[Network], checkpoint: str = "best") -> list[evaluate.Entry]:
    """Opens them; one that is tested in several ways is opened once."""
    once = functools.cache(functools.partial(evaluate.open_entry, checkpoint=checkpoint))
    return [once(network.what) for network in networks]


def test_data(entries: Sequence[evaluate.Entry], given: Data | None = None) -> Data:
    """What is given, or else the first run's own test set: source, folder, split."""
    own = given or next((entry.data for entry in entries if entry.data), None)
    if own is None:
        raise ValueError("say on what to test: --data SOURCE, such as --data folder:photos")
    return own


def notes(
    networks: Sequence[Network], entries: Sequence[evaluate.Entry], data: Data
) -> Iterator[str]:
    """Lines on what was tested: the checkpoint of each run, and sizes that differ from training."""
    for network, entry in zip(networks, entries):
        if text := entry.about(data):
            yield text
        size = network.view.size or entry.how.size
        if entry.train_size not in (None, size):
            yield f"{entry.name}: trained on {entry.train_size} pixels, tested on {size}"


def open_for(
    entries: Sequence[evaluate.Entry], source: str, folder: str | None, split: str
) -> evaluate.TestSet:
    """The test set. Raises ValueError if a network does not answer with its classes."""
    test_set = evaluate.open_test_set(source, split, folder)
    for entry in entries:
        entry.check(test_set, source)
    return test_set


def answer(
    networks: Sequence[Network],
    entries: Sequence[evaluate.Entry],
    test_set: evaluate.TestSet,
    crop: float | None = None,
    batch_size: int = 64,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Each network's probabilities f32[N,K], and labels i32[N]; shows progress in a terminal.

    `crop` is the share of the shorter side that is shown; None for the weights' own.
    """
    console = Console(stderr=True)
    answers, labels = [], np.zeros(0, np.int32)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        for network, entry in zip(networks, entries):
            size = network.view.size or entry.how.size
            task = bar.add_task(network.label, total=len(test_set))
            found, labels = evaluate.probabilities(
                entry.model_for(network.view.protocol, size),
                entry.variables,
                test_set,
                dataclasses.replace(entry.how, size=size, crop=crop or entry.how.crop),
                network.view.protocol,
                batch_size=batch_size,
                progress=functools.partial(_show, bar, task),
            )
            answers.append(found)
    return answers, labels


def locate(
    networks: Sequence[Network],
    entries: Sequence[evaluate.Entry],
    test_set: evaluate.TestSet,
    crop: float | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """{label: localisation errors} by the central crop, of the networks that have a box head.

    Empty where the set has no boxes.
    """
    found = {}
    for network, entry in zip(networks, entries):
        model = entry.make()
        if test_set.has_boxes and localization.has_box_head(model):
            size = network.view.size or entry.how.size
            how = dataclasses.replace(entry.how, size=size, crop=crop or entry.how.crop)
            found[network.label] = localization.errors(
                model, entry.variables, test_set, how, batch_size=batch_size
            )
    return found


def _show(bar, task, done: int) -> None:
    bar.update(task, completed=done)
