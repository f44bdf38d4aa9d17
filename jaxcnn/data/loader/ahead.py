"""Work that threads do ahead of its use."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ahead(
    function: Callable[[Item], Made], items: Iterable[Item], ahead: int | None = None
) -> Iterator[Made]:
    """Yields function(item) for each item, in order, computed ahead by a thread per core.

    An exception is raised in the place of the result.

    Args:
      function: applied to each item, in a thread.
      items: any number of items; they are taken in the calling thread.
      ahead: number of items to work on ahead of the current one; None for eight per core.
    """
    ahead = 8 * cores() if ahead is None else ahead
    with ThreadPoolExecutor(cores(), "jaxcnn-ahead") as pool:
        coming: collections.deque[Future[Made]] = collections.deque()
        try:
            for item in items:
                coming.append(pool.submit(function, item))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
