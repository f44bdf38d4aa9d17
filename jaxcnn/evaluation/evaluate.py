"""A network's answers to a whole test set by a protocol."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxcnn.data import catalog, decode, sets
from jaxcnn.data.augment import pipeline
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset
from jaxcnn.evaluation import protocols
from jaxcnn.models.registry import create_model
from jaxcnn.runtime import compilation
from jaxcnn.training.output.records import MANIFEST, read_manifest

Variables = Mapping[str, Any]
TestSet = Dataset | sets.EncodedSet


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network to test: how to make it with options, its variables, and how images reach it.

    `data` is the test set that a run itself has: source, folder and split; None for weights.
    `class_names` are known of runs and of the files that jaxcnn wrote. Of a run also `step` and
    `checkpoint` ("best" or "newest"), and `train_size`, height and width of its training images.
    """

    name: str
    make: Callable[..., nn.Module]
    variables: Variables
    how: Preprocessing
    classes: int
    data: tuple[str, str | None, str] | None = None
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    checkpoint: str | None = None
    train_size: int | None = None

    def about(self, data: tuple[str, str | None, str]) -> str | None:
        """Which checkpoint of a run this is, and how it was chosen, in words; None of weights.

        Args:
          data: source, folder and split that it is tested on.
        """
        if self.step is None:
            return None
        text = f"{self.name}: {self.checkpoint} checkpoint, step {self.step:,}"
        if self.checkpoint == "best" and self.data == data:
            text += ", chosen by its error on this test set (--checkpoint newest is not)"
        elif self.checkpoint == "best" and self.data is not None:
            text += f", chosen by its error on {self.data[2]} of {self.data[0]}"
        return text

    def check(self, test_set: TestSet, source: str) -> None:
        """Raises ValueError if the network does not answer with the set's classes."""
        if self.classes != test_set.num_classes:
            raise ValueError(
                f"{self.name} knows {self.classes} classes, {source} has {test_set.num_classes}"
            )
        own, given = self.class_names, test_set.class_names
        if own is None or own == given:
            return
        if sorted(own) == sorted(given):
            raise ValueError(f"{self.name} has the classes of {source} in another order")
        if set(own) & set(given):  # else the two are named by different conventions
            place = next(i for i, names in enumerate(zip(own, given)) if names[0] != names[1])
            raise ValueError(
                f"{self.name} has other classes than {source}: class {place} is {own[place]!r} "
                f"there and {given[place]!r} here"
            )

    def model_for(self, protocol: protocols.Protocol, size: int) -> nn.Module:
        """The network; in its convolutional form where the protocol or the size asks for it."""
        model = self.make()
        if hasattr(model, "dense") and (protocol.dense or size > self.how.size):
            return self.make(dense=True)
        return model


def members_of(what: str) -> list[str]:
    """The directories of the runs of an ensemble's directory; else what was given, alone."""
    if not (Path(what) / MANIFEST).is_file():
        return [what]
    count = read_manifest(Path(what)).get("members")
    if count is None:
        return [what]
    from jaxcnn.training.output.records import member_directory

    return [str(member_directory(what, i)) for i in range(count)]


def open_entry(what: str, checkpoint: str = "best", model: str | None = None) -> Entry:
    """A run's directory, a file of weights, or published weights by name.

    Args:
      what: which of these.
      checkpoint: "best" or "newest", of a run.
      model: the network, or published weights whose preprocessing is taken too, of a file that
        does not name its own.

    Raises:
      ValueError, FileNotFoundError: it is none of these, or cannot be read.
    """
    what = os.path.expanduser(what)
    if (Path(what) / MANIFEST).is_file():
        from jaxcnn.training.output.trained import load_run
        from jaxcnn.weights import layout

        run = load_run(what, checkpoint)
        manifest = read_manifest(Path(what))
        data = manifest["config"]["data"]
        classes = len(run.class_names)
        own_options = layout.frozen(run.options)  # lists of a file are tuples of the network

        def make(**options: Any) -> nn.Module:
            return create_model(run.model, num_classes=classes, **{**own_options, **options})

        own = (data["source"], data["dir"], data["test_split"])
        names = tuple(run.class_names)
        return Entry(
            what,
            make,
            run.variables,
            run.preprocessing,
            classes,
            own,
            names,
            step=run.step,
            checkpoint=checkpoint,
            train_size=manifest.get("train_size"),
        )
    if Path(what).is_dir():
        raise ValueError(f"{what} is not a run directory (no {MANIFEST})")
    if os.sep in what and not Path(what).exists():
        raise FileNotFoundError(f"there is no {what}")
    from jaxcnn.weights import loading, pretrained

    published = None if model is None else pretrained.WEIGHTS.get(model)
    opened = loading.open_weights(what, published.model if published else model)
    if published:
        opened = opened._replace(preprocessing=published.preprocessing)
    network, variables = loading.build(opened)
    classes = getattr(network, "num_classes")  # noqa: B009  every network has it

    def remake(**options: Any) -> nn.Module:
        return network.clone(**options)

    return Entry(
        what,
        remake,
        variables,
        opened.preprocessing,
        classes,
        class_names=opened.class_names,
    )


def open_test_set(source: str, split: str, data_dir: str | None) -> TestSet:
    """A set in memory or one of image files. Raises as `catalog.load` and `open_encoded` do."""
    if catalog.is_streamed(source, data_dir):
        return catalog.open_encoded(source, split, data_dir)
    return catalog.load(source, split, data_dir=data_dir)


def probabilities(
    model: nn.Module,
    variables: Variables,
    test_set: TestSet,
    how: Preprocessing,
    protocol: protocols.Protocol,
    *,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean probabilities over all views of every example: f32[N,K], and labels i32[N].

    Args:
      model, variables: the network; with a dense protocol it must take any size.
      test_set: to be answered, in order.
      how: size, crop, interpolation and normalisation.
      protocol: one of `protocols.PROTOCOLS`.
      batch_size: views at once.
      progress: is told how many examples are done.

    Raises:
      ValueError: the images do not suit the network, or one cannot be read.
    """

    answer = _compiled(model, how.mean, how.std)

    def answers(views: np.ndarray) -> np.ndarray:
        """Of any number of views of one size, f32[V,K], in batches of one shape."""
        count = min(batch_size, len(views)) if protocol.dense else batch_size
        found = []
        for start in range(0, len(views), count):
            chunk = views[start : start + count]
            short = count - len(chunk)
            full = np.concatenate([chunk, np.zeros((short, *chunk.shape[1:]), chunk.dtype)])
            found.append(np.asarray(answer(variables, full))[: len(chunk)])
        return np.concatenate(found)

    rows, labels, waiting = [], [], []
    for image, label in examples(test_set):
        if image.shape[-1] != len(how.mean):
            raise ValueError(
                f"the images have {image.shape[-1]} channels; the network takes {len(how.mean)}"
            )
        labels.append(label)
        scales = protocols.all_views(image, protocol, how.size, how.crop, how.interpolation)
        if protocol.dense:
            rows.append(np.mean([answers(views).mean(0) for views in scales], 0))
        else:
            waiting.append(np.concatenate(scales))
            if len(waiting) * len(waiting[0]) >= batch_size or len(labels) == len(test_set):
                together = answers(np.concatenate(waiting))
                rows += list(together.reshape(len(waiting), -1, together.shape[-1]).mean(1))
                waiting = []
        progress(len(labels))
    if len(rows) != len(test_set):
        raise ValueError(f"{len(rows)} answers to {len(test_set)} examples")
    return np.stack(rows).astype(np.float32), np.array(labels, np.int32)


@functools.lru_cache(maxsize=4)
def _compiled(model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable:
    """(variables, views u8[V,h,w,C]) to probabilities; the same for networks of one kind."""

    @compilation.jit
    def answer(variables, views):
        logits: Any = model.apply(variables, pipeline.normalise(views, mean, std), train=False)
        return jax.nn.softmax(logits, -1)

    return answer


def examples(test_set: TestSet) -> Iterator[tuple[np.ndarray, int]]:
    """Images u8[H,W,C] and labels, in order. Raises ValueError if one cannot be read."""
    if isinstance(test_set, Dataset):
        yield from zip(test_set.images, test_set.labels.tolist())
        return
    for index in range(len(test_set)):
        data, label = test_set.read(index)
        try:
            yield decode.decode(data), label
        except decode.BadImage as error:
            raise ValueError(f"{test_set.name(index)} cannot be read: {error}") from error
