"""Checks and messages: one line that names what is wrong and what is valid."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import sys
from collections.abc import Collection, Iterable, Sequence
from types import ModuleType
from typing import Any


def near(word: str, known: Iterable[str]) -> str:
    """Returns '; did you mean ...?' with similar words, or "" if there are none."""
    return did_you_mean(difflib.get_close_matches(word, list(known), n=3, cutoff=0.6))


def did_you_mean(words: Sequence[str]) -> str:
    """Returns '; did you mean ...?' with these words, or "" without words."""
    return f"; did you mean {' or '.join(map(repr, words))}?" if words else ""


def near_or_all(word: str, known: Collection[str]) -> str:
    """Returns '; did you mean ...?' with similar words or, without any, all known ones."""
    return near(word, known) or f"; it must be one of {', '.join(known)}"


def one_of(what: str, value: Any, known: Collection[str]) -> Any:
    """Returns the value; raises ValueError, with similar names, if it is not one of `known`."""
    if value not in known:
        raise ValueError(f"{what} is {value!r}{near_or_all(str(value), known)}")
    return value


def require(good: bool, what: str, value: Any, right: str) -> None:
    """Raises ValueError that names the thing, its value and what is valid, unless `good`."""
    if not good:
        raise ValueError(f"{what} is {value!r}; it must be {right}")


def note(text: str) -> None:
    """Prints a note to stderr, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        print(f"note: {text}", file=sys.stderr, flush=True)


@functools.cache
def note_once(text: str) -> None:
    """Prints a note to stderr, once per process."""
    note(text)


def shown(value: Any) -> str:
    """Describes an array by dtype and shape, "float32[2,10]", and other objects by their type."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return f"an object of type {type(value).__name__}"
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def message(error: BaseException) -> str:
    """Returns the message of an error; for an OSError, the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def one_line(error: BaseException) -> str:
    """Returns the message of an error in one line."""
    return " ".join(message(error).split())


def optional_package(name: str, extra: str) -> ModuleType:
    """Imports a package. Raises ValueError that names the extra to install if it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ValueError(f"{name} is not installed: pip install 'jaxcnn[{extra}]'") from None
