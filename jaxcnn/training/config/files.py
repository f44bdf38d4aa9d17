"""Reading a configuration from a file, and setting its fields from the command line."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcnn._checks import near
from jaxcnn.training.config.schema import (
    OPEN_SECTIONS,
    leaves,
    present_name,
    units,
    within,
)


def read_config(spec: str, overrides: Mapping[str, str] | Sequence[str] = ()) -> ConfigDict:
    """Reads "path/to/file.py" or "path/to/file.py:argument" and applies overrides.

    The file has `get_config(arg=None) -> ConfigDict`; it may import files beside it.

    Args:
      spec: path, and what `get_config` is called with.
      overrides: {"train.batch_size": "64"}, or "train.batch_size=64" strings. A value is read as
        the field's own type; "none" clears a field that may be None.

    Raises:
      ValueError: no such file or `get_config`, an unknown field, or a value of another type.
    """
    path, argument = split_spec(spec)
    get_config = load_function(path, "get_config")
    config = get_config(argument) if argument else get_config()
    if not isinstance(overrides, Mapping):
        overrides = split_overrides(overrides)
    for field, text in overrides.items():
        override(config, field, text)
        _clear_other_unit(config, field, overrides)
    return config


def split_spec(spec: str) -> tuple[Path, str]:
    """The file and the argument of "path/to/file.py:argument", "" for none."""
    path, suffix, argument = spec.partition(".py:")
    return Path(path + suffix.removesuffix(":")), argument


def split_overrides(texts: Sequence[str]) -> dict[str, str]:
    """{"train.seed": "1"} of "train.seed=1". Raises ValueError for one without "="."""
    for text in texts:
        if "=" not in text:
            raise ValueError(f"{text!r} does not say field=value")
    return dict(text.split("=", 1) for text in texts)


def load_function(path: Path, name: str) -> Callable:
    """A function of a Python file, which may import files beside it; errors as `read_config`."""
    if path.suffix != ".py" or not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ValueError(f"no configuration file {str(path)!r}{near(path.name, beside)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    finally:
        sys.path.remove(folder)
    if not hasattr(module, name):
        raise ValueError(f"{path} has no {name}()")
    return getattr(module, name)


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field from its text; errors as `read_config`.

    A field of a section whose fields depend on a name may be new there, and so may all of
    `model.options` be, as "{'depth': 20}": whoever reads them checks them.
    """
    field, text = present_name(field, text)
    *parents, last = field.split(".")
    section: Any = config
    for name in parents:
        section = section[name] if isinstance(section, ConfigDict) and name in section else None
    if isinstance(section, ConfigDict) and within(field, OPEN_SECTIONS):
        value, whole = _value(text), isinstance(section.get(last), ConfigDict)
        if last not in section or (whole and isinstance(value, dict)):
            with section.unlocked():
                section[last] = value
            return
    if not isinstance(section, ConfigDict) or last not in section:
        raise ValueError(f"unknown field config.{field}{near(field, leaves(config))}")
    if isinstance(section[last], ConfigDict):
        inner = ", ".join(f"config.{field}.{name}" for name in section[last])
        raise ValueError(f"config.{field} is a section; set one of its fields: {inner}")
    try:
        section[last] = _parse(text, section.get_type(last))
    except (ValueError, TypeError, KeyError, SyntaxError) as error:
        kind = section.get_type(last).__name__
        raise ValueError(f"config.{field} is {text!r}; it must be of type {kind}") from error


def _clear_other_unit(config: ConfigDict, field: str, overrides: Mapping[str, str]) -> None:
    """A duration that is set in steps is no longer one in epochs."""
    stem, _, unit = field.rpartition("_")
    if unit in units("every"):
        for other in units("every"):
            name = f"{stem}_{other}"
            if name != field and name not in overrides and name in leaves(config):
                override(config, name, "none")


def _parse(text: str, kind: type) -> Any:
    if text.lower() == "none":
        return None
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if kind in (int, float):
        return kind(text)
    value = ast.literal_eval(text)
    return tuple(value) if kind is tuple else value


def _value(text: str) -> Any:
    """Of a field whose type nothing says: a Python literal, or else the text itself."""
    known = {"true": True, "false": False, "none": None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, list) else value


def shorthands(*, deterministic: bool, profile: bool) -> list[str]:
    """FIELD=VALUE of flags that the commands have for them."""
    fields = {"train.deterministic=True": deterministic, "log.profile=10": profile}
    return [field for field, given in fields.items() if given]
