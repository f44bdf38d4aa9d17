"""Objects by their address: "my_nets.py:MyNet" or "package.module:MyNet".

Wherever a configuration names something that users may write themselves (a network, a data source,
a loss, an optimizer, a schedule, an augmentation step), the name may be such an address. An object
that a program passes to `jaxcnn.training.train` has an address, too, "python:MyNet", which is known
to that program only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from jaxcnn._checks import near, one_line

PYTHON = "python:"  # prefix of the address of an object that was passed in Python
_passed: dict[str, Any] = {}


def is_address(name: Any) -> bool:
    """Whether a name is an address of an object in a file or a module."""
    return isinstance(name, str) and ":" in name


def without_folder(address: str) -> str:
    """Reduces the absolute path in an address to the name of its file.

    >>> without_folder("/home/me/nets.py:MyNet"), without_folder("my.nets:MyNet")
    ('nets.py:MyNet', 'my.nets:MyNet')
    """
    file, colon, name = address.rpartition(":")
    path = Path(os.path.expanduser(file))
    return f"{path.name}{colon}{name}" if path.is_absolute() else address


def is_passed(name: Any) -> bool:
    """Whether a name is the address of an object that was passed in Python."""
    return isinstance(name, str) and name.startswith(PYTHON)


def pass_object(value: Any, name: str) -> str:
    """Registers an object under an address; a later object of the same name replaces it.

    Args:
      value: the object.
      name: used if the object has no name.

    >>> pass_object(len, "function")
    'python:len'
    """
    function = value.func if isinstance(value, functools.partial) else value
    own = getattr(function, "__name__", "")
    address = PYTHON + (own if own.isidentifier() else name)
    _passed[address] = value
    return address


def load_object(address: str) -> Any:
    """Returns the object at an address.

    Args:
      address: "path/to/file.py:name", whose path is relative to the current directory and which
        may import files beside it, "package.module:name", or what `pass_object` returned.

    Raises:
      ValueError: there is no such file, module or name, or the file cannot be loaded.
    """
    where, _, name = address.rpartition(":")
    if is_passed(address):
        if address not in _passed:
            raise ValueError(
                f"{address!r} is an object that a Python program passed to train(); it is known "
                "only to a program that passes it again"
            )
        return _passed[address]
    if where.endswith(".py"):
        path = Path(os.path.expanduser(where))
        if not path.is_file():
            beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
            raise ValueError(
                f"{address!r}: there is no file {where} in {Path.cwd()}{near(path.name, beside)}"
            )
        module = _load_file(path.resolve(), path.stat().st_mtime_ns)
    else:
        module = _load_module(address, where)
    if not name or not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{address!r}: {where} has no {name!r}{near(name, names)}")
    return getattr(module, name)


def parameters(function: Any) -> list[str]:
    """Returns the names of the arguments that a function takes; [] if it is not a function.

    >>> parameters(lambda logits, labels, *, gamma=2.0: 0)
    ['logits', 'labels', 'gamma']
    """
    return list(inspect.signature(function).parameters) if callable(function) else []


def check_call(what: str, function: Any, *arguments: str, **options: Any) -> None:
    """Raises ValueError unless a function can be called with these arguments.

    Args:
      what: description of the function, for messages.
      function: it is not called.
      *arguments: descriptions of the positional arguments.
      **options: the keyword arguments.
    """
    if not callable(function):
        raise ValueError(f"{what} is of type {type(function).__name__}; it must be a function")
    signature = inspect.signature(function)
    known = list(signature.parameters)[len(arguments) :]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for option in options:
            if option not in known:
                hint = near(option, known) or f"; it takes {', '.join(known) or 'none'}"
                raise ValueError(f"unknown option {option!r} of {what}{hint}")
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        given = ", ".join([*arguments, *(f"{option}=..." for option in options)])
        raise ValueError(f"{what} cannot be called with ({given}): {error}") from error


@contextlib.contextmanager
def mistakes_in(path: Path) -> Iterator[None]:
    """Converts an error in a user's file to a ValueError, one line that names the place.

    A ValueError that the file or one beside it raises, such as of its argument, stays as it is.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        _raise_mistake(error, path)


@contextlib.contextmanager
def mistakes_in_network(name: str) -> Iterator[None]:
    """Converts an error in a user's network, while it is traced, to a ValueError that names it.

    Args:
      name: of the network. Errors in networks of the package stay as they are.
    """
    try:
        yield
    except Exception as error:
        if not is_address(name):
            raise
        # Not the file of the class, which has none in a notebook.
        file = _file_of(load_object(name).__call__)
        where = _last_line(traceback.extract_tb(error.__traceback__), file)
        text = f"{where and f'{where}: '}{str(error) or type(error).__name__}"
        raise ValueError(f"the network {name!r} cannot be used: {text}") from error


@contextlib.contextmanager
def mistakes_in_call(what: str, function: Any) -> Iterator[None]:
    """Converts an error in a call of a user's function to a ValueError, one line that names it.

    An error of a file, and a ValueError that the function raises, stay as they are.

    Args:
      what: description of the function.
      function: it is called in the context.
    """
    try:
        yield
    except OSError:
        raise
    except (Exception, SystemExit) as error:
        file, frames = _file_of(function), traceback.extract_tb(error.__traceback__)
        if isinstance(error, ValueError) and file and _raises(frames[-1], Path(file)):
            raise
        where = _last_line(frames, file)
        text = f"{where and f'{where}: '}{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{what}: {text}") from error


def _file_of(function: Any) -> str | None:
    """The file of a function; a notebook's cell has one, too."""
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", None)


def _raise_mistake(error: Exception | SystemExit, path: Path) -> NoReturn:
    """Raises the ValueError of `mistakes_in`."""
    if isinstance(error, SyntaxError):
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and _raises(frames[-1], path):
        raise error
    where = _last_line(frames, str(path)) or str(path)
    text = str(error) or type(error).__name__
    text = f"it exits the program ({text})" if isinstance(error, SystemExit) else text
    if isinstance(error, ModuleNotFoundError) and (path.parent / f"{error.name}.py").is_file():
        text += f"; a file beside it is imported as `from . import {error.name}`"
    raise ValueError(f"{where}: {text}") from error


def _last_line(frames: traceback.StackSummary, file: str | None) -> str:
    """Names the innermost line of a file in a traceback; "" if there is none."""
    if file is None:
        return ""
    lines = [f.lineno for f in frames if os.path.abspath(f.filename) == os.path.abspath(file)]
    return f"{file}, line {lines[-1]}" if lines else ""


def _raises(frame: traceback.FrameSummary, path: Path) -> bool:
    """Whether an error comes from a `raise` in a file or one beside it."""
    beside = Path(frame.filename).resolve().parent == path.resolve().parent
    return beside and (frame.line or "").startswith("raise")


def _load_module(address: str, where: str) -> ModuleType:
    if not all(part.isidentifier() for part in where.split(".")):
        raise ValueError(f"{address!r} is neither file.py:name nor package.module:name")
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{where}.".startswith(f"{missing}."):
            file = Path(f"{where.replace('.', '/')}.py")
            name = address.rpartition(":")[2]
            hint = f"; did you mean '{file}:{name}'?" if file.is_file() else ""
            raise ValueError(f"{address!r}: there is no module {missing!r}{hint}") from error
        _raise_mistake(error, _imported_file(error))


def _imported_file(error: BaseException) -> Path:
    """The file whose import failed: the first one in the traceback below the import system."""
    names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)[1:]]
    system = (importlib.__file__, "<frozen ")
    return Path(next((name for name in names if not name.startswith(system)), names[-1]))


@functools.lru_cache(maxsize=64)
def _load_file(path: Path, changed: int) -> ModuleType:
    """The file as a module; the same one until the file changes."""
    name = f"{path.stem} ({path})"  # not that of a module on the path
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up annotations there
    sys.path.insert(0, str(path.parent))
    try:
        with mistakes_in(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
