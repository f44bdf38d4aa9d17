"""Shared by the commands: logging, progress bars, and errors as one line and an exit code."""

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
    """Replaces characters that cannot be printed, such as in file names that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def quiet() -> None:
    """Hides log messages of libraries such as Orbax; errors are raised and printed anyway."""
    import logging

    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # about tasks that Orbax abandoned
    if not isinstance(sys.unraisablehook, functools.partial):
        sys.unraisablehook = functools.partial(_show_unraisable, sys.unraisablehook)


def _show_unraisable(show: Callable[[Any], object], what: Any) -> None:
    """Prints an unraisable exception, unless it comes from a checkpoint that Orbax abandoned."""
    if "Event loop is closed" not in str(what.exc_value):
        show(what)


def track(what: str, items: Iterable[T], total: int | None) -> Iterator[T]:
    """Yields items, and shows a progress bar with their number and the elapsed time in a terminal.

    Output that is printed meanwhile appears above the bar. If standard output is a file or a pipe,
    the bar is on standard error; if both are, there is no bar.

    Args:
      what: label of the bar.
      items: the items, each of which takes a while to compute.
      total: number of items; None if unknown.
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
    """Whether to print the traceback of an error: with --debug or JAXCNN_DEBUG=1."""
    return flag or os.environ.get("JAXCNN_DEBUG", "0") not in ("", "0")


def describe(error: Exception, *, begun: bool = False, debug: bool = False) -> tuple[str, int]:
    """Describes an error that ends a command.

    Prints the traceback of unexpected errors; with `debug` or JAXCNN_DEBUG=1, of all errors.

    Args:
      error: the exception.
      begun: whether a training run had started, so that its files had been checked.
      debug: whether --debug was given.

    Returns:
      One line of text, and the exit code.
    """
    if show := _debugging(debug):
        traceback.print_exception(error)
    text = one_line(error)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ..."
    if isinstance(error, FloatingPointError):
        return f"stopped: {text}", exit_codes.NOT_FINITE
    if _is_of_jax(error):
        return f"error in JAX: {text}", exit_codes.RUNTIME_ERROR
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
    jax = sys.modules.get("jax")  # not imported: the error is not from JAX
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)
