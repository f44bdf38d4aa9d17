"""Traces a few calls of a run with the JAX profiler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxcnn._files import Spool
from jaxcnn.training.output import written

FOLDER = "profile"
_WARM_UP = 2  # calls before the trace


class Trace:
    """Traces calls of a run, after the first two. `close` writes an incomplete trace.

    Args:
      folder: folder to write the trace to.
      calls: number of calls to trace.
    """

    def __init__(self, folder: Path, calls: int):
        self._folder, self._calls, self._completed, self._running = folder, calls, 0, False
        self._spool: Spool | None = None

    def after_call(self, out: Any) -> str | None:
        """Starts and stops the trace; must be called after each call.

        Args:
          out: the result of the call, to wait for.

        Returns:
          A line for the user once the trace is written, else None.
        """
        self._completed += 1
        if self._completed == _WARM_UP:
            jax.block_until_ready(out)
            with self._locate_errors():
                # An error when the trace is written would leave JAX's only session open.
                self._spool = Spool(self._folder)
                self._spool.folder.mkdir(parents=True, exist_ok=True)
                jax.profiler.start_trace(self._spool.folder, create_perfetto_trace=True)
            self._running = True
        if self._running and self._completed == _WARM_UP + self._calls:
            jax.block_until_ready(out)
            self.close()
            return (
                f"a trace of {self._calls} calls is in {self._folder}: open its "
                "perfetto_trace.json.gz at https://ui.perfetto.dev, or the folder with xprof"
            )
        return None

    def close(self) -> None:
        """Ends a trace that is in progress, and writes it."""
        if self._running and self._spool is not None:
            self._running = False
            before = set(self._sessions())
            with self._locate_errors():
                jax.profiler.stop_trace()  # writes the trace
            new = [path for path in self._sessions() if path not in before]
            names = (path.relative_to(self._spool.folder).as_posix() for path in new)
            written.note(self._folder.parent, *(f"{self._folder.name}/{name}" for name in names))
            with self._locate_errors():
                self._spool.publish()
            self._spool.close()

    @contextlib.contextmanager
    def _locate_errors(self) -> Iterator[None]:
        """Converts errors of the profiler to an OSError that names the folder."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OSError(f"the trace cannot be written to {self._folder} ({why})") from error

    def _sessions(self) -> list[Path]:
        assert self._spool is not None
        return sorted(self._spool.folder.glob("plugins/profile/*"))
