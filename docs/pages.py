"""Generates the pages that are derived from the code: recipes, commands, fields, families, API.

Everything is written below docs/families, docs/reference and docs/notebooks, which git ignores.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import inspect
import os
import pkgutil
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from jaxcnn import configs, draw
from jaxcnn.cli.main import make_parser
from jaxcnn.models.registry import FAMILIES, ModelInfo, list_models, model_info
from jaxcnn.reporting.tables import markdown_table
from jaxcnn.training.config.schema import FIELDS, default_config, leaves
from jaxcnn.weights.pretrained import WEIGHTS

# The network that is drawn on the page of its family, where it is not the first one.
_DRAWN = {
    "alexnet": ["alexnet_2gpu"],
    "vgg": ["vgg_d"],
    "resnet": ["plain34", "resnet34", "resnet50_v1"],
    "resnet_v2": ["resnet50_v2"],
    "wide_resnet": ["wide_resnet50_2"],
    "resnext": ["resnext50_32x4d"],
    "senet": ["se_resnet50"],
    "dpn": ["dpn92"],
}

_SECTIONS = ("Args", "Arguments", "Attributes", "Fields", "Raises", "Returns", "Yields")
_REPOSITORY = "https://github.com/jaxcnn/jaxcnn/blob/main"
_PACKAGES = (
    *("models", "ops", "data", "metrics", "weights", "training", "evaluation", "analysis"),
    *("deploy", "studies", "runtime", "reporting"),
)


def write_all(docs: Path) -> None:
    """Writes docs/families, docs/reference and docs/notebooks anew."""
    for name in ("families", "reference", "notebooks"):
        shutil.rmtree(docs / name, ignore_errors=True)
        (docs / name).mkdir()
    _write(docs / "reference" / "recipes.md", recipes_page())
    _write(docs / "reference" / "commands.md", commands_page())
    _write(docs / "reference" / "configuration.md", configuration_page())
    _write(docs / "reference" / "benchmarks.md", benchmarks_page(docs.parent))
    for family in FAMILIES:
        pictures = draw_family(family, docs / "families")
        _write(docs / "families" / f"{family}.md", family_page(family, pictures))
    _write(docs / "families" / "index.md", families_index())
    for name, module in api().items():
        _write(docs / "reference" / f"{name}.md", module_page(module))
    _write(docs / "reference" / "index.md", reference_index())
    copy_notebooks(docs.parent, docs / "notebooks")


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip() + "\n", "utf-8")


def copy_notebooks(root: Path, target: Path) -> None:
    """Copies the notebooks, with their outputs if .cache/notebooks has newer executed copies."""
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        executed = root / ".cache" / "notebooks" / notebook.name
        newer = executed.is_file() and executed.stat().st_mtime >= notebook.stat().st_mtime
        shutil.copy(executed if newer else notebook, target / notebook.name)


def toctree(*pages: str, depth: int = 1) -> str:
    return "\n".join(["```{toctree}", f":maxdepth: {depth}", *pages, "```"])


# Recipes, commands, fields


def recipes_page() -> str:
    """A table of the recipes with the error to expect, then the docstring of each."""
    recipes = [configs.describe(name) for name in configs.names()]
    parts = [
        "# Recipes",
        "The recipes are the files in `configs/`; they are installed with the package. `jaxcnn "
        "train NAME` trains a recipe and `jaxcnn train NAME:ARGUMENT` one of its variants. The "
        "variant `smoke`, which every recipe has, takes five steps on a small dataset.",
        markdown_table(
            ["recipe", "trains", "error to expect"],
            [[f"[`{r.name}`](#{_slug(r.name)})", r.title, r.target] for r in recipes],
            left=3,
        ),
    ]
    for recipe in recipes:
        tree = ast.parse((configs.FOLDER / f"{recipe.name}.py").read_text("utf-8"))
        parts += [f"## {recipe.name}", markdown(ast.get_docstring(tree) or "")]
    return "\n\n".join(parts)


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
        parts.append(markdown_table(["field", "default", "valid values"], rows, left=3))
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


# Families


def family_page(family: str, pictures: list[str]) -> str:
    """The docstring of a family's file, drawings, published facts, and the modules."""
    module = importlib.import_module(f"jaxcnn.models.{family}")
    title, _, text = _doc(module).partition(". ")
    infos = _infos(family)
    first = infos[0]
    example = ", ".join(map(str, first.input_size or ()))
    parts = [
        f"# {title}",
        markdown(text),
        f'```{{code-block}} python\nmodel = jaxcnn.create_model("{first.name}")\n'
        f"variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, {example})))\n"
        f"logits = model.apply(variables, images)  # images f32[N,{example.replace(' ', '')}]\n```",
        *pictures,
        "## Networks",
        networks_table(infos),
    ]
    parts += [f"- `{i.name}`: {i.protocol} ({i.source})" for i in infos if i.protocol]
    names = {info.name for info in infos}
    if published := [f"`{w.name}`" for w in WEIGHTS.values() if w.model in names]:
        parts += ["## Published weights", ", ".join(published) + "; see [Weights](../weights)."]
    parts += ["## Modules", *_members(module, "###")]
    return "\n\n".join(parts)


def draw_family(family: str, folder: Path) -> list[str]:
    """Draws the main networks of a family, and the blocks of the last; returns the figures."""
    names = _DRAWN.get(family, [_infos(family)[0].name])
    drawings = {"network": (names, draw(*names))}
    with contextlib.suppress(ValueError):  # no block
        drawings["block"] = (names[-1:], draw(names[-1], level="block"))
    figures = []
    for level, (drawn, drawing) in drawings.items():
        file = f"{family}_{level}.svg"
        drawing.save(folder / file)
        text = ("Blocks of " if level == "block" else "") + ", ".join(f"`{n}`" for n in drawn)
        figures.append(
            f"```{{figure}} {file}\n:target: ../_images/{file}\n:alt: {text}\n\n{text}; see "
            "[Drawings](../drawings).\n```"
        )
    return figures


def _infos(family: str) -> list[ModelInfo]:
    return [info for info in map(model_info, list_models()) if info.family == family]


def networks_table(infos: list[ModelInfo]) -> str:
    """Few columns, so that the table fits the page."""
    rows = [
        [
            f"`{info.name}`" + "".join(f" or `{alias}`" for alias in info.aliases),
            f"{info.params or 0:,}",
            f"{info.macs or 0:,}",
            *("" if e is None else str(e) for e in (info.top1_error, info.top5_error)),
        ]
        for info in infos
    ]
    return markdown_table(["id", "parameters", "multiply-adds", "top-1 %", "top-5 %"], rows)


def families_index() -> str:
    intro = "One page for each paper: its networks, their published errors, and deviations."
    return f"# Families of networks\n\n{intro}\n\n{toctree(*FAMILIES)}"


# API reference


@functools.cache
def api() -> dict[str, ModuleType]:
    """The modules of the reference by name, packages before their modules."""
    found = {name: importlib.import_module(name) for name in ("jaxcnn", "jaxcnn.layers")}
    families = {f"jaxcnn.models.{family}" for family in FAMILIES}
    for name in _PACKAGES:
        package = importlib.import_module(f"jaxcnn.{name}")
        found[package.__name__] = package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.name in families or info.ispkg or ".rules." in info.name:
                continue
            module = importlib.import_module(info.name)
            if _public(module) or _doc(module).count("\n") > 5:
                found[module.__name__] = module
    return found


def reference_index() -> str:
    packages = [name for name in api() if name.count(".") < 2 and hasattr(api()[name], "__path__")]
    intro = (
        "The page of a package lists its public interface, followed by its modules. Names that "
        "appear only on the page of a module are internal and may change without notice."
    )
    return f"# API\n\n{intro}\n\n{toctree(*packages, 'jaxcnn.layers')}"


def module_page(module: ModuleType) -> str:
    """A module's docstring, its public functions and classes, and a package's modules."""
    name = module.__name__
    parts = [f"# {name}", markdown(_doc(module)), *_members(module)]
    within = [other for other in api() if other.startswith(f"{name}.") and name != "jaxcnn"]
    if hasattr(module, "__path__") and within:
        parts += ["## Modules", toctree(*within)]
    return "\n\n".join(parts)


def _doc(module: ModuleType) -> str:
    """A module's docstring as written; `inspect.getdoc` would remove the indentation of code."""
    tree = ast.parse(Path(module.__file__ or "").read_text("utf-8"))
    return (ast.get_docstring(tree, clean=False) or "").strip()


def _public(module: ModuleType) -> list[tuple[str, object]]:
    """What a package exports, or what a module defines, if it has a docstring."""
    is_package = hasattr(module, "__path__")
    names = getattr(module, "__all__", ()) if is_package else vars(module)
    values = ((name, getattr(module, name)) for name in list(names) if not name.startswith("_"))
    return [
        (name, value)
        for name, value in values
        if (inspect.isfunction(value) or inspect.isclass(value))
        and (is_package or value.__module__ == module.__name__)
        and inspect.getdoc(value)
    ]


def _members(module: ModuleType, level: str = "##") -> Iterator[str]:
    for name, value in _public(module):
        yield f"{level} `{name}`"
        if shown := _signature(value):
            yield f"```{{code-block}} python\n{shown}\n```"
        yield markdown(inspect.getdoc(value) or "")


def _signature(value: object) -> str:
    """A function without its body; a class with its fields and the signatures of its methods."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    except (OSError, TypeError):  # made at run time
        return ""
    if isinstance(tree, ast.FunctionDef):
        return _head(tree)
    if not isinstance(tree, ast.ClassDef):
        return ""
    lines = [ast.unparse(node) for node in tree.body if isinstance(node, ast.AnnAssign)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            lines += [f"@{ast.unparse(decorator)}" for decorator in node.decorator_list]
            lines += _head(node).split("\n")
    bases = ", ".join(map(ast.unparse, tree.bases))
    head = f"class {tree.name}({bases}):" if bases else f"class {tree.name}:"
    return "\n".join([head, *(f"    {line}" for line in lines or ["..."])])


def _head(tree: ast.FunctionDef) -> str:
    """A function's first line, wrapped after its arguments if it is long."""
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    line = f"def {tree.name}({ast.unparse(tree.args)}){returns}: ..."
    return "\n    ".join(textwrap.wrap(line, 88, break_on_hyphens=False))


# Docstrings as Markdown


def link(text: str) -> str:
    """The text, outside code, with links for `jaxcnn.module.name` and for arXiv numbers."""

    def to_page(found: re.Match) -> str:
        name = found[1]
        if name in api():
            return f"[{found[0]}](../reference/{name}.md)"
        module, _, member = name.rpartition(".")
        if module in api() and member in dict(_public(api()[module])):
            return f"[{found[0]}](../reference/{module}.md#{member.lower()})"
        return found[0]

    parts = re.split(r"(^```.*?^```$)", text, flags=re.S | re.M)
    for i in range(0, len(parts), 2):  # the others are code
        parts[i] = re.sub(r"`(jaxcnn(?:\.\w+)+)`", to_page, parts[i])
        parts[i] = re.sub(
            r"arXiv\s+(\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", parts[i]
        )
    return "".join(parts)


def _is_section(line: str) -> bool:
    """ "Args:", or "Fields (besides those of `Network`):"."""
    return line.endswith(":") and line.rstrip(":").partition(" (")[0] in _SECTIONS


_ITEM = re.compile(r"  ([\w*`/]+(?:, [\w*`/]+)*): (.*)")


def _item(line: str) -> str:
    """ "  name: text" as an entry of a list."""
    return _ITEM.sub(lambda found: f"- `{found[1].strip('`')}`: {found[2]}", line)


def markdown(docstring: str) -> str:
    """A docstring as Markdown: sections and indented items become lists, other indented text code.

    A section is a line such as "Args:". Items, "name: text", are indented by two spaces.
    """
    out: list[str] = []
    within = code = False
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if not code and indent == 0 and _is_section(line):
            within = True
            out += ["", f"**{line[:-1]}**", ""]
        elif not (code or within) and indent == 2 and _ITEM.match(line) and not (out and out[-1]):
            within = True
            out.append(_item(line))
        elif within and line and indent == 0:
            within = False
            out += ["", line]
        elif within and indent == 2 and _ITEM.match(line):
            out.append(_item(line))
        elif within:
            out.append(f"  {line.strip()}" if indent > 2 else line.strip())
        elif line and indent >= 2 and not code and out and out[-1].strip():
            out[-1] += f" {line.strip()}"  # a continued line; code follows a blank line
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
    return link("\n".join(out).strip())
