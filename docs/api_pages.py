"""The pages of the reference: one for each public package, and one for each module within."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from types import ModuleType
from typing import Any

import docstrings
from api_names import FACES, GROUPS, FullNames, homes, link, members, modules, role, scope

from jaxcnn.reporting.tables import markdown_table


def pages() -> dict[str, str]:
    """The pages by name."""
    found = {name: module_page(name) for name in modules()}
    return {"index": index_page(), "modules": internal_page(), **found}


def index_page() -> str:
    parts = [
        "# API",
        "These packages are the public interface; README, guides and notebooks use nothing else. "
        "Entries have a link to their source. [All modules](modules) lists the modules within, "
        "whose other names may change without notice.",
    ]
    for group, names in GROUPS.items():
        parts += [f"## {group}", _modules_table(names)]
    return "\n\n".join([*parts, _toctree([*FACES, "modules"])])


def internal_page() -> str:
    names = [name for name in modules() if _is_internal(name)]
    parts = [
        "# All modules",
        "The modules within the [public packages](index). Names that are not exported by one of "
        "these packages are internal and may change without notice.",
    ]
    for package in dict.fromkeys(".".join(name.split(".")[:2]) for name in names):
        within = [name for name in names if name.startswith(f"{package}.")]
        parts += [f"## {package}", _modules_table(within)]
    return "\n\n".join(parts)


def _is_internal(name: str) -> bool:
    exported = {name for face in FACES for name in _exported_modules(modules()[face])}
    return name not in FACES and name not in exported


def module_page(name: str) -> str:
    """A module's docstring, what it exports, and an entry for each function and class."""
    module = modules()[name]
    names = scope(module)
    is_hidden = name in homes().values()  # by a function of the same name
    parts = [
        # The pages of internal modules are not in the side bar of every page.
        "---\norphan: true\n---" if _is_internal(name) else "",
        f"# {name}",
        "" if is_hidden else f"```{{py:module}} {name}\n```",
        docstrings.markdown(docstrings.of_module(module), names),
        *([_exports_table(module)] if name in FACES else []),
        *entries(name, module),
    ]
    if within := _exported_modules(module):
        parts += ["## Modules", _modules_table(within), _toctree(within)]
    elsewhere = [full for full in names.values() if full.rpartition(".")[0] != name]
    if name not in FACES and elsewhere:
        links = ", ".join(role(full, full) for full in elsewhere)
        parts.append(f"Also defined here: {links}.")
    return "\n\n".join(parts).lstrip()


def entries(name: str, module: ModuleType) -> list[str]:
    """The entries of the functions and classes that are documented under a module's name."""
    return [
        _entry(name, member, value, scope(module))
        for member, value in members(module).items()
        if homes()[id(value)] == f"{name}.{member}"
    ]


def _exported_modules(module: ModuleType) -> list[str]:
    """The modules that a package exports, unless they are packages themselves."""
    names = [f"{module.__name__}.{name}" for name in getattr(module, "__all__", ())]
    return [name for name in names if name in modules() and name not in FACES]


def _exports_table(module: ModuleType) -> str:
    rows = []
    for name in module.__all__:
        value, full = getattr(module, name), homes().get(id(getattr(module, name)))
        if full:
            rows.append([role(name, full), docstrings.summary(inspect.getdoc(value))])
        elif not inspect.ismodule(value):
            what = "a type" if typing.get_origin(value) else f"a constant, {type(value).__name__}"
            rows.append([f"`{name}`", what])
    return markdown_table(["name", ""], [[a, link(b, scope(module))] for a, b in rows], left=2)


def _modules_table(names: list[str] | tuple[str, ...]) -> str:
    rows = [[f"[`{n}`]({n}.md)", link(docstrings.summary(modules()[n].__doc__))] for n in names]
    return markdown_table(["module", ""], rows, left=2)


def _toctree(names: list[str] | tuple[str, ...]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", *names, "```"])


# Entries


def _entry(module: str, name: str, value: Any, names: dict[str, str]) -> str:
    """A function, or a class with its methods, as a directive of Sphinx's domain for Python."""
    body = inspect.getdoc(value) or ""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    except (OSError, TypeError):  # made at run time
        tree = ast.Pass()
    if isinstance(tree, ast.FunctionDef | ast.ClassDef):
        _link_annotations(tree, FullNames(sys.modules[value.__module__]))
    if isinstance(tree, ast.FunctionDef):
        return _function("function", tree, body, names, module, name)
    if not isinstance(tree, ast.ClassDef):
        text = docstrings.markdown(body, names)
        return _directive("data", name, [f":module: {module}"], text, "`" * 6)
    methods = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    parts = [_bases(value), docstrings.markdown(body, names)]
    for method, node in methods.items():
        if not method.startswith("_"):
            decorators = {ast.unparse(one) for one in node.decorator_list}
            kind = (
                "property" if decorators & {"property", "functools.cached_property"} else "method"
            )
            doc = inspect.cleandoc(ast.get_docstring(node) or "")
            parts.append(_function(kind, node, doc, names))
    head = name + _fields(tree, methods.get("__init__"))
    return _directive(
        "class", head, [f":module: {module}"], "\n\n".join(filter(None, parts)), "`" * 7
    )


def _link_annotations(tree: ast.AST, full_names: FullNames) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            node.annotation = full_names.visit(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns:
            node.returns = full_names.visit(node.returns)


def _function(
    kind: str,
    tree: ast.FunctionDef,
    doc: str,
    names: dict[str, str],
    module: str | None = None,
    name: str | None = None,
) -> str:
    arguments = tree.args
    if kind in ("method", "property"):
        arguments.args = arguments.args[1:]
    returns = ast.unparse(tree.returns) if tree.returns else ""
    head, options = name or tree.name, [f":module: {module}"] if module else []
    if kind == "property":
        options += [f":type: {returns}"] if returns else []
    else:
        head += f"({ast.unparse(arguments)})" + (f" -> {returns}" if returns else "")
    own = {arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names = {key: full for key, full in names.items() if key not in own}
    return _directive(kind, head, options, docstrings.markdown(doc, names), "`" * 6)


def _directive(kind: str, head: str, options: list[str], body: str, fence: str) -> str:
    lines = [f"{fence}{{py:{kind}}} {head}", *options, "", body, fence]
    return "\n".join(lines)


def _fields(tree: ast.ClassDef, init: ast.FunctionDef | None) -> str:
    """The arguments with which a class is created: those of `__init__`, or its public fields."""
    if init:
        init.args.args = init.args.args[1:]
        return f"({ast.unparse(init.args)})"
    fields = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and not ast.unparse(node.target).startswith("_")
        and "ClassVar" not in ast.unparse(node.annotation)
    ]
    return f"({', '.join(fields)})" if fields else ""


def _bases(value: Any) -> str:
    """The classes of this package that a class derives from, as a line."""
    bases = [homes().get(id(base)) for base in value.__bases__]
    links = [role(full, full) for full in bases if full]
    return f"Derives from {', '.join(links)}." if links else ""
