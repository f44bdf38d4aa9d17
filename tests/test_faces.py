"""The public interface of each package: `__all__` is there, documented, and all that users need."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("jaxcnn", "jaxcnn.ops", "jaxcnn.layers", "jaxcnn.models", "jaxcnn.data"),
    *("jaxcnn.metrics", "jaxcnn.weights", "jaxcnn.training", "jaxcnn.evaluation"),
    *("jaxcnn.analysis", "jaxcnn.studies", "jaxcnn.reporting"),
)
WITHOUT_JAX = ("jaxcnn.analysis", "jaxcnn.evaluation", "jaxcnn.reporting", "jaxcnn.studies")
SHOWN = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "notebooks/*.ipynb", "configs/**/*.py")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_exported_is_there_and_documented(package):
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if not getattr(value, "__module__", "").startswith("jaxcnn."):
            continue  # a module or a constant
        doc = inspect.getdoc(value) or ""
        assert doc.partition("\n")[0].endswith("."), f"{package}.{name}"
        if inspect.isfunction(value) and len(inspect.signature(value).parameters) > 1:
            documented = set(re.findall(r"^  \**(\w+): ", doc.partition("Args:\n")[2], re.M))
            missing = set(inspect.signature(value).parameters) - documented
            assert not missing, f"{package}.{name}: {missing}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="'nothing'"):
        importlib.import_module(package).nothing  # noqa: B018


def test_lazy_packages_do_not_import_jax():
    code = f"import sys, {', '.join(WITHOUT_JAX)}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def code_of(path: Path) -> list[str]:
    """The Python code that a file shows, in blocks."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = [[s for s in cell["source"] if s.lstrip()[:1] not in "%!"] for cell in cells]
        return ["".join(cell) or "\n" for cell in lines]
    return [text]


def private_names(code: str) -> list[str]:
    """The names of the package that code uses and that no package exports."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcnn"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("jaxcnn.")]
        elif isinstance(node, ast.Attribute):
            found += re.findall(r"^jaxcnn(?:\.\w+){1,2}$", ast.unparse(node))

    def exported(name: str) -> bool:
        package, _, last = name.rpartition(".")
        return package in PACKAGES and last in importlib.import_module(package).__all__

    return [name for name in found if not name.startswith("jaxcnn.configs") and not exported(name)]


@pytest.mark.parametrize("name", SHOWN)
def test_what_users_read_imports_exported_names_only(name):
    assert [used for code in code_of(ROOT / name) for used in private_names(code)] == []


def test_private_names_are_found():
    code = (
        "import jaxcnn\nfrom jaxcnn.training.step import make_train_step\njaxcnn.data.sets.Dataset"
    )
    assert private_names(code) == ["jaxcnn.training.step.make_train_step", "jaxcnn.data.sets"]
    assert private_names("from jaxcnn.training import train\njaxcnn.data.load('digits')") == []
