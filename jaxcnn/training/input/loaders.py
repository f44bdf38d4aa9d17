"""Loaders: batches from a set that resides on the device, or streamed from image files.

In both cases the batch of a step is a function of (seed, step) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxcnn.data import crops
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.boxes import MOST
from jaxcnn.data.loader import resident, streaming
from jaxcnn.data.sets import Dataset
from jaxcnn.runtime import distributed
from jaxcnn.training import parallel
from jaxcnn.training.build import Experiment
from jaxcnn.training.output.workdir import BAD_RECORDS, bad_records_path

Batch = dict[str, Any]


class BatchLoader(Protocol):
    """Loads training batches onto the device."""

    def batch(self, step: int, count: int) -> Batch:
        """Returns the batch of a step, or the stacked batches of `count` steps."""

    def data_wait(self) -> dict[str, float]:
        """Returns `data_wait_ms`, the mean wait for a batch since the last call.

        It is empty for a set in memory.
        """

    def notice(self) -> str | None:
        """Returns a line on unreadable records, if there are more than at the last call."""

    def close(self) -> None:
        """Stops the threads that prepare batches."""


def train_loader(
    experiment: Experiment, step: int, directory: Path | None, placed: Batch | None = None
) -> BatchLoader:
    """Makes the training loader.

    Args:
      experiment: provides the training set.
      step: the first step to load.
      directory: where to list bad records; None to list none.
      placed: the training set as `place_resident` returns it; None to place it here.

    Returns:
      The loader.
    """
    if experiment.stream is None:
        return _ResidentLoader(experiment, placed or place_resident(experiment))
    return _StreamingLoader(experiment, step, directory)


def place_resident(experiment: Experiment) -> Batch:
    """Places a training set in memory on the devices, for all loaders of a mesh.

    Args:
      experiment: provides the training set and the mesh.

    Returns:
      The arrays of the whole set; {} if its images are read while training.
    """
    if not isinstance(experiment.train_set, Dataset):
        return {}
    return parallel.place_batch(_resident_entries(experiment.train_set), experiment.mesh)


def abstract_batch(experiment: Experiment, count: int = 1) -> Batch:
    """Returns the shapes, types and placement of a training batch, without loading it.

    Args:
      experiment: the experiment, whose devices need not exist.
      count: number of steps, see `BatchLoader.batch`.
    """
    train_set, size = experiment.train_set, experiment.calendar.batch_size
    batch = {"slot": np.broadcast_to(np.int32(0), size)}
    if isinstance(train_set, Dataset):
        batch["index"] = batch["slot"]
    else:
        batch |= _decoded(experiment.image_shape[1:], size, train_set.has_boxes)
    if count > 1:
        batch = {name: np.broadcast_to(v, (count, *v.shape)) for name, v in batch.items()}
    if isinstance(train_set, Dataset):
        batch |= _resident_entries(train_set)
    return parallel.abstract_batch(batch, experiment.mesh, stacked=count > 1)


def abstract_eval_batch(experiment: Experiment) -> Batch:
    """Returns the shapes, types and placement of an evaluation batch, without loading it."""
    test_set, stream = experiment.test_set, experiment.stream
    size = experiment.eval_batch_size
    batch = {"mask": np.broadcast_to(np.float32(0), size)}
    if isinstance(test_set, Dataset):
        batch |= {"index": np.broadcast_to(np.int32(0), size), **_resident_entries(test_set)}
    else:
        assert stream is not None
        batch |= _decoded((stream.eval_size, stream.eval_size, 3), size, test_set.has_boxes)
    return parallel.abstract_batch(batch, experiment.mesh)


def _decoded(shape: tuple[int, ...], size: int, has_boxes: bool) -> Batch:
    """A batch of image files as `streaming` collects it, without memory for its values."""
    batch = {
        "image": np.broadcast_to(np.uint8(0), (size, *shape)),
        "label": np.broadcast_to(np.int32(0), size),
    }
    boxes = {"box": np.broadcast_to(np.float32(0), (size, MOST, 4))}
    return batch | (boxes if has_boxes else {})


def eval_loader(experiment: Experiment) -> Callable[[], Iterator[Batch]]:
    """Makes a function that returns one pass over the test set: masked batches, on the device."""
    test_set, stream, mesh = experiment.test_set, experiment.stream, experiment.mesh
    size, total = experiment.eval_batch_size, len(test_set)
    if isinstance(test_set, Dataset):
        placed = parallel.place_batch(_resident_entries(test_set), mesh)
        return lambda: (
            placed | parallel.place_batch(batch, mesh)
            for batch in resident.eval_batches(total, size)
        )
    assert stream is not None

    count = distributed.count()
    indices = streaming.shard(total, distributed.number(), count)
    steps = -(-max(len(streaming.shard(total, i, count)) for i in range(count)) // (size // count))

    def batches() -> Iterator[Batch]:
        source = streaming.Evaluation(
            test_set, size // count, stream.eval_size, stream.eval_resize, indices
        )
        with streaming.Prefetch(source, steps, stream.workers, _place_on(experiment)) as prefetched:
            yield from prefetched

    return batches


def first_slots(experiment: Experiment, count: int) -> Batch:
    """Returns the first `count` examples of the first batch, on the host.

    Returns:
      {"image": u8[count,H,W,C], "label": i32[count], "slot": i32[count]}, and "box" if the set
      has boxes.
    """
    train_set, slots = experiment.train_set, range(count)
    if isinstance(train_set, Dataset):
        seed, batch_size = experiment.config.train.seed, experiment.calendar.batch_size
        index = resident.batch_indices(seed, 0, len(train_set), batch_size)[:count]
        batch = {"image": train_set.images[index], "label": train_set.labels[index]}
        if train_set.boxes is not None:
            batch["box"] = train_set.boxes[index]
        return batch | {"slot": np.arange(count, dtype=np.int32)}
    return streaming.make_batch(_training_source(experiment, BadRecords(len(train_set)), slots), 0)


def first_examples(experiment: Experiment, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `limit` test examples, as decoded for evaluation.

    Returns:
      (images u8[N,H,W,C], labels i32[N]).
    """
    test_set, stream = experiment.test_set, experiment.stream
    if isinstance(test_set, Dataset):
        return test_set.images[:limit], test_set.labels[:limit]
    assert stream is not None
    subset = streaming.in_memory(
        test_set, limit, stream.eval_size, stream.eval_resize, stream.workers
    )
    return subset.images, subset.labels


def _resident_entries(dataset: Dataset) -> Batch:
    arrays = {"images": dataset.images, "labels": dataset.labels, "boxes": dataset.boxes}
    return {name: values for name, values in arrays.items() if values is not None}


def _place_on(experiment: Experiment) -> Callable[[streaming.Batch], Batch]:
    return lambda batch: parallel.place_shard(batch, experiment.mesh)


class _ResidentLoader:
    def __init__(self, experiment: Experiment, placed: Batch):
        self._seed, self._size = experiment.config.train.seed, len(experiment.train_set)
        self._batch_size, self._mesh = experiment.calendar.batch_size, experiment.mesh
        self._placed = placed

    def batch(self, step: int, count: int) -> Batch:
        size, examples = self._size, self._batch_size
        steps = range(step, step + count)
        index = np.stack([resident.batch_indices(self._seed, s, size, examples) for s in steps])
        slot = np.broadcast_to(np.arange(examples, dtype=np.int32), index.shape)
        batch = {"index": index, "slot": slot}
        if count == 1:
            batch = {name: value[0] for name, value in batch.items()}
        return self._placed | parallel.place_batch(batch, self._mesh, stacked=count > 1)

    def data_wait(self) -> dict[str, float]:
        return {}

    def notice(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def _training_source(
    experiment: Experiment, bad: BadRecords, slots: range | None = None
) -> streaming.Training:
    train_set, stream = experiment.train_set, experiment.stream
    assert stream is not None and not isinstance(train_set, Dataset)
    seed, batch_size = experiment.config.train.seed, experiment.calendar.batch_size
    crop = crops.training_crop(stream.crop, stream.image_size)
    return streaming.Training(train_set, seed, batch_size, stream.image_size, crop, bad, slots)


class _StreamingLoader:
    def __init__(self, experiment: Experiment, step: int, directory: Path | None):
        stream = experiment.stream
        assert stream is not None
        path = None if directory is None else bad_records_path(directory, distributed.number())
        self._size, self._reported = len(experiment.train_set), 0
        self._bad = BadRecords(self._size, path)
        batch_size, total_steps = experiment.calendar.batch_size, experiment.calendar.total_steps
        slots = streaming.shard(batch_size, distributed.number(), distributed.count())
        source = _training_source(experiment, self._bad, slots)
        self._batches = streaming.Prefetch(
            source, total_steps, stream.workers, _place_on(experiment)
        )
        if step < total_steps:
            self._batches.begin(step)
        self._seconds, self._calls = 0.0, 0

    def batch(self, step: int, count: int) -> Batch:
        assert count == 1
        start = time.perf_counter()
        batch = self._batches.get(step)
        self._seconds += time.perf_counter() - start
        self._calls += 1
        return batch

    def data_wait(self) -> dict[str, float]:
        milliseconds = 1000 * self._seconds / max(1, self._calls)
        self._seconds, self._calls = 0.0, 0
        return {"data_wait_ms": milliseconds}

    def notice(self) -> str | None:
        if len(self._bad) == self._reported:
            return None
        self._reported = len(self._bad)
        records = f"{self._reported} record{'s' * (self._reported > 1)} of {self._size:,}"
        return f"{records} cannot be read; {BAD_RECORDS} names them, others stand in for them"

    def close(self) -> None:
        self._batches.close()
