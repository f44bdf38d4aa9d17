"""What the commands share: exit codes, quiet logs, mistakes as one line."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any

DONE, NOT_FINITE, MISTAKE = 0, 1, 2
USER_MISTAKES = (ValueError, FileNotFoundError, PermissionError)


def print_any_name() -> None:
    """Characters that cannot be printed, as of a file's name that is not UTF-8, are replaced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quiet() -> None:
    """Hides the log messages of libraries such as Orbax: what matters is raised and shown."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    if not isinstance(sys.unraisablehook, functools.partial):
        sys.unraisablehook = functools.partial(_show_unraisable, sys.unraisablehook)


def _show_unraisable(show: Callable[[Any], object], what: Any) -> None:
    """Shows what a callback raised, but for the rest of a checkpoint that Orbax has given up."""
    if "Event loop is closed" not in str(what.exc_value):
        show(what)


def debugging(flag: bool) -> bool:
    """Whether a mistake shows its traceback: by --debug or JAXCNN_DEBUG=1."""
    return flag or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0")
