"""Docstrings as Markdown."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from api_names import link

_SECTIONS = ("Args", "Arguments", "Attributes", "Fields", "Raises", "Returns", "Yields")
_ITEM = re.compile(r"  ([\w*`/]+(?:, [\w*`/]+)*): (.*)")


def of_module(module: ModuleType) -> str:
    """A module's docstring as written; `inspect.getdoc` would remove the indentation of code."""
    tree = ast.parse(Path(module.__file__ or "").read_text("utf-8"))
    return (ast.get_docstring(tree, clean=False) or "").strip()


def summary(docstring: str | None) -> str:
    """The first sentence of a docstring, without its period."""
    return (docstring or "").strip().partition("\n")[0].rstrip(".")


def markdown(docstring: str, names: Mapping[str, str] | None = None) -> str:
    """A docstring as Markdown: sections and indented items become lists, other indented text code.

    Args:
      docstring: with sections, lines such as "Args:". Items, "name: text", are indented by two
        spaces.
      names: to be linked, see `api_names.link`.
    """
    out: list[str] = []
    within = False
    code: list[str] = []
    for line in [*docstring.splitlines(), ""]:
        indent = len(line) - len(line.lstrip())
        is_example = line.lstrip().startswith(">>>")
        if code and (line.strip() == "" if code[0].lstrip().startswith(">>>") else _ends(line)):
            out += _fenced(code)
            code = []
        if code or is_example:
            code.append(line)
            within = False
        elif indent == 0 and _is_section(line):
            within = True
            out += ["", f"**{line[:-1]}**", ""]
        elif not within and indent == 2 and _ITEM.match(line) and not (out and out[-1]):
            within = True
            out.append(_item(line))
        elif within and line and indent == 0:
            within = False
            out += ["", line]
        elif within and indent == 2 and _ITEM.match(line):
            out.append(_item(line))
        elif within:
            out.append(f"  {line.strip()}" if indent > 2 else line.strip())
        elif line and indent >= 2 and out and out[-1].strip():
            out[-1] += f" {line.strip()}"  # a continued line; code follows a blank line
        elif line and indent >= 2:
            code.append(line)
        else:
            out.append(line)
    return link("\n".join(out + _fenced(code)).strip(), names)


def _ends(line: str) -> bool:
    """Whether a line comes after an indented block."""
    return bool(line) and not line.startswith("  ")


def _fenced(code: list[str]) -> list[str]:
    if not code:
        return []
    language = "pycon" if code[0].lstrip().startswith(">>>") else "text"
    return [
        "",
        f"```{language}",
        *textwrap.dedent("\n".join(code)).strip("\n").split("\n"),
        "```",
        "",
    ]


def _is_section(line: str) -> bool:
    """ "Args:", or "Fields (besides those of `Network`):"."""
    return line.endswith(":") and line.rstrip(":").partition(" (")[0] in _SECTIONS


def _item(line: str) -> str:
    """ "  name: text" as an entry of a list."""
    return _ITEM.sub(lambda found: f"- `{found[1].strip('`')}`: {found[2]}", line)
