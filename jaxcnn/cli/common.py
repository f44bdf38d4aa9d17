"""What the commands share: exit codes, quiet logs, mistakes as one line."""

from __future__ import annotations

import os

DONE, NOT_FINITE, MISTAKE = 0, 1, 2
USER_MISTAKES = (ValueError, FileNotFoundError, PermissionError)


def quiet() -> None:
    """Hides the log messages of libraries such as Orbax: what matters is raised and shown."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def debugging(flag: bool) -> bool:
    """Whether a mistake shows its traceback: by --debug or JAXCNN_DEBUG=1."""
    return flag or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0")
