"""Ends a process of several when another one has died, with one line and a separate exit code.

JAX notices a dead process only when its heartbeats have been missing for a while, and then aborts
the others. Here every process holds a connection to the first one, which the operating system
closes as soon as either of them ends. If no connection can be made, only JAX's heartbeats remain.
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
from collections.abc import Callable
from typing import Any, NoReturn

from jaxcnn.runtime import exit_codes

_KEY = "jaxcnn/watch"  # of JAX's key-value store: port and token of the first process
_GOODBYE = b"."  # sent by a process that ends normally
_MOMENT = 2.0  # seconds
_connections: list[socket.socket] = []
_ending = threading.Lock()


def begin() -> None:
    """Begins to watch the other processes; call it once JAX has connected them."""
    from jax._src.distributed import global_state as state

    client, address = state.client, state.coordinator_address
    assert client is not None and address is not None
    atexit.register(_say_goodbye)
    if state.process_id == 0:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        token = secrets.token_hex(16)
        client.key_value_set(_KEY, f"{server.getsockname()[1]} {token}")
        _in_background(_accept, server, token.encode())
        return
    host = address.rpartition(":")[0].strip("[]")
    port, token = client.blocking_key_value_get(_KEY, 30_000).split()
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"{token} {state.process_id:06d}".encode())
    _in_background(_follow, connection, state.process_id, 0)


def await_loss() -> None:
    """Waits a moment, in which this process ends if another one has died.

    For an error that may only be a consequence, such as that of a collective operation.
    """
    time.sleep(_MOMENT)


def stop() -> bool:
    """Stops watching, since this process ends; False if it is already ending with another one."""
    return _ending.acquire(blocking=False)


def _in_background(action: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=action, args=arguments, daemon=True).start()


def _accept(server: socket.socket, token: bytes) -> None:
    """Follows the processes that connect and know the token."""
    while True:
        connection, _ = server.accept()
        connection.settimeout(30)
        with contextlib.suppress(OSError, ValueError):
            received, _, other = connection.recv(len(token) + 7, socket.MSG_WAITALL).partition(b" ")
            if secrets.compare_digest(received, token):
                _in_background(_follow, connection, 0, int(other))
                continue
        connection.close()


def _follow(connection: socket.socket, own: int, other: int) -> None:
    """Waits until the connection to the other process ends, or its machine no longer answers."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    _connections.append(connection)
    last = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(64):
            last = data
    if not last.endswith(_GOODBYE):
        _end(own, int(last) if last.isdigit() else other)


def _end(own: int, lost: int) -> NoReturn:
    """Ends this process since another one has died. Arguments are the processes' indices."""
    _ending.acquire()  # and never released: one thread ends the process
    print(
        f"jaxcnn: process {own}: process {lost} has ended, so this one ends too; --resume "
        "continues from the newest checkpoint",
        file=sys.stderr,
        flush=True,
    )
    if own == 0:
        for connection in _connections:
            with contextlib.suppress(OSError):
                connection.sendall(str(lost).encode())
        time.sleep(1)  # JAX aborts the others when this one is gone; they must read it first
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(exit_codes.PROCESS_LOST)


def _say_goodbye() -> None:
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.sendall(_GOODBYE)
