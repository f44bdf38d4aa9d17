"""Reads a configuration from a file, and sets its fields from the command line."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxcnn import configs
from jaxcnn._checks import did_you_mean, near
from jaxcnn._objects import mistakes_in
from jaxcnn.training.config.schema import (
    OPEN_SECTIONS,
    SECTION_FIELDS,
    leaves,
    present_name,
    units,
    within,
)

_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def read_config(spec: str, overrides: Mapping[str, str] | Sequence[str] = ()) -> ConfigDict:
    """Reads a recipe or a configuration file, and applies overrides.

    The file defines `get_config(arg=None) -> ConfigDict`. It may import other files of its folder:
    `from .other import thing`.

    Args:
      spec: name of a recipe or path of a file, optionally followed by ":" and the argument of
        `get_config`: "cifar_resnet:56", "path/to/file.py", "path/to/file.py:argument".
      overrides: {"train.batch_size": "64"}, or strings such as "train.batch_size=64". A value is
        parsed as the type of its field; "none" clears an optional field.

    Returns:
      The configuration.

    Raises:
      ValueError: the file or its `get_config` does not exist or fails, a field is unknown, or a
        value has the wrong type.
    """
    path, argument = split_spec(spec)
    get_config = load_function(path, "get_config")
    with mistakes_in(path):
        config = get_config(argument) if argument else get_config()
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"get_config() of {path} returned {type(config).__name__}; it must return a ConfigDict"
        )
    if not isinstance(overrides, Mapping):
        overrides = split_overrides(overrides)
    apply_overrides(config, overrides)
    return config


def apply_overrides(config: ConfigDict, overrides: Mapping[str, str]) -> None:
    """Sets fields from text, in order. Raises the same errors as `read_config`."""
    for field, text in overrides.items():
        override(config, field, text)
    clear_superseded(config, overrides)


def clear_superseded(config: ConfigDict, fields: Iterable[str]) -> None:
    """Clears the fields that setting other fields has made obsolete.

    Setting a duration in steps clears the duration in epochs. A new optimizer, schedule or loss
    drops the fields that it does not take, with a notice, unless they were set as well.

    Args:
      config: the configuration, changed in place.
      fields: the fields that were set, such as "train.length_steps".
    """
    fields = list(fields)
    for field in fields:
        _clear_other_units(config, field, fields)
        section, _, name = field.partition(".")
        if name == "name" and section in SECTION_FIELDS:
            _drop_untaken_fields(config[section], section, fields)


def split_spec(spec: str) -> tuple[Path, str]:
    """Splits "path/to/file.py:argument" or "recipe:argument" into file and argument."""
    path, suffix, argument = spec.partition(".py:")
    if suffix:
        return Path(path + ".py").expanduser(), argument
    if not spec.endswith(".py"):
        name, _, argument = spec.partition(":")
        if (recipe := configs.find(name)) is not None:
            return recipe, argument
        if "/" not in name:
            return Path(name), argument
    return Path(spec).expanduser(), ""


def split_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Converts "train.seed=1" to {"train.seed": "1"}. Raises ValueError if "=" is missing."""
    for text in texts:
        if "=" not in text:
            raise ValueError(f"expected FIELD=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts)


def load_function(path: Path, name: str) -> Callable:
    """Loads a function from a Python file, which may import other files of its folder.

    Raises the same errors as `read_config`.
    """
    if path.suffix != ".py" or not path.is_file():
        kind = "configuration file" if path.suffix == ".py" else "recipe or configuration file"
        raise ValueError(f"no {kind} {str(path)!r}{_similar(path)}")
    module_name = f"{_package(path.parent.resolve())}.{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with mistakes_in(path):
            spec.loader.exec_module(module)
    finally:
        sys.modules.pop(
            module_name, None
        )  # a file that is changed and read again is another module
    if not hasattr(module, name):
        raise ValueError(f"{path} has no {name}()")
    return getattr(module, name)


def _package(folder: Path) -> str:
    """Makes a package of the files of a folder, so that they can import each other.

    Returns its name.
    """
    if folder == configs.FOLDER.resolve():
        return configs.__name__
    name = "jaxcnn_configs_" + hashlib.sha256(str(folder).encode("utf-8", "replace")).hexdigest()
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _similar(path: Path) -> str:
    """Suggests files of the same folder, or recipes, for a path that does not exist."""
    siblings = sorted(path.parent.glob("[!_]*.py")) if path.suffix == ".py" else []
    stems = configs.similar(path.stem, [p.stem for p in siblings])
    words = [f"{stem}.py" for stem in stems] or configs.similar(str(path))
    return did_you_mean(words) or "; `jaxcnn train` lists the recipes"


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field from text. Raises the same errors as `read_config`.

    In an open section (`OPEN_SECTIONS`) the field may be new, and `model.options` may be set as a
    whole, "{'depth': 20}"; these fields are checked at use.
    """
    field, text = present_name(field, text)
    *parents, last = field.split(".")
    section: Any = config
    for name in parents:
        section = section[name] if isinstance(section, ConfigDict) and name in section else None
    if isinstance(section, ConfigDict) and within(field, OPEN_SECTIONS):
        value, is_section = _parse_untyped(text), isinstance(section.get(last), ConfigDict)
        if last not in section or (is_section and isinstance(value, dict)):
            with section.unlocked():
                section[last] = value
            return
    if not isinstance(section, ConfigDict) or last not in section:
        from jaxcnn.layers import Network  # imports JAX, which setting a field does not need
        from jaxcnn.training.config.checks import FIXED_OPTIONS

        fixed = ("parent", "name", *FIXED_OPTIONS)
        options = [f.name for f in dataclasses.fields(Network) if f.name not in fixed]
        options = [f"model.options.{name}" for name in options]
        raise ValueError(f"unknown field config.{field}{near(field, [*leaves(config), *options])}")
    if isinstance(section[last], ConfigDict):
        inner = ", ".join(f"config.{field}.{name}" for name in section[last] or ("NAME",))
        raise ValueError(f"config.{field} is a section; set one of its fields: {inner}")
    try:
        section[last] = parse_value(text, section.get_type(last))
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError) as error:
        kind = section.get_type(last).__name__
        raise ValueError(f"config.{field} is {text!r:.80}; it must be of type {kind}") from error


def _clear_other_units(config: ConfigDict, field: str, given: Sequence[str]) -> None:
    """Clears a duration in all units but that of `field`, and those that are given as well."""
    stem, _, unit = field.rpartition("_")
    if unit in units("every"):
        for other in units("every"):
            name = f"{stem}_{other}"
            if name != field and name not in given and name in leaves(config):
                override(config, name, "none")


def _drop_untaken_fields(section: ConfigDict, title: str, given: Sequence[str]) -> None:
    taken = SECTION_FIELDS[title](section.name)
    kept = [f for f in section if f"{title}.{f}" in given and section[f] is not None]
    dropped = [f for f in section if f not in taken and f not in kept]
    with section.unlocked():
        for field in dropped:
            del section[field]
    if dropped:
        names = ", ".join(f"config.{title}.{field}" for field in dropped)
        text = f"note: {title} {section.name!r} does not take {names}: dropped"
        print(text, file=sys.stderr)  # train.py's absl would hide a log message


def parse_value(text: str, kind: type) -> Any:
    """Parses text as a value of type `kind`. Raises ValueError or TypeError if it is not one."""
    if text.lower() == "none":
        return None
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in _BOOLS:
            raise ValueError(f"{text!r} is neither true nor false")
        return _BOOLS[text.lower()]
    if kind in (int, float):
        return kind(text)
    value = ast.literal_eval(text)
    return tuple(value) if kind is tuple else value


def _parse_untyped(text: str) -> Any:
    """Parses the value of a field without a declared type: a Python literal, else the text."""
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return tuple(value) if isinstance(value, list) else value


def shorthands(*, deterministic: bool, profile: bool) -> list[str]:
    """Returns the FIELD=VALUE overrides that the flags of the commands stand for."""
    fields = {"train.deterministic=True": deterministic, "log.profile=10": profile}
    return [field for field, given in fields.items() if given]
