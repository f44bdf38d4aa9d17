"""Class probabilities for a whole test set, averaged over the views of each example."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxcnn.data import decode
from jaxcnn.data.augment import pipeline
from jaxcnn.data.bad_records import retried
from jaxcnn.data.loader.ahead import cores, map_ahead
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.sets import Dataset, ImageFileDataset
from jaxcnn.evaluation import protocols
from jaxcnn.runtime import compilation

Variables = Mapping[str, Any]
TestSet = Dataset | ImageFileDataset
Predict = Callable[[np.ndarray], jax.Array]
_BATCHES_AHEAD = 4  # views to prepare ahead, unless a core would have nothing to do


def probabilities(
    model: nn.Module,
    variables: Variables,
    test_set: TestSet,
    preprocessing: Preprocessing,
    protocol: protocols.Protocol,
    *,
    classes: tuple[int, ...] | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes class probabilities for a test set, averaged over the views of each example.

    Args:
      model: the network; under a dense protocol it must accept images of any size.
      variables: its variables.
      test_set: to be evaluated, in order.
      preprocessing: size, crop, interpolation and normalization.
      protocol: one of `protocols.PROTOCOLS`.
      classes: the classes that can be predicted, as indices of the network's; None for all.
      batch_size: number of views per batch.
      progress: called with the number of examples that are done.

    Returns:
      Probabilities f32[N,K] and labels i32[N].

    Raises:
      ValueError: the images do not fit the network, or one cannot be read.
    """
    apply = functools.partial(
        _compiled(model, preprocessing.mean, preprocessing.std, classes), variables
    )
    total, labels = len(test_set), []
    count = protocols.view_count(protocol)
    # Images in memory have one size. With enough of them for a batch, threads work on few batches.
    block = min(total, max(1, batch_size // count)) if isinstance(test_set, Dataset) else 1
    ahead = max(cores(), min(8 * cores(), _BATCHES_AHEAD * batch_size // (block * count)))
    places = (range(i, min(i + block, total)) for i in range(0, total, block))
    views = functools.partial(_views, test_set, preprocessing, protocol)

    def loaded() -> Iterator[list[np.ndarray]]:
        for scales, given in map_ahead(views, places, ahead):
            labels.append(given)
            yield scales

    means, done = [], 0
    average = functools.partial(_average_dense, block=block) if protocol.dense else _average
    for rows in average(apply, loaded(), batch_size):
        means.append(rows)
        done += len(rows)
        progress(done)
    if done != total:
        raise ValueError(f"{done} predictions for {total} examples")
    return np.concatenate(means).astype(np.float32), np.concatenate(labels).astype(np.int32)


def _views(
    test_set: TestSet, preprocessing: Preprocessing, protocol: protocols.Protocol, places: range
) -> tuple[list[np.ndarray], np.ndarray]:
    """Views u8[n,V,h,w,C] at each scale, and labels, of examples with images of one size."""
    if isinstance(test_set, Dataset):
        chosen = slice(places.start, places.stop)
        images, labels = test_set.images[chosen], test_set.labels[chosen]
    else:
        pairs = list(examples(test_set, places))
        images, labels = (np.stack(values) for values in zip(*pairs))
    if images.shape[-1] != len(preprocessing.mean):
        raise ValueError(
            f"the images have {images.shape[-1]} channels; the network takes "
            f"{len(preprocessing.mean)}"
        )
    try:
        scales = protocols.all_views(
            images, protocol, preprocessing.size, preprocessing.crop, preprocessing.interpolation
        )
    except decode.BadImage as error:
        raise ValueError(f"{_name(test_set, places.start)} {error}") from error
    return scales, np.asarray(labels)


def _average(
    apply: Predict, blocks: Iterable[list[np.ndarray]], batch_size: int
) -> Iterator[np.ndarray]:
    """Yields the mean probabilities f32[n,K] of each example, from views of one size."""
    count = 0  # views of an example

    def flat() -> Iterator[np.ndarray]:
        nonlocal count
        for scales in blocks:
            views = np.concatenate(scales, 1)
            count = views.shape[1]
            yield views.reshape(-1, *views.shape[2:])

    waiting: list[np.ndarray] = []
    for rows in _in_batches(apply, flat(), batch_size):
        waiting.append(rows)
        whole = sum(map(len, waiting)) // count * count
        if whole:
            together = np.concatenate(waiting)
            yield together[:whole].reshape(whole // count, count, -1).mean(1)
            waiting = [together[whole:]]


def _average_dense(
    apply: Predict, blocks: Iterable[list[np.ndarray]], batch_size: int, block: int
) -> Iterator[np.ndarray]:
    """Yields the mean probabilities f32[n,K] of each example, from views as large as it is."""
    for scales in blocks:
        means = []
        for views in scales:
            examples, count = views.shape[:2]
            flat = views.reshape(-1, *views.shape[2:])
            rows = np.concatenate(list(_in_batches(apply, [flat], min(batch_size, block * count))))
            means.append(rows.reshape(examples, count, -1).mean(1))
        yield np.mean(means, 0)


def _in_batches(
    apply: Predict, pieces: Iterable[np.ndarray], batch_size: int
) -> Iterator[np.ndarray]:
    """Yields the results of `apply` for pieces [n,...], in full batches; zeros fill up the last.

    A batch is handed over before the result of the one before it is waited for.
    """
    running: tuple[jax.Array, int] | None = None
    for batch, count in _full_batches(pieces, batch_size):
        result, running = running, (apply(batch), count)
        if result is not None:
            yield np.asarray(result[0])[: result[1]]
    if running is not None:
        yield np.asarray(running[0])[: running[1]]


def _full_batches(
    pieces: Iterable[np.ndarray], batch_size: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (batch, number of rows that are not padding) for pieces [n,...] in a row."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) < batch_size:
            continue
        together = np.concatenate(waiting)
        last = len(together) // batch_size * batch_size
        for start in range(0, last, batch_size):
            yield together[start : start + batch_size], batch_size
        waiting = [together[last:]]
    if count := sum(map(len, waiting)):
        padding = np.zeros((batch_size - count, *waiting[0].shape[1:]), waiting[0].dtype)
        yield np.concatenate([*waiting, padding]), count


def _name(test_set: TestSet, index: int) -> str:
    """The name of an example, for messages."""
    return f"example {index}" if isinstance(test_set, Dataset) else test_set.name(index)


@functools.lru_cache(maxsize=4)
def _compiled(
    model: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    classes: tuple[int, ...] | None,
) -> Callable[..., Any]:
    """A function of (variables, views u8[V,h,w,C]) to probabilities, compiled once per network."""

    @compilation.jit
    def apply(variables: Variables, views: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, pipeline.normalize(views, mean, std), train=False)
        return jax.nn.softmax(logits if classes is None else logits[:, np.array(classes)], -1)

    return apply


def examples(
    test_set: TestSet, indices: Iterable[int] | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields images u8[H,W,C] and labels of a test set.

    Args:
      test_set: in memory or as image files.
      indices: of the examples; None for all of them, in order.

    Raises:
      ValueError: an image cannot be read.
    """
    for index in range(len(test_set)) if indices is None else indices:
        if isinstance(test_set, Dataset):
            yield test_set.images[index], int(test_set.labels[index])
            continue
        try:
            data, label = retried(functools.partial(test_set.read, index))
            yield decode.decode(data), label
        except decode.BadImage as error:
            raise ValueError(f"{test_set.name(index)} {error}") from error
