"""The published recipes, by name: `jaxcnn train cifar_resnet:56`.

The files are those of `configs/` at the top of a checkout; an installed package has them in this
folder. Either way they are modules of this package, and import each other as such:

    from jaxcnn.configs._common import choose, finish
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxcnn._checks import note_once

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parents[1] / "configs"
FOLDER = _HERE if (_HERE / "_common.py").is_file() else _CHECKOUT
if FOLDER != _HERE:
    __path__.append(str(FOLDER))

_RENAMED = {"localisation": "localization"}
_TARGET = ("Published", "Expected", "No test error")


class Recipe(NamedTuple):
    """The description of a recipe.

    Attributes:
      name: what `jaxcnn train` takes.
      title: what is trained, and the source of the recipe.
      target: the error to expect, with its source.
      measured: the error that was measured, with the machine; "" if there is none.
    """

    name: str
    title: str
    target: str
    measured: str


def names() -> list[str]:
    """Returns the names of all recipes, those of ensembles (`ensembles/senet`) last."""
    single = sorted(p.stem for p in FOLDER.glob("[!_]*.py"))
    return single + sorted(f"ensembles/{p.stem}" for p in FOLDER.glob("ensembles/[!_]*.py"))


def find(name: str) -> Path | None:
    """Returns the file of a recipe, None if unknown; prints a note once for a former name."""
    if name in _RENAMED:
        note_once(f"the recipe {name} is now {_RENAMED[name]}")
        name = _RENAMED[name]
    return FOLDER / f"{name}.py" if name in names() else None


def similar(name: str, known: Sequence[str] | None = None) -> list[str]:
    """Returns up to three recipes, or known names, that contain a name or resemble it."""
    known = names() if known is None else known
    stem = name.removeprefix("configs/").removesuffix(".py")
    containing = [one for one in known if stem and stem in one]
    containing.sort(key=lambda one: (not one.startswith(stem), f"_{stem}" not in one))
    return list(dict.fromkeys(containing + difflib.get_close_matches(stem, known)))[:3]


def describe(name: str) -> Recipe:
    """Reads the description of a recipe from its docstring, without running the file."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    paragraphs = [" ".join(p.split()) for p in (ast.get_docstring(tree) or "").split("\n\n")]
    target = next((p for p in paragraphs[1:] if p.startswith(_TARGET)), "")
    measured = next((p for p in paragraphs[1:] if p.startswith("Measured")), "")
    measured = re.sub(":$", ".", measured.removeprefix("Measured "))
    return Recipe(name, paragraphs[0].rstrip("."), target, measured[:1].upper() + measured[1:])
