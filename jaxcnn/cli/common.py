"""What the commands share: quiet logs, and what went wrong as one line and an exit code."""

from __future__ import annotations

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from jaxcnn._checks import one_line
from jaxcnn.runtime import exit_codes

USER_MISTAKES = (ValueError, OSError)
T = TypeVar("T")
_LONGEST = 400  # characters of a line


def print_any_name() -> None:
    """Characters that cannot be printed, as of a file's name that is not UTF-8, are replaced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quiet() -> None:
    """Hides the log messages of libraries such as Orbax: what matters is raised and shown."""
    import logging

    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of tasks that Orbax has given up
    if not isinstance(sys.unraisablehook, functools.partial):
        sys.unraisablehook = functools.partial(_show_unraisable, sys.unraisablehook)


def _show_unraisable(show: Callable[[Any], object], what: Any) -> None:
    """Shows what a callback raised, but for the rest of a checkpoint that Orbax has given up."""
    if "Event loop is closed" not in str(what.exc_value):
        show(what)


def track(what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
    """Yields items, with a bar in a terminal that tells how many there were and how long it took.

    What is printed in the meantime stands above the bar. It is on standard error where standard
    output is a file or a pipe, and there is none where both are.

    Args:
      what: what the items are, in front of the bar.
      items: to be yielded; each takes a while to make.
      total: how many there are; None if that is not known.
    """
    out, err = (bool(stream and stream.isatty()) for stream in (sys.stdout, sys.stderr))
    if not (out or err):
        yield from items
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        console=Console(stderr=not out, soft_wrap=True),
        transient=True,
        redirect_stdout=out,
        redirect_stderr=err,
    ) as bar:
        yield from bar.track(items, total=total, description=what)


def _debugging(flag: bool) -> bool:
    """Whether an error shows its traceback: by --debug or JAXCNN_DEBUG=1."""
    return flag or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0")


def describe(error: Exception, *, begun: bool = False, debug: bool = False) -> tuple[str, int]:
    """Returns one line on an error that ends a command, and the exit code.

    The traceback of an unexpected error is printed, with `debug` or JAXCNN_DEBUG=1 that of any.

    Args:
      error: the exception.
      begun: whether a training run was under way: its files were fine when it began.
      debug: whether --debug was given.
    """
    if show := _debugging(debug):
        traceback.print_exception(error)
    text = one_line(error)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ..."
    if isinstance(error, FloatingPointError):
        return f"stopped: {text}; the last checkpoint is good", exit_codes.NOT_FINITE
    if _is_of_jax(error):
        return f"error of JAX: {text}", exit_codes.RUNTIME_ERROR
    if isinstance(error, MemoryError):
        return f"error: out of memory{text and f': {text}'}", exit_codes.RUNTIME_ERROR
    if isinstance(error, OSError) and begun:
        return f"error: {text}", exit_codes.FAILED
    if isinstance(error, USER_MISTAKES):
        return f"error: {text}", exit_codes.MISTAKE
    if not show:
        traceback.print_exception(error)
    return f"unexpected error: {type(error).__name__}: {text}", exit_codes.BUG


def _is_of_jax(error: Exception) -> bool:
    jax = sys.modules.get("jax")  # it cannot be without it
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)
