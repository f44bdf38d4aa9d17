"""Batches of image files, decoded by threads ahead of the device.

Batch k is a function of (seed, k): its examples are those of `resident.batch_indices`, and what is
random about slot j is drawn from a counter-based generator at (seed, k, j). No state is kept, so
going on at step k costs nothing, and the number of threads or processes changes nothing.

Threads suffice, as decoding and resizing release Python's lock.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxcnn.data import boxes, crops
from jaxcnn.data.bad_records import BadRecords, retried
from jaxcnn.data.decode import BadImage
from jaxcnn.data.loader import resident
from jaxcnn.data.sets import Dataset, ImageFileDataset

Batch = dict[str, np.ndarray]
Example = tuple[Any, ...]  # image u8[S,S,3], label, and the boxes f32[M,4] of a set that has them
AHEAD = 3  # batches in preparation


def share(total: int, process: int, count: int) -> range:
    """Which of `total` places are one process's: disjoint, complete, sizes differ by at most 1."""
    if not 0 <= process < count:
        raise ValueError(f"process is {process} of {count}")
    return range(total * process // count, total * (process + 1) // count)


def randomness(seed: int, step: int, slot: int) -> np.random.Generator:
    """The generator of one example of a step; the same whatever was drawn before."""
    return np.random.Generator(np.random.Philox(counter=[0, 0, slot, step], key=[seed, 0]))


class Training:
    """Training batches of a set.

    Args:
      dataset: the examples.
      seed: of the order and the crops, 0 to 2**32 - 1.
      batch: examples in the whole batch.
      size: of the images.
      crop: see `crops.training_crop`.
      bad: where bad records go.
      slots: the places of the batch to make, by default all; `share(batch, process, count)`.
    """

    def __init__(
        self,
        dataset: ImageFileDataset,
        seed: int,
        batch: int,
        size: int,
        crop: crops.Crop,
        bad: BadRecords,
        slots: range | None = None,
    ):
        self._set, self._seed, self._batch, self._size = dataset, seed, batch, size
        self._crop, self._bad = crop, bad
        self.slots = range(batch) if slots is None else slots

    def jobs(self, step: int) -> list[Callable[[], Example]]:
        """One function for each slot, that makes (image u8[S,S,3], label)."""
        return [functools.partial(self._example, step, slot) for slot in self.slots]

    def collect(self, step: int, done: list[Example]) -> Batch:
        """{"image": u8[B,S,S,3], "label": i32[B], "slot": i32[B]} of what the jobs made."""
        return _stack(done) | {"slot": np.asarray(self.slots, np.int32)}

    def _example(self, step: int, slot: int) -> Example:
        """Slot `slot` of step `step`; for a bad record, the one after it in the epoch's order."""
        size = len(self._set)
        place = step * self._batch + slot
        epoch, within = divmod(place, size)
        random = randomness(self._seed, step, slot)
        choose = functools.partial(self._crop, random)
        for further in range(size):
            at = epoch * size + (within + further) % size
            index = int(resident.batch_indices(self._seed, at, size, 1)[0])
            try:
                return _read(self._set, index, choose, self._size)
            except (BadImage, OSError) as error:
                self._bad.add(self._set.name(index), str(error))
        raise ValueError("no record of the set can be read")


class Evaluation:
    """Each example once, in order, cropped at the center; a bad record is an error.

    Args:
      dataset: the examples.
      batch: examples in a batch.
      size, side: see `crops.center`.
      places: the examples to take, by default all; `share(len(dataset), process, count)`.
    """

    def __init__(
        self, dataset: ImageFileDataset, batch: int, size: int, side: int, places: range | None = None
    ):
        self._set, self._batch, self._size = dataset, batch, size
        self._places = range(len(dataset)) if places is None else places
        self._choose = functools.partial(crops.center, size=size, side=side)
        self.steps = -(-len(self._places) // batch)

    def jobs(self, step: int) -> list[Callable[[], Example]]:
        """One function for each example of the batch, that makes (image u8[S,S,3], label)."""
        places = self._places[step * self._batch : (step + 1) * self._batch]
        return [functools.partial(self._example, index) for index in places]

    def collect(self, step: int, done: list[Example]) -> Batch:
        """{"image", "label", "mask": f32[B]}, filled up with black images under mask 0."""
        missing = self._batch - len(done)
        nowhere = [np.zeros((boxes.MOST, 4), np.float32)] * self._set.has_boxes
        blank = (np.zeros((self._size, self._size, 3), np.uint8), 0, *nowhere)
        mask = np.arange(self._batch) < len(done)
        return _stack(done + [blank] * missing) | {"mask": mask.astype(np.float32)}

    def _example(self, index: int) -> Example:
        if self._set.has_boxes and not boxes.area(self._set.boxes(index)).any():
            raise ValueError(f"{self._set.name(index)} has no box; an evaluation needs them all")
        try:
            return _read(self._set, index, self._choose, self._size)
        except (BadImage, OSError) as error:
            raise ValueError(
                f"{self._set.name(index)} {error}; an evaluation leaves no example out"
            ) from None


def make_batch(source: Training | Evaluation, step: int) -> Batch:
    """One batch, made here and now."""
    return source.collect(step, [job() for job in source.jobs(step)])


class Prefetch:
    """Makes batches with threads, the next ones while one is in use.

    Args:
      source: of the batches.
      steps: batches of steps below this are made.
      workers: threads; 0 for one per core that this process may use.
      place: what becomes of a batch beforehand, such as its way to the device.
      ahead: batches in preparation, besides the one in use.
    """

    def __init__(
        self,
        source: Training | Evaluation,
        steps: int,
        workers: int = 0,
        place: Callable[[Batch], Any] = lambda batch: batch,
        ahead: int = AHEAD,
    ):
        self._source, self._steps, self._place, self._ahead = source, steps, place, ahead
        self._pool = ThreadPoolExecutor(workers or cores(), "jaxcnn-decode")
        self._collector = ThreadPoolExecutor(1, "jaxcnn-collect")
        self._coming: collections.OrderedDict[int, Future] = collections.OrderedDict()

    def get(self, step: int) -> Any:
        """The batch of a step; quick for the step after the last one asked for."""
        self.begin(step)
        return self._coming.pop(step).result()

    def begin(self, step: int) -> None:
        """Begins to make the batches from a step on."""
        for other in [s for s in self._coming if not step <= s <= step + self._ahead]:
            self._coming.pop(other).cancel()
        for s in range(step, min(step + self._ahead + 1, self._steps)):
            if s not in self._coming:
                jobs = [self._pool.submit(job) for job in self._source.jobs(s)]
                self._coming[s] = self._collector.submit(self._finish, s, jobs)

    def _finish(self, step: int, jobs: list[Future]) -> Any:
        return self._place(self._source.collect(step, [job.result() for job in jobs]))

    def __iter__(self) -> Iterator[Any]:
        return (self.get(step) for step in range(self._steps))

    def close(self) -> None:
        """Ends the threads; what they have not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._collector.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_memory(dataset: ImageFileDataset, limit: int, size: int, side: int, workers: int = 0) -> Dataset:
    """The first examples, cropped as for evaluation."""
    source = Evaluation(dataset, min(limit, len(dataset)), size, side)
    with Prefetch(source, 1, workers) as batches:
        batch: Batch = batches.get(0)
    rest = {n: getattr(dataset, n) for n in ("num_classes", "class_names", "mean", "std")}
    return Dataset(images=batch["image"], labels=batch["label"], **rest)


def _read(dataset: ImageFileDataset, index: int, choose: Callable, size: int) -> Example:
    data, label = retried(lambda: dataset.read(index))
    if not 0 <= label < dataset.num_classes:
        raise ValueError(
            f"{dataset.name(index)} has label {label}; the classes are 0 to "
            f"{dataset.num_classes - 1}"
        )
    if not dataset.has_boxes:
        return crops.cut(data, choose, size), label
    box = np.empty(0)

    def choose_both(height: int, width: int) -> crops.Window:
        nonlocal box
        window = choose(height, width)
        box = boxes.through(dataset.boxes(index), window, height, width)
        return window

    return crops.cut(data, choose_both, size), label, box


def _stack(examples: list[Example]) -> Batch:
    images, labels, *located = zip(*examples)
    batch = {"image": np.stack(images), "label": np.array(labels, np.int32)}
    return batch | ({"box": np.stack(located[0])} if located else {})
