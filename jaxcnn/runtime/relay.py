"""Forwards the connection of a process to JAX's service in the first process.

JAX aborts a process, with a stack trace, as soon as this connection breaks. Through the relay it
breaks some seconds after the first process has died, so that `jaxcnn.runtime.watch` can end the
process before. The relay is a process of its own, so that it works while Python is busy:

    python relay.py HOST PORT SECONDS

It prints its port once it has reached the first process, or ends if that takes longer than this. It
also ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_GRACE = 15.0  # seconds between the end of the first process and that of the connection
_PAUSE = 0.2  # seconds between attempts to connect


def main(host: str, port: str, seconds: str) -> None:
    """Forwards connections until the parent ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    _in_background(_end_with_parent)
    waiting = [_connect(host, int(port), float(seconds))]
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            near, _ = server.accept()
            far = waiting.pop() if waiting else _connect(host, int(port))
            _in_background(_copy, near, far, 0.0)
            _in_background(_copy, far, near, _GRACE)


def _connect(host: str, port: int, seconds: float = math.inf) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=30)
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(1)
            time.sleep(_PAUSE)
            continue
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _copy(source: socket.socket, target: socket.socket, grace: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    time.sleep(grace)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _in_background(action: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=action, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
