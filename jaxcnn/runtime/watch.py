"""Ends a process of several when another one has died, with one line and a separate exit code.

JAX notices a dead process only when its heartbeats have been missing for a while, and then aborts
the others; when the first process dies, it aborts them at once. Here every process holds a
connection to the first one, which the operating system closes as soon as either of them ends, and
JAX's own connection goes through a relay, where it lasts a little longer. If no connection can be
made, only JAX's heartbeats remain.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from jaxcnn.runtime import exit_codes, relay

_KEY = "jaxcnn/watch"  # of JAX's key-value store: port and token of the first process
_GOODBYE = b"."  # sent by a process that ends normally
_MOMENT = 2.0  # seconds
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # which gRPC would use for this machine, too
_connections: list[socket.socket] = []
_relays: list[subprocess.Popen[bytes]] = []
_ending = threading.Lock()


@contextlib.contextmanager
def relayed() -> Iterator[None]:
    """While JAX connects this process within the block, it does so through a relay."""
    from jax._src import distributed

    library: Any = distributed._jax
    connect = library.get_distributed_runtime_client

    def through_relay(address: str, process: int, **options: Any) -> Any:
        if process == 0:
            return connect(address, process, **options)
        start, seconds = time.monotonic(), options["init_timeout"]
        address = _start_relay(address, seconds)
        options["init_timeout"] = max(5, round(seconds - time.monotonic() + start))
        return connect(address, process, **options)

    library.get_distributed_runtime_client = through_relay
    try:
        yield
    finally:
        library.get_distributed_runtime_client = connect


def _start_relay(address: str, seconds: float) -> str:
    """Starts a relay to an address and returns that of the relay; `address` if it cannot work."""
    if any(os.environ.get(name) for name in _PROXIES):
        return address
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-I", "-S", relay.__file__, host.strip("[]"), port, f"{seconds}"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    _relays.append(process)  # it ends with its standard input, when this process does
    assert process.stdout is not None
    found = process.stdout.readline().strip()  # empty if it has ended
    return f"127.0.0.1:{int(found)}" if found else address


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
