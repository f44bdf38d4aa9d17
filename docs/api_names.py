"""The functions, classes and modules of the reference, and links to them."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

from jaxcnn.models import FAMILIES

# The public packages.
GROUPS = {
    "Networks and weights": (
        *("jaxcnn", "jaxcnn.models", "jaxcnn.layers", "jaxcnn.ops", "jaxcnn.weights"),
        "jaxcnn.deploy",
    ),
    "Data and training": ("jaxcnn.data", "jaxcnn.training", "jaxcnn.metrics"),
    "Evaluation and analysis": (
        *("jaxcnn.evaluation", "jaxcnn.analysis", "jaxcnn.studies", "jaxcnn.reporting"),
    ),
}
FACES = tuple(name for group in GROUPS.values() for name in group)
FAMILY_MODULES = {f"jaxcnn.models.{family}": family for family in FAMILIES}


@functools.cache
def modules() -> dict[str, ModuleType]:
    """The modules with a page in the reference by name: the public packages, then the others."""
    found = {name: importlib.import_module(name) for name in FACES}
    for package in (*FACES[1:], "jaxcnn.runtime"):
        path = getattr(importlib.import_module(package), "__path__", ())
        for info in pkgutil.walk_packages(path, f"{package}."):
            if info.name in FAMILY_MODULES or info.ispkg or ".rules." in info.name:
                continue
            module = importlib.import_module(info.name)
            if members(module) or (module.__doc__ or "").count("\n") > 5:
                found[info.name] = module
    return found


def members(module: ModuleType) -> dict[str, object]:
    """The functions and classes that a package exports, or that a module defines."""
    exported = getattr(module, "__all__", None)
    names = vars(module) if exported is None else exported
    values = {name: getattr(module, name) for name in list(names) if not name.startswith("_")}
    return {
        name: value
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(_unwrapped(value)))
        and (exported is not None or value.__module__ == module.__name__)
        and inspect.getdoc(value)
    }


def _unwrapped(value: object) -> object:
    """The function within `functools.cache` or `jax.jit`."""
    return inspect.unwrap(value) if callable(value) else value


@functools.cache
def homes() -> dict[int, str]:
    """The full name under which a function or class is documented, by its `id`."""
    families = {name: importlib.import_module(name) for name in FAMILY_MODULES}
    found: dict[int, str] = {}
    for name, module in {**modules(), **families}.items():
        for member, value in members(module).items():
            found.setdefault(id(value), f"{name}.{member}")
    return found


@functools.cache
def target(name: str) -> str | None:
    """The documented name of "jaxcnn.module.name", or of what it is part of; None if unknown."""
    if name in modules() or name in FAMILY_MODULES:
        return name
    if "." not in name:
        return None
    try:
        value = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        value = None
    parent = name.rpartition(".")[0]
    return homes().get(id(value)) or (target(parent) if parent != "jaxcnn" else None)


def scope(module: ModuleType) -> dict[str, str]:
    """The names that the docstrings of a module use without a package: {name: documented name}."""
    return {name: homes()[id(value)] for name, value in members(module).items()}


@functools.cache
def _namespace(module: ModuleType) -> dict[str, object]:
    """The names of a module, also of what it imports for annotations only."""
    values = dict(vars(module))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcnn"):
            home = importlib.import_module(node.module or "")
            for alias in node.names:
                values.setdefault(alias.asname or alias.name, getattr(home, alias.name, None))
    return values


class FullNames(ast.NodeTransformer):
    """Replaces the names in an annotation by those under which they are documented.

    Args:
      module: in which the annotation is written.
    """

    def __init__(self, module: ModuleType) -> None:
        self._values = _namespace(module)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._full(node, self._values.get(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        first, *rest = ast.unparse(node).split(".")
        value = self._values.get(first)
        for name in rest:
            value = getattr(value, name, None)
        return self._full(node, value)

    def _full(self, node: ast.AST, value: object) -> ast.AST:
        full = homes().get(id(value))
        return ast.parse(full, mode="eval").body if full else node


def role(text: str, name: str) -> str:
    """A link, set as code, to a documented name."""
    return f"{{py:obj}}`{text} <{name}>`"


def link(text: str, names: Mapping[str, str] | None = None) -> str:
    """Markdown with links for names in backticks and for arXiv numbers.

    Args:
      text: Markdown. Its blocks of code and headings are left alone.
      names: further names, as `scope` returns them.
    """

    def to_role(found: re.Match) -> str:
        name = (names or {}).get(found[1])
        if found[1].startswith("jaxcnn."):
            name = target(found[1])
        return role(found[1], name) if name else found[0]

    lines = []
    for line, is_prose in _lines(text.split("\n")):
        if is_prose:
            line = re.sub(r"(?<![\[}`])`([\w.]+)`(?!`)", to_role, line)
        lines.append(line)
    return re.sub(
        r"arXiv\s+(\d{4}\.\d{4,5})(?!\d|\])",
        r"[arXiv \1](https://arxiv.org/abs/\1)",
        "\n".join(lines),
    )


def _lines(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yields each line, and whether it is neither code nor a heading."""
    fence = ""
    for line in lines:
        found = re.match(r" *(`{3,}|:{3,})", line)
        if found and not fence:
            fence = found[1]
        elif found and found[1] == fence:
            fence = ""
            yield line, False
            continue
        yield line, not fence and not line.startswith("#")
