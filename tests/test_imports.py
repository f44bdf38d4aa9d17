"""Imports go one way: each package imports only what stands before it, and files form no cycle."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    *("ops", "layers", "models", "data", "metrics", "weights"),
    *("training", "evaluation", "analysis", "deploy", "studies", "cli"),
)
# Below all of them; between them, the files with an underscore are lowest.
BELOW = (
    *("_buckets", "_cache", "_checks", "_files", "_lazy", "_lease", "_objects"),
    *("configs", "runtime", "reporting"),
)
Edge = tuple[str, str]


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name; that of a package is its `__init__`."""
    found = {}
    for path in sorted((ROOT / "jaxcnn").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, within: bool = False):
    """(names imported, whether inside a function) but for those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield [alias.name for alias in node.names], within
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield [name if name in MODULES else node.module for name in names], within
        inner = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from imports(node, within or inner)


@functools.cache
def edges(within: bool) -> set[Edge]:
    """(importing file, imported file) of the imports at module level, or of those in functions."""
    return {
        (name, imported)
        for name, path in MODULES.items()
        for names, inside in imports(ast.parse(path.read_text("utf-8")))
        for imported in names
        if inside == within and imported in MODULES and imported != "jaxcnn"
    }


def package(module: str) -> str:
    return module.split(".")[1]


def rank(module: str) -> int:
    name = package(module)
    return -1 if name in BELOW else ORDER.index(name)


def allowed(edge: Edge) -> bool:
    """Whether the imported file stands before the importing one."""
    one, other = map(package, edge)
    if one in BELOW and other in BELOW:
        return one == other or other.startswith("_")
    return one == other or rank(edge[1]) < rank(edge[0])


def cycle(graph: set[Edge]) -> list[str] | None:
    """The files of one cycle, or None."""
    after: dict[str, list[str]] = {}
    for one, other in sorted(graph):
        after.setdefault(one, []).append(other)
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for imported in after.get(module, ()):
            if found := visit(imported, [*path, module]):
                return found
        done.add(module)
        return None

    return next((found for module in after if (found := visit(module, []))), None)


def test_every_file_has_its_place():
    known = {*ORDER, *BELOW}
    assert {m.split(".")[1] for m in MODULES if m != "jaxcnn"} <= known


@pytest.mark.parametrize("within", [False, True], ids=["of modules", "in functions"])
def test_imports_go_one_way(within):
    found = {e for e in edges(within) if e[0] != "jaxcnn"}
    assert sorted(e for e in found if not allowed(e)) == []


def test_no_cycle_between_files():
    assert cycle(edges(within=False)) is None
    assert cycle(edges(within=False) | edges(within=True)) is None


def test_cycles_and_steps_up_are_found():
    up = ("jaxcnn.data.sets", "jaxcnn.training.loop")
    assert not allowed(up) and allowed(up[::-1])
    assert not allowed(("jaxcnn.reporting.console", "jaxcnn.data.sets"))
    assert cycle({("a", "b"), ("b", "c"), ("c", "b")}) == ["b", "c", "b"]
    assert cycle({("a", "b"), ("b", "c"), ("a", "c")}) is None
