"""Objects by their address: "my_nets.py:MyNet" or "package.module:MyNet"."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxcnn._checks import near


def is_address(name: str) -> bool:
    """Whether a name is an address of an object in a file or a module."""
    return ":" in name


def load_object(address: str) -> Any:
    """The object at an address.

    Args:
      address: "path/to/file.py:name", whose path is relative to the current directory and which
        may import files beside it, or "package.module:name".

    Raises:
      ValueError: there is no such file, module or name, or the file does not compile.
    """
    where, _, name = address.rpartition(":")
    if where.endswith(".py"):
        path = Path(where)
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


def _load_module(address: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ValueError(f"{address!r}: there is no module {error.name!r}") from error
    except (TypeError, ValueError) as error:  # "" or "..a"
        raise ValueError(f"{address!r} is no file.py:name and no package.module:name") from error


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
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SyntaxError):
            raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module
