"""Training with several processes: how they connect, and how they agree.

Each process has its own devices, and all processes run the same program on the same steps. The
first process does what only one should do, such as writing files. In a single process nothing here
communicates.
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

_TEXT = 2000  # bytes of an error message that the other processes receive
_LAST_WAIT = 10.0  # seconds
_HEARTBEAT = 45  # seconds without one after which JAX ends all processes


def begin(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connects this process with the others; call it before any device is used.

    SLURM, Open MPI, Cloud TPU and Kubernetes provide the arguments themselves; otherwise all three
    are required.

    Args:
      coordinator: "host:port" of the first process.
      processes: number of processes.
      process: index of this process, from 0.

    Raises:
      ValueError: only some arguments are given, one is invalid, none is given and no launcher
        provides them, or the processes cannot be connected.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(f"--{missing[0]} is missing; give --coordinator, --processes, --process")
    if processes is not None and processes < 1:
        raise ValueError(f"--processes is {processes}; it must be 1 or more")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"--process is {process}; it must be 0 to {processes - 1}")
    host, _, port = (coordinator or "").rpartition(":")
    if coordinator is not None and not (host and port.isdecimal()):
        raise ValueError(f"--coordinator is {coordinator!r}; it must be HOST:PORT")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=_HEARTBEAT
        )
    except (ValueError, RuntimeError) as error:
        if missing and "should be defined" in str(error):
            raise ValueError(
                "no launcher sets the index of this process; give --coordinator=HOST:PORT, "
                "--processes=N and --process=I"
            ) from error
        raise ValueError(f"the processes cannot be connected: {error}") from error
    with contextlib.suppress(Exception):  # only the heartbeats remain
        watch.begin()


def count() -> int:
    """Returns the number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Returns the index of this process, from 0."""
    return jax.process_index() if count() > 1 else 0


def is_first() -> bool:
    """Returns whether this is the first process, which writes files."""
    return number() == 0


def leave(code: int) -> NoReturn:
    """Ends this process and lets the other processes, which may be waiting for it, end as well.

    Args:
      code: exit code.
    """
    if not watch.stop():
        time.sleep(_LAST_WAIT)
    thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    thread.start()  # returns when the others leave as well
    thread.join(_LAST_WAIT)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def on_first_process(action: Callable[[], object]) -> None:
    """Runs an action on the first process, while the others wait.

    Args:
      action: to be run.

    Raises:
      Exception: the action's exception; in the other processes a ValueError with the same message.
    """
    error: Exception | None = None
    if is_first():
        try:
            action()
        except Exception as raised:
            error = raised
    message = "" if count() == 1 else _from_first((error and (str(error) or repr(error))) or "")
    if error:
        raise error
    if message:
        raise ValueError(message)


def distributed_options(distributed: bool, **place: Any) -> Mapping[str, Any] | None:
    """Returns the arguments for `begin` from those of a command line.

    Args:
      distributed: whether `--distributed` was given.
      **place: `coordinator`, `processes` and `process`.

    Returns:
      The arguments; None for a single process.
    """
    return place if distributed or any(value is not None for value in place.values()) else None


class AgreedStop:
    """Decides when to stop, so that all processes stop before the same step.

    A single process stops when it has received a signal. When one of several processes receives
    SIGTERM, with which clusters announce a preemption, JAX informs all of them.

    Args:
      received: returns the name of the signal that this process has received, or None.
    """

    def __init__(self, received: Callable[[], str | None]):
        self._received, self._calls = received, 0

    def reached(self) -> str | None:
        """Returns the name of the signal if it is time to stop, else None.

        All processes must call it equally often.
        """
        if count() == 1:
            return self._received()
        from jax.experimental import multihost_utils

        self._calls += 1
        return "SIGTERM" if multihost_utils.reached_preemption_sync_point(self._calls) else None


def _from_first(text: str) -> str:
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode("utf-8")[:_TEXT].ljust(_TEXT, b"\0"), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(data))
    return bytes(received).rstrip(b"\0").decode("utf-8", "replace")
