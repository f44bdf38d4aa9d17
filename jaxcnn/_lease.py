"""The lock of a run in a bucket: a lease, which its process renews as long as it lives.

The claims on PATH are the objects PATH.1, PATH.2, ...; the newest one counts. A claim is written
only if there is no such object yet, which stores guarantee, so that of several processes one gets
it. A claim that is released, whose process has ended on this machine, or that has not been renewed
for `LEASE` seconds while this process watched, may be followed by the next one. Clocks of different
machines are not compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from jaxcnn._buckets import BucketPath
from jaxcnn._checks import note

RENEWAL = 10.0  # seconds between renewals
LEASE = 60.0  # seconds without renewal after which a claim has ended
_POLL = 1.0  # seconds between two looks at a claim

_own: set[str] = set()  # tokens of the claims of this process


class Claimed(Exception):
    """Another process holds the lock; the argument is its description."""


class Lease:
    """A claim on a path in a bucket.

    Args:
      path: of the lock.
      holder: describes this process to others.

    Raises:
      Claimed: another process holds it.
      OSError: the store cannot be used.
    """

    def __init__(self, path: BucketPath, holder: str):
        self._path = path
        token = uuid.uuid4().hex
        process = os.getpid()
        self._content = {
            **{"holder": holder, "machine": _machine(), "token": token},
            **{"process": process, "started": _started(process)},
        }
        _own.add(token)
        try:
            self._number = self._claim()
        except BaseException:
            _own.discard(token)
            raise
        self._renewals, self._renewed = 0, _seconds()
        self._lost: str | None = None
        self._busy, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="jaxcnn lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises OSError if another process has taken over; renews the claim if that is due."""
        if self._lost is None and _seconds() - self._renewed > LEASE / 2:
            self._renew()
        if self._lost is not None:
            raise OSError(
                f"{self._path.parent} was taken over by {self._lost}, because this process did not "
                f"reach the bucket for {LEASE:.0f} s"
            )

    def close(self) -> None:
        """Releases the claim."""
        self._end.set()
        with self._busy, contextlib.suppress(OSError):
            if self._lost is None:
                _at(self._path, self._number).write_bytes(b"{}")
        _own.discard(self._content["token"])

    def _claim(self) -> int:
        number, content = _newest(self._path)
        if content is not None:
            number = _await_end(self._path, number, content)
        created = _at(self._path, number + 1).create(self._bytes())
        newest, content = _newest(self._path)
        if not created or newest > number + 1:  # another process has claimed it meanwhile
            raise Claimed(describe(content))
        for old in range(max(1, number - 1), number + 1):
            _at(self._path, old).unlink(missing_ok=True)
        return number + 1

    def _keep(self) -> None:
        while not self._end.wait(RENEWAL) and self._lost is None:
            with contextlib.suppress(OSError):  # `check` tries again, and raises
                self._renew()

    def _renew(self) -> None:
        with self._busy:
            if self._end.is_set():
                return
            number, content = _newest(self._path)
            if number > self._number:
                self._lost = describe(content)
                return
            self._renewals += 1
            _at(self._path, self._number).write_bytes(self._bytes(renewals=self._renewals))
            self._renewed = _seconds()

    def _bytes(self, **more: Any) -> bytes:
        return json.dumps({**self._content, **more}).encode()


def holder(path: BucketPath) -> dict[str, Any] | None:
    """Returns the claim of another live process on this machine, or of this process; else None."""
    content = _newest(path)[1]
    return None if content is None or _has_ended(content) is not False else content


def describe(content: dict[str, Any] | None) -> str:
    """Returns who holds a claim."""
    return str((content or {}).get("holder") or "another process")


def _at(path: BucketPath, number: int) -> BucketPath:
    return path.with_name(f"{path.name}.{number}")


def _newest(path: BucketPath) -> tuple[int, dict[str, Any] | None]:
    """(number of the newest claim, 0 for none; its content, None if it is free)."""
    start = f"{path.name}."
    names = [one.name for one in path.parent.iterdir()]
    ends = [name.removeprefix(start) for name in names if name.startswith(start)]
    number = max((int(end) for end in ends if end.isascii() and end.isdigit()), default=0)
    return number, (_read(_at(path, number)) if number else None)


def _read(path: BucketPath) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        content = {"holder": "an unknown process"}
    return content or None


def _await_end(path: BucketPath, number: int, content: dict[str, Any]) -> int:
    """Waits until a claim has ended. Raises Claimed when it is seen to be alive.

    Returns the number of the newest claim, which another process may have made and released.
    """
    ended = _has_ended(content)
    if ended is not None:
        if ended:
            return number
        raise Claimed(describe(content))
    note(
        f"{path.parent} was in use by {describe(content)}; waiting up to {LEASE:.0f} s to see "
        "whether that process is still running"
    )
    deadline = time.monotonic() + LEASE
    while time.monotonic() < deadline:
        time.sleep(_POLL)
        now, found = _newest(path)
        if now != number or found != content:
            if found is None:
                return now
            raise Claimed(describe(found))
    return number


def _seconds() -> float:
    """A clock that goes on while the machine is suspended, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _has_ended(content: dict[str, Any]) -> bool | None:
    """Whether the process of a claim has ended; None if that cannot be seen from here."""
    if content.get("token") in _own:
        return False
    process, started = content.get("process"), content.get("started")
    if content.get("machine") != _machine() or started is None:
        return None
    return _started(process) != started


def _started(process: Any) -> str | None:
    """When a process of this machine was started; None if there is none, or this is not Linux."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _machine() -> str:
    """Names the machine, since it was started, and the numbering of its processes."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(facts)
