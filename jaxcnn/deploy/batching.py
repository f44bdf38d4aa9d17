"""Groups items that arrive at the same time into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any


class Batcher:
    """Calls a function with the items that have arrived while it was busy with earlier ones.

    An item that arrives alone is not delayed, and the batches grow with the load.

    Args:
      run: function of a list of items to their results, in the same order.
      largest: maximum number of items of a call.
      executor: of the calls.
    """

    def __init__(self, run: Callable[[list[Any]], Sequence[Any]], largest: int, executor: Executor):
        self._run, self._largest, self._executor = run, largest, executor
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def submit(self, item: Any) -> Any:
        """Returns the result of an item, or raises the error of its batch."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    async def work(self) -> None:
        """Processes the items until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._largest and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            items = [item for item, _ in batch]
            results: Sequence[Any] = ()
            failure: Exception | None = None
            try:
                results = await loop.run_in_executor(self._executor, self._run, items)
            except Exception as error:  # of these items; the next batch may be fine
                failure = error
            for i, (_, future) in enumerate(batch):
                if future.done():  # the request was cancelled
                    continue
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(results[i])
