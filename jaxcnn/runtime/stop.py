"""Stop signals: SIGTERM from schedulers, Ctrl-C, and SIGHUP when the terminal closes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from jaxcnn.runtime import distributed

_STOPPING = b"stopping after this step, with a checkpoint; Ctrl-C again stops without one\n"


class StopSignals:
    """A context manager that records stop signals instead of letting them end the process.

    These are SIGTERM, Ctrl-C and SIGHUP, except where SIGHUP is ignored, as by `nohup`. It can be
    nested. A second Ctrl-C interrupts as usual. Outside the main thread it has no effect. With
    several processes, JAX handles SIGTERM itself in order to inform the other processes (see
    `distributed.AgreedStop`), and the other signals are forwarded as SIGTERM.

    Attributes:
      received: name of the signal received, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._depth = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in _caught():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1
        if not self._depth:
            before, self._before = self._before, {}
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received and number == signal.SIGINT:
            with contextlib.suppress(OSError):  # not `print`, which a signal may have interrupted
                os.write(2, _STOPPING)
        self.received = signal.Signals(number).name
        if distributed.count() > 1:
            signal.raise_signal(signal.SIGTERM)


def _caught() -> list[int]:
    numbers: list[int] = [signal.SIGINT]
    if distributed.count() == 1:
        numbers.append(signal.SIGTERM)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    return numbers
