"""Several processes that train as one: how they find each other, and what they agree on.

Each process has devices of its own, and all of them run the same program on the same steps. What
one of them does alone, such as writing, the first one does. With a single process nothing here
talks to anyone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from jaxcnn.runtime import watch

_TEXT = 2000  # bytes of an error that the others are told
_LAST_WAIT = 10.0  # seconds
_HEARTBEAT = 45  # seconds without one after which JAX ends all processes


def begin(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connects this process with the others; call it before anything asks for a device.

    Without arguments they are found where SLURM, Open MPI, Cloud TPU or Kubernetes has started the
    processes.

    Args:
      coordinator: "host:port" of the first process.
      processes: how many there are.
      process: the number of this one, from 0.

    Raises:
      ValueError: some arguments are given and some not, a number cannot be, or none is given and
        nothing tells them.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(f"--{missing[0]} is missing; give --coordinator, --processes, --process")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"--process is {process}; it must be 0 to {processes - 1}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator is {coordinator!r}; it must be HOST:PORT")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=_HEARTBEAT
        )
    except (ValueError, RuntimeError) as error:
        if missing and "should be defined" in str(error):
            raise ValueError(
                "no launcher tells this process its place; give --coordinator=HOST:PORT, "
                "--processes=N and --process=I"
            ) from error
        raise ValueError(f"the processes cannot be connected: {error}") from error
    with contextlib.suppress(Exception):  # the heartbeats have to do
        watch.begin()


def count() -> int:
    """How many processes there are."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return jax.process_index() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes."""
    return number() == 0


def leave(code: int) -> NoReturn:
    """Ends this process where others may be waiting for it, who then end too."""
    if not watch.stop():
        time.sleep(_LAST_WAIT)
    thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    thread.start()  # returns when the others leave as well
    thread.join(_LAST_WAIT)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def on_first_process(action: Callable[[], object]) -> None:
    """Has the first process do something, while the others wait.

    Raises:
      Exception: what the action raised; in the other processes as a ValueError of the same text.
    """
    error: Exception | None = None
    if is_first():
        try:
            action()
        except Exception as raised:
            error = raised
    told = "" if count() == 1 else _from_first((error and (str(error) or repr(error))) or "")
    if error:
        raise error
    if told:
        raise ValueError(told)


def distributed_options(distributed: bool, **place: Any) -> Mapping[str, Any] | None:
    """The arguments of `begin` by what was given on a command line; None for a single process."""
    return place if distributed or any(value is not None for value in place.values()) else None


class AgreedStop:
    """Whether to stop: with one process as soon as it is asked to, with several all at one step.

    Where any process was asked by SIGTERM, which is how clusters announce that they take a machine
    back, JAX lets all of them know, and all stop before the same step.
    """

    def __init__(self, received: Callable[[], str | None]):
        self._received, self._calls = received, 0

    def reached(self) -> str | None:
        """The signal's name if it is time to stop; every process calls it equally often."""
        if count() == 1:
            return self._received()
        from jax.experimental import multihost_utils

        self._calls += 1
        return "SIGTERM" if multihost_utils.reached_preemption_sync_point(self._calls) else None


def _from_first(text: str) -> str:
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode("utf-8")[:_TEXT].ljust(_TEXT, b"\0"), np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(data))
    return bytes(told).rstrip(b"\0").decode("utf-8", "replace")
