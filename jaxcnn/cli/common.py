"""What the commands share: exit codes, quiet logs, mistakes as one line."""

from __future__ import annotations

import io
import os
import sys

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


def debugging(flag: bool) -> bool:
    """Whether a mistake shows its traceback: by --debug or JAXCNN_DEBUG=1."""
    return flag or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0")
