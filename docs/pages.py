"""Generates the pages that are derived from the code, and draws the networks.

Everything is written below docs/families, docs/reference and docs/notebooks, which git ignores.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
from pathlib import Path

import api_pages
import docstrings
import family_pages
import network_table
from api_names import link
from network_table import prose_table

from jaxcnn import configs
from jaxcnn.analysis.networks import MARKERS
from jaxcnn.cli.main import make_parser
from jaxcnn.models import FAMILIES
from jaxcnn.training import read_config
from jaxcnn.training.config.schema import FIELDS, default_config, leaves

# The networks that are drawn on the first page.
FIRST_PAGE = ("vgg16",)
_REPOSITORY = "https://github.com/jaxcnn/jaxcnn/blob/main"


def write_all(docs: Path) -> None:
    """Writes the files of docs/families, docs/reference and docs/notebooks that have changed."""
    folders = [docs / name for name in ("families", "reference", "notebooks")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    families, reference, notebooks = folders
    course = sorted((docs.parent / "notebooks").glob("*.ipynb"))
    drawn = {family: family_pages.draw_family(family, families) for family in FAMILIES}
    files = {
        family_pages.path_of(families, family, level) for family in drawn for level in drawn[family]
    }
    files.add(family_pages.draw_once(families / "first_page.svg", *FIRST_PAGE, level="stage"))
    texts = {
        **{families / f"{f}.md": family_pages.family_page(f, drawn[f]) for f in FAMILIES},
        families / "index.md": family_pages.index_page(),
        reference / "recipes.md": recipes_page(),
        reference / "commands.md": commands_page(),
        reference / "configuration.md": configuration_page(),
        reference / "benchmarks.md": benchmarks_page(docs.parent),
        **{reference / f"{name}.md": text for name, text in api_pages.pages().items()},
        **{notebooks / path.name: path.read_text("utf-8") for path in course},
    }
    for path, text in texts.items():
        text = text.rstrip() + "\n"
        if not path.is_file() or path.read_text("utf-8") != text:  # Sphinx reads these again
            path.write_text(text, "utf-8")
    for folder in folders:
        for path in set(folder.iterdir()) - files - set(texts):
            path.unlink()


def edit(name: str, text: str) -> str:
    """Adds links to the reference to a page written by hand, and the table of networks to its own.

    Args:
      name: of the page, without suffix.
      text: of the page.
    """
    if name == "networks":
        begin, end = MARKERS
        text = text.split(begin)[0] + network_table.site_table() + text.split(end)[1]
        text = f"---\nhide-toc: true\n---\n{text}"  # the table is wide
    return text if "/" in name else link(text)


def recipes_page() -> str:
    """A table of the recipes with the error to expect, then the docstring of each."""
    recipes = [configs.describe(name) for name in configs.names()]
    parts = [
        "# Recipes",
        "The recipes are the files in `configs/`; they are installed with the package. `jaxcnn "
        "train NAME` trains a recipe and `jaxcnn train NAME:ARGUMENT` one of its variants. The "
        "variant `smoke`, which every recipe has, takes five steps on a small dataset. Errors were "
        "measured where the last column has one. `python train.py "
        "--config=configs/NAME.py:ARGUMENT --config.FIELD=VALUE`, as in the commands below, is for "
        "a checkout; elsewhere it is `jaxcnn train NAME:ARGUMENT FIELD=VALUE`.",
        prose_table(
            ["recipe", "trains", "error to expect", "measured"],
            [
                [f"[`{r.name}`](#{_slug(r.name)})", link(r.title), link(r.target), r.measured]
                for r in recipes
            ],
            style="recipes",
        ),
    ]
    for recipe in recipes:
        tree = ast.parse((configs.FOLDER / f"{recipe.name}.py").read_text("utf-8"))
        doc = docstrings.markdown(ast.get_docstring(tree) or "")
        parts += [f"## {recipe.name}", doc]
        if "/" not in recipe.name:  # an ensemble has several configurations
            parts.append(_differences(recipe.name))
    return "\n\n".join(parts)


def _differences(recipe: str) -> str:
    """The fields that a recipe sets, folded away."""
    defaults = leaves(default_config())
    fields = leaves(read_config(recipe))
    lines = [f"{name}={value}" for name, value in fields.items() if defaults.get(name) != value]
    head = "<details><summary>Fields that differ from the defaults</summary>"
    return "\n\n".join([head, "\n".join(["```text", *lines, "```"]), "</details>"])


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands_page() -> str:
    """The help texts of `jaxcnn` and its subcommands."""
    os.environ["COLUMNS"] = "96"  # argparse wraps at this width
    parser = make_parser()
    actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Commands", f"```text\n{parser.format_help()}```"]
    for name, command in next(actions).choices.items():
        parts += [f"## jaxcnn {name}", f"```text\n{command.format_help()}```"]
    return "\n\n".join(parts)


def configuration_page() -> str:
    """Every field of a configuration with its default and its valid values."""
    defaults = leaves(default_config())
    defaults |= {"model.options": "{}"}  # an empty section
    about = _about_sections()
    parts = [
        "# Configuration",
        "`jaxcnn train CONFIG FIELD=VALUE` and `python train.py --config.FIELD=VALUE` set a field; "
        "`none` clears one that may be empty. `jaxcnn.training.default_config()` returns a "
        "configuration with all defaults. Which fields of `loss`, `optimizer` and `schedule` apply "
        "depends on the `name` in that section.",
    ]
    for section in dict.fromkeys(field.partition(".")[0] for field in [*defaults, *FIELDS]):
        names = [f for f in dict.fromkeys([*defaults, *FIELDS]) if f.startswith(f"{section}.")]
        rows = [
            [f"`{name}`", _default(defaults, name), FIELDS[name].valid if name in FIELDS else ""]
            for name in names
        ]
        parts += [f"## {section}", about.get(section, "")]
        parts.append(prose_table(["field", "default", "valid values"], rows))
    return "\n\n".join(part for part in parts if part)


def _default(defaults: dict, name: str) -> str:
    value = defaults.get(name)
    return "" if value is None else f"`{value}`"


def _about_sections() -> dict[str, str]:
    """The descriptions of the sections in the docstring of `default_config`."""
    found = {}
    for part in re.split(r"\n(?=\w[\w, ]*: )", inspect.getdoc(default_config) or "")[1:]:
        names, _, text = part.partition(": ")
        text = link(" ".join(text.split()))
        found |= dict.fromkeys(names.split(", "), text[:1].upper() + text[1:])
    return found


def benchmarks_page(root: Path) -> str:
    """benchmarks/README.md with links to the repository."""
    text = (root / "benchmarks" / "README.md").read_text("utf-8")
    return re.sub(r"\]\((results|NOTES\.md)\)", rf"]({_REPOSITORY}/benchmarks/\1)", text)
