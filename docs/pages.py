"""Makes the pages that follow from elsewhere: families, the reference, and the notebooks."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from jaxcnn.analysis import networks
from jaxcnn.models.registry import FAMILIES, list_models, model_info

_SECTIONS = ("Args", "Arguments", "Attributes", "Fields", "Raises", "Returns", "Yields")
_PACKAGES = (
    *(
        "ops",
        "models",
        "data",
        "metrics",
        "weights",
        "training",
        "evaluation",
        "analysis",
        "studies",
    ),
    *("runtime", "reporting"),
)


def write_all(docs: Path) -> None:
    """Writes docs/families, docs/reference and docs/notebooks anew."""
    for name in ("families", "reference", "notebooks"):
        shutil.rmtree(docs / name, ignore_errors=True)
        (docs / name).mkdir()
    for family in FAMILIES:
        (docs / "families" / f"{family}.md").write_text(family_page(family), "utf-8")
    for notebook in sorted((docs.parent / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, docs / "notebooks")
    for module in modules():
        (docs / "reference" / f"{module.__name__}.md").write_text(module_page(module), "utf-8")


def family_page(family: str) -> str:
    """The docstring of a family's file, its networks with their facts, and the module's fields."""
    module = importlib.import_module(f"jaxcnn.models.{family}")
    infos = [info for info in map(model_info, list_models()) if info.family == family]
    parts = [f"# {family}", module.PAPER, markdown(inspect.getdoc(module) or "")]
    parts += ["## Networks", networks.to_markdown(infos)]
    for info in infos:
        if info.protocol:
            parts.append(f"- `{info.name}`: {info.protocol} ({info.source})")
    parts += ["## Modules", *_members(module, "###")]
    return "\n\n".join(parts) + "\n"


def module_page(module: ModuleType) -> str:
    """A module's docstring and those of its public functions and classes."""
    parts = [f"# {module.__name__}", markdown(inspect.getdoc(module) or ""), *_members(module)]
    return "\n\n".join(parts) + "\n"


def modules() -> Iterator[ModuleType]:
    """The modules of the reference: those with something public."""
    yield importlib.import_module("jaxcnn.ops")
    yield importlib.import_module("jaxcnn.layers")
    families = {f"jaxcnn.models.{family}" for family in FAMILIES}
    for name in _PACKAGES:
        package = importlib.import_module(f"jaxcnn.{name}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name in families or found.ispkg or ".rules." in found.name:
                continue
            module = importlib.import_module(found.name)
            if _public(module) or (inspect.getdoc(module) or "").count("\n") > 5:
                yield module


def _public(module: ModuleType) -> list[tuple[str, object]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and inspect.getdoc(value)
    ]


def _members(module: ModuleType, level: str = "##") -> Iterator[str]:
    for name, value in _public(module):
        yield f"{level} `{name}`"
        if inspect.isfunction(value):
            yield f"```python\n{_signature(value)}\n```"
        yield markdown(inspect.getdoc(value) or "")


def _signature(function: object) -> str:
    """As it is written, without the body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    return f"def {tree.name}({ast.unparse(tree.args)}){returns}: ..."


def _is_section(line: str) -> bool:
    """ "Args:", or "Fields (besides those of `Network`):"."""
    return line.endswith(":") and line.rstrip(":").partition(" (")[0] in _SECTIONS


def markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections of names become lists, its indented parts code.

    A section is a line such as "Args:", and its items are indented by two.
    """
    out: list[str] = []
    within = code = False
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if not code and indent == 0 and _is_section(line):
            within = True
            out += ["", f"**{line[:-1]}**", ""]
        elif within and line and indent == 0:
            within = False
            out += ["", line]
        elif within and indent == 2 and (item := re.match(r"  ([\w*, `/]+?): (.*)", line)):
            out.append(f"- `{item[1].strip('`')}`: {item[2]}")
        elif within:
            out.append(f"  {line.strip()}" if indent > 2 else line.strip())
        elif line and indent >= 2 and not code and out and out[-1].strip():
            out[-1] += f" {line.strip()}"  # the line before goes on; code stands apart
        elif line and indent >= 2:
            if not code:
                out += ["", "```text"]
                code = True
            out.append(line)
        else:
            if code and line:
                out += ["```", ""]
                code = False
            out.append(line)
    if code:
        out.append("```")
    return "\n".join(out).strip()
