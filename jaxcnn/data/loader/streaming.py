"""Batches of image files, which threads decode ahead of the device.

Batch k is a function of (seed, k). Its examples are those of `resident.batch_indices`, and slot j
uses a counter-based random generator at (seed, k, j). There is no state, so a run can continue at
any step at no cost, and the batches do not depend on the number of threads or processes.

Threads are sufficient, since decoding and resizing release the GIL.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxcnn._cache import CopyError
from jaxcnn.data import boxes, crops
from jaxcnn.data.bad_records import BadRecords, retried
from jaxcnn.data.decode import BadImage
from jaxcnn.data.loader import resident
from jaxcnn.data.loader.ahead import cores
from jaxcnn.data.sets import Dataset, ImageFileDataset

Batch = dict[str, np.ndarray]
Example = tuple[Any, ...]  # image u8[S,S,3], label and, if the dataset has boxes, f32[M,4]
AHEAD = 3  # batches to prefetch


def shard(total: int, process: int, count: int) -> range:
    """Returns the range of items that belong to a process.

    The ranges of all processes are disjoint and complete, and their lengths differ by at most 1.

    Args:
      total: number of items.
      process: index of the process.
      count: number of processes.

    Raises:
      ValueError: `process` is out of range.
    """
    if not 0 <= process < count:
        raise ValueError(f"process is {process} of {count}")
    return range(total * process // count, total * (process + 1) // count)


def randomness(seed: int, step: int, slot: int) -> np.random.Generator:
    """Creates the random generator of an example, which depends only on seed, step and slot."""
    return np.random.Generator(np.random.Philox(counter=[0, 0, slot, step], key=[seed, 0]))


class Training:
    """Training batches of a dataset of image files.

    A bad record is replaced by the next example in the order of the epoch. A file in a bucket that
    cannot be copied is an error.

    Args:
      dataset: the examples.
      seed: seed of the order and of the crops, 0 to 2**32 - 1.
      batch: number of examples in the global batch.
      size: height and width of the images.
      crop: see `crops.training_crop`.
      bad: collects the bad records.
      slots: the slots of the batch to load, such as `shard(batch, process, count)`; by default all.
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
        """Returns a function for each slot of a step, which loads the example."""
        return [functools.partial(self._example, step, slot) for slot in self.slots]

    def collect(self, step: int, done: list[Example]) -> Batch:
        """Stacks the examples that the jobs loaded.

        Args:
          step: number of the step.
          done: results of `jobs(step)`.

        Returns:
          {"image": u8[B,S,S,3], "label": i32[B], "slot": i32[B]} and, if the dataset has boxes,
          "box" f32[B,M,4].
        """
        return _stack(done) | {"slot": np.asarray(self.slots, np.int32)}

    def _example(self, step: int, slot: int) -> Example:
        """Loads the example of a slot or, if it is bad, the next good one of the epoch."""
        size = len(self._set)
        epoch, within = divmod(step * self._batch + slot, size)
        random = randomness(self._seed, step, slot)
        choose = functools.partial(self._crop, random)
        for offset in range(size):
            position = epoch * size + (within + offset) % size
            index = int(resident.batch_indices(self._seed, position, size, 1)[0])
            try:
                return _read(self._set, index, choose, self._size)
            except CopyError:
                raise
            except (BadImage, OSError) as error:
                self._bad.add(self._set.name(index), str(error))
        raise ValueError("no record of the set can be read")


class Evaluation:
    """Evaluation batches, which contain each example once, in order, with a central crop.

    A bad record is an error.

    Args:
      dataset: the examples.
      batch: number of examples in a batch.
      size, side: see `crops.center`.
      places: indices of the examples to load, such as `shard(len(dataset), process, count)`; by
        default all.
    """

    def __init__(
        self,
        dataset: ImageFileDataset,
        batch: int,
        size: int,
        side: int,
        places: range | None = None,
    ):
        self._set, self._batch, self._size = dataset, batch, size
        self._places = range(len(dataset)) if places is None else places
        self._choose = functools.partial(crops.center, size=size, side=side)
        self.steps = -(-len(self._places) // batch)

    def jobs(self, step: int) -> list[Callable[[], Example]]:
        """Returns a function for each example of a batch, which loads it."""
        places = self._places[step * self._batch : (step + 1) * self._batch]
        return [functools.partial(self._example, index) for index in places]

    def collect(self, step: int, done: list[Example]) -> Batch:
        """Stacks the examples that the jobs loaded, and pads the batch.

        Args:
          step: number of the batch.
          done: results of `jobs(step)`.

        Returns:
          {"image": u8[B,S,S,3], "label": i32[B], "mask": f32[B]} and, if the dataset has boxes,
          "box" f32[B,M,4]. Padding has a mask of 0.
        """
        missing = self._batch - len(done)
        no_boxes = []
        if self._set.has_boxes:  # a process with a smaller share has no example in the last batch
            no_boxes = [np.zeros_like(done[0][2] if done else self._set.boxes(0))]
        blank = (np.zeros((self._size, self._size, 3), np.uint8), 0, *no_boxes)
        mask = np.arange(self._batch) < len(done)
        return _stack(done + [blank] * missing) | {"mask": mask.astype(np.float32)}

    def _example(self, index: int) -> Example:
        try:
            if self._set.has_boxes:
                found = retried(lambda: self._set.boxes(index))
                if not boxes.area(found).any():
                    raise BadImage("has no box")
            return _read(self._set, index, self._choose, self._size)
        except CopyError:
            raise
        except (BadImage, OSError) as error:
            raise ValueError(
                f"{self._set.name(index)} {error}; an evaluation leaves no example out"
            ) from None


def make_batch(source: Training | Evaluation, step: int) -> Batch:
    """Loads one batch in the calling thread."""
    return source.collect(step, [job() for job in source.jobs(step)])


class Prefetch:
    """Loads batches with threads, ahead of their use.

    Args:
      source: the batches.
      steps: number of steps; no batch is loaded for later ones.
      workers: number of threads; 0 for one per core that the process may use.
      place: applied to each batch after loading, for example to transfer it to the device.
      ahead: number of batches to load ahead of the current one.
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
        """Returns the batch of a step. Consecutive steps have been loaded ahead."""
        self.begin(step)
        return self._coming.pop(step).result()

    def begin(self, step: int) -> None:
        """Starts loading batches, from the given step on."""
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
        """Stops the threads and cancels pending jobs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._collector.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_memory(
    dataset: ImageFileDataset, limit: int, size: int, side: int, workers: int = 0
) -> Dataset:
    """Loads the first examples into memory, cropped as for evaluation.

    Args:
      dataset: the examples.
      limit: maximum number of examples.
      size: height and width of the crop, see `crops.center`.
      side: shorter side of the resized image.
      workers: see `Prefetch`.

    Returns:
      A dataset with images u8[N,size,size,3].
    """
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
        found = retried(lambda: dataset.boxes(index))
        box = boxes.through(found, window, height, width)
        return window

    return crops.cut(data, choose_both, size), label, box


def _stack(examples: list[Example]) -> Batch:
    images, labels, *example_boxes = zip(*examples)
    batch = {"image": np.stack(images), "label": np.array(labels, np.int32)}
    return batch | ({"box": np.stack(example_boxes[0])} if example_boxes else {})
