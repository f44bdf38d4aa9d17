"""Opens the networks and the test set of an evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from jaxcnn import _cache
from jaxcnn._files import any_path, is_local
from jaxcnn._objects import is_address, mistakes_in_network
from jaxcnn.data import catalog
from jaxcnn.data.imagenet_names import wordnet_ids
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.readers.imagenet import wordnet_id
from jaxcnn.evaluation import protocols
from jaxcnn.evaluation.inference import TestSet, Variables
from jaxcnn.models.registry import create_model
from jaxcnn.training.output.checkpoints import first_difference
from jaxcnn.training.output.records import MANIFEST, read_manifest
from jaxcnn.training.state import abstract_variables


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network to evaluate.

    Attributes:
      name: what it was opened from: the path of a run or a file, or the name of published weights.
      make: creates the network, `make(**options)`.
      variables: {"params": ..., "batch_stats": ...}.
      preprocessing: of its images.
      classes: number of classes.
      data: (source, folder, split) of a run's test set; None for weights.
      class_names: of runs and of files written by jaxcnn; else None.
      step: training step of a run's checkpoint; None for weights.
      checkpoint: "best" or "newest", of a run; None for weights.
      train_size: height and width in pixels of a run's training images, if known.
      model: id or address of the network; "" if unknown.
      options: fields of its module that differ from the variant's, but for `num_classes`.
    """

    name: str
    make: Callable[..., nn.Module]
    variables: Variables
    preprocessing: Preprocessing
    classes: int
    data: tuple[str, str | None, str] | None = None
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    checkpoint: str | None = None
    train_size: int | None = None
    model: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def describe_checkpoint(self, data: tuple[str, str | None, str]) -> str | None:
        """Describes a run's checkpoint and how it was chosen.

        Args:
          data: (source, folder, split) of the set that the network is evaluated on.

        Returns:
          One line of text; None for weights.
        """
        if self.step is None:
            return None
        text = f"{self.name}: {self.checkpoint} checkpoint, step {self.step:,}"
        if self.checkpoint == "best" and self.data == data:
            text += ", chosen by its error on this test set"
            text += "; use --checkpoint newest for an unbiased figure"
        elif self.checkpoint == "best" and self.data is not None:
            text += f", chosen by its error on {self.data[2]} of {self.data[0]}"
        return text

    def check_classes(self, test_set: TestSet, source: str) -> None:
        """Checks that the network predicts the classes of a test set.

        Args:
          test_set: to be evaluated on.
          source: its name, for the message.

        Raises:
          ValueError: the numbers, the names or the order of the classes differ, and those of the
            test set are not a part of the network's, see `class_subset`.
        """
        if self.class_subset(test_set) is not None:
            return
        if self.classes != test_set.num_classes:
            raise ValueError(
                f"{self.name} predicts {self.classes} classes, but {source} has "
                f"{test_set.num_classes}"
            )
        predicted, given = self.class_names, test_set.class_names
        if predicted is None or predicted == given:
            return
        if sorted(predicted) == sorted(given):
            raise ValueError(f"{self.name} has the classes of {source} in another order")
        if set(predicted) & set(given):  # otherwise they follow different naming conventions
            index = next(i for i, names in enumerate(zip(predicted, given)) if names[0] != names[1])
            raise ValueError(
                f"{self.name} has other classes than {source}: class {index} is "
                f"{predicted[index]!r} for the network and {given[index]!r} in the data"
            )

    def class_subset(self, test_set: TestSet) -> tuple[int, ...] | None:
        """Finds the classes of a test set among the more numerous ones of the network.

        As in the papers of ImageNet-A and ImageNet-R, a network is evaluated on a set that has only
        some of its classes as if it had no others. Classes are identified by WordNet ids.

        Args:
          test_set: to be evaluated on.

        Returns:
          The network's index of each class of the test set; None if the test set has as many
          classes as the network, or classes that the network does not have.
        """
        own = self.class_names
        if own is None and self.classes == len(wordnet_ids()):
            own = wordnet_ids()
        if own is None or test_set.num_classes >= self.classes:
            return None
        index = {wordnet_id(name): i for i, name in enumerate(own)}
        ids = [wordnet_id(name) for name in test_set.class_names]
        if None in ids or not index.keys() >= set(ids):
            return None
        return tuple(index[one] for one in ids)

    def model_for(self, protocol: protocols.Protocol, size: int) -> nn.Module:
        """Creates the network, in its fully convolutional form where that is necessary.

        Args:
          protocol: of the evaluation.
          size: of the network's input in pixels.
        """
        model = self.make()
        larger = protocol.dense or size > self.preprocessing.size
        if larger and hasattr(model, "dense") and getattr(model, "fc_width", True):
            return self.make(dense=True)
        return model


def expand_ensemble(name: str) -> list[str]:
    """Lists the run directories of an ensemble's members.

    Args:
      name: an ensemble's directory, or anything else that `open_entry` accepts.

    Returns:
      The directories of the members, or `[name]` if it is not an ensemble's directory.
    """
    if not (any_path(name) / MANIFEST).is_file():
        return [name]
    count = read_manifest(any_path(name)).get("members")
    if count is None:
        return [name]
    from jaxcnn.training.output.records import member_directory

    return [str(member_directory(name, i)) for i in range(count)]


def open_entry(what: str, checkpoint: str = "best", model: str | None = None) -> Entry:
    """Opens a network to evaluate.

    Args:
      what: a run's directory, a weights file, or the name of published weights.
      checkpoint: "best" or "newest", of a run.
      model: for a weights file that does not name its network: the network, or published weights
        whose preprocessing is used as well.

    Raises:
      ValueError: it is none of these, or it cannot be read.
      FileNotFoundError: there is no such file.
    """
    what = os.path.expanduser(what)
    path = any_path(what)
    if (path / MANIFEST).is_file():
        return _open_run(what, checkpoint)
    if path.is_dir():
        raise ValueError(f"{what} is not a run directory (no {MANIFEST})")
    if os.sep in what and not path.exists():
        raise FileNotFoundError(f"{what} does not exist")
    from jaxcnn.weights import loading, pretrained

    published = None if model is None else pretrained.WEIGHTS.get(model)
    opened = loading.open_weights(what, published.model if published else model)
    if published:
        opened = opened._replace(preprocessing=published.preprocessing)
    network, variables = loading.build(opened)
    classes = getattr(network, "num_classes")  # noqa: B009  every network has it
    if not classes:
        raise ValueError(f"{what} has no classifier, only the features of {opened.model}")
    if opened.class_names is not None and len(opened.class_names) != classes:
        raise ValueError(
            f"{what} has {len(opened.class_names):,} names of classes, but {classes:,} classes"
        )

    def remake(**options: Any) -> nn.Module:
        return network.clone(**options)

    return Entry(
        what,
        remake,
        variables,
        opened.preprocessing,
        classes,
        class_names=opened.class_names,
        model=opened.model,
        options=opened.options,
    )


def _open_run(what: str, checkpoint: str) -> Entry:
    from jaxcnn.training.output.trained import load_run
    from jaxcnn.weights import layout

    run = load_run(what, checkpoint)
    manifest = read_manifest(any_path(what))
    data = manifest["config"]["data"]
    if data.get("cache") and is_local(data["cache"]) and any_path(data["cache"]).is_dir():
        _cache.use(data["cache"], data.get("cache_gib"))
    classes = len(run.class_names)
    run_options = layout.frozen(run.options)  # JSON lists become tuples

    def make(**options: Any) -> nn.Module:
        return create_model(run.model, num_classes=classes, **{**run_options, **options})

    if is_address(run.model):
        size = run.preprocessing.size
        with mistakes_in_network(run.model):
            wanted = abstract_variables(make(), (1, size, size, len(run.preprocessing.mean)))
        if difference := first_difference(run.variables, wanted):
            raise ValueError(
                f"{what} is a run of another {run.model}: {difference}; has its code changed?"
            )
    return Entry(
        what,
        make,
        run.variables,
        run.preprocessing,
        classes,
        data=(
            catalog.with_columns(data["source"], data.get("image"), data.get("label")),
            data.get("dir"),
            data["test_split"],
        ),
        class_names=tuple(run.class_names),
        step=run.step,
        checkpoint=checkpoint,
        train_size=manifest.get("train_size"),
        model=run.model,
        options=run.options,
    )


def open_test_set(source: str, split: str, data_dir: str | None) -> TestSet:
    """Opens a test set, in memory or as image files.

    Args:
      source: of the data, see `jaxcnn.data.catalog`.
      split: such as "test".
      data_dir: folder of the data; None for the default.

    Raises:
      ValueError: the source or the split is unknown, or the data cannot be read.
      FileNotFoundError: the data is missing.
    """
    if catalog.is_streamed(source, data_dir):
        return catalog.open_encoded(source, split, data_dir)
    return catalog.load(source, split, data_dir=data_dir)
