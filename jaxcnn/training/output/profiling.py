"""A profiler's trace of a few calls of a run, for a look at what the device does when."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxcnn.training.output import written

FOLDER = "profile"
_BEFORE = 2  # calls that warm up


class Trace:
    """Traces `calls` calls of a run into a folder, after the first two; none with 0.

    Close it: what was traced by then is written.
    """

    def __init__(self, folder: Path, calls: int):
        self._folder, self._calls, self._made, self._running = folder, calls, 0, False

    def after_call(self, out: Any) -> str | None:
        """To be told of each call and what came of it; a line for the user when it is written."""
        self._made += 1
        if self._calls and self._made == _BEFORE:
            jax.block_until_ready(out)
            with self._naming():
                jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        if self._running and self._made == _BEFORE + self._calls:
            jax.block_until_ready(out)
            self.close()
            return (
                f"a trace of {self._calls} calls is in {self._folder}: open its "
                "perfetto_trace.json.gz at https://ui.perfetto.dev, or the folder with xprof"
            )
        return None

    def close(self) -> None:
        if self._running:
            self._running = False
            before = set(self._sessions())
            with self._naming():
                jax.profiler.stop_trace()  # writes all of it
            workdir = self._folder.parent
            new = [path for path in self._sessions() if path not in before]
            written.note(workdir, *(path.relative_to(workdir).as_posix() for path in new))

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """What the profiler raises where it cannot write, as an OSError that names the folder."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OSError(f"the trace cannot be written to {self._folder} ({why})") from error

    def _sessions(self) -> list[Path]:
        return sorted(self._folder.glob("plugins/profile/*"))
