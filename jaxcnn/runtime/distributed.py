"""Several processes that train as one: how they find each other, and what they agree on.

Each process has devices of its own, and all of them run the same program on the same steps. What
one of them does alone, such as writing, the first one does. With a single process nothing here
talks to anyone.

When a process is killed, the others end too, within seconds, with a line and an exit code of their
own: each holds a connection to the first one, which the system closes. Where such a connection
cannot be made, or a machine is gone without a word, JAX notices that there are no heartbeats, and
aborts.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from jaxcnn.runtime import exit_codes

_TEXT = 2000  # bytes of an error that the others are told
_LAST_WAIT, _MOMENT = 10.0, 2.0  # seconds
_HEARTBEATS_FOR = 45  # seconds without one after which JAX gives a process up
_PLACE = "jaxcnn/watch"  # the key by which the first process tells where it is to be reached
_GOODBYE = b"."
_connections: list[socket.socket] = []
_ending = threading.Lock()


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
            coordinator, processes, process, heartbeat_timeout_seconds=_HEARTBEATS_FOR
        )
    except (ValueError, RuntimeError) as error:
        if missing and "should be defined" in str(error):
            raise ValueError(
                "no launcher tells this process its place; give --coordinator=HOST:PORT, "
                "--processes=N and --process=I"
            ) from error
        raise ValueError(f"the processes cannot be connected: {error}") from error
    with contextlib.suppress(Exception):  # JAX's heartbeats have to do
        _watch()


def _watch() -> None:
    """Ends this process when another one has ended without saying goodbye."""
    from jax._src.distributed import global_state as state

    if state.num_processes == 1:
        return
    atexit.register(_say_goodbye)
    host, _, _ = state.coordinator_address.rpartition(":")
    if state.process_id == 0:
        token = secrets.token_hex(16)
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        state.client.key_value_set(_PLACE, f"{server.getsockname()[1]} {token}")
        _in_background(_accept, server, token.encode())
        return
    port, token = state.client.blocking_key_value_get(_PLACE, 30_000).split()
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
    connection.sendall(f"{token} {state.process_id:06d}".encode())
    _in_background(_follow, connection, state.process_id, 0)


def _in_background(action: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=action, args=arguments, daemon=True).start()


def _accept(server: socket.socket, token: bytes) -> None:
    """Follows the processes that connect with the first one: those that know the token."""
    while True:
        connection, _ = server.accept()
        connection.settimeout(30)
        with contextlib.suppress(OSError, ValueError):
            told, _, other = connection.recv(len(token) + 7, socket.MSG_WAITALL).partition(b" ")
            if secrets.compare_digest(told, token):
                _in_background(_follow, connection, 0, int(other))
                continue
        connection.close()


def _follow(connection: socket.socket, own: int, other: int) -> None:
    """Waits until the other process closes the connection, or its machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    _connections.append(connection)
    said = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(64):
            said = data
    if said.endswith(_GOODBYE):
        return
    _end_without(int(said) if said.isdigit() else other, own)


def _end_without(lost: int, own: int) -> NoReturn:
    """Ends this process, of this number, since that of the number `lost` has ended."""
    _ending.acquire()  # for ever: one thread ends the process
    print(
        f"jaxcnn: process {own}: process {lost} has ended, so this one ends too; --resume goes on "
        "from the newest checkpoint",
        file=sys.stderr,
        flush=True,
    )
    if own == 0:
        for connection in _connections:
            with contextlib.suppress(OSError):
                connection.sendall(str(lost).encode())
        time.sleep(1)  # without this one JAX aborts the others: they are to read it before
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(exit_codes.PROCESS_LOST)


def _say_goodbye() -> None:
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.sendall(_GOODBYE)


def count() -> int:
    """How many processes there are."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return jax.process_index() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes."""
    return number() == 0


def await_loss() -> None:
    """Returns after a moment in which this process ends if another one has: see `begin`.

    For an error that may only be what follows of that, as of a computation that all take part in.
    """
    if count() > 1:
        time.sleep(_MOMENT)


def leave(code: int) -> NoReturn:
    """Ends this process where others may be waiting for it, who then end too."""
    if not _ending.acquire(blocking=False):  # another one has ended, and this one is ending as well
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
