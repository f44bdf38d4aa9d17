"""Notebooks run from top to bottom, and are as Colab needs them."""

import os
import re
from pathlib import Path

import execute
import nbformat
import pytest

ROOT = Path(__file__).parents[2]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PNG = "image/png"
ALWAYS = ("01",)  # each takes a minute or more; the others run with the slow tests


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_there_are_nine():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{i}" for i in range(1, 10)]


def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, *rest = notebook.cells
    assert f"colab.research.google.com/github/jaxcnn/jaxcnn/blob/main/notebooks/{path.name}" in (
        first.source
    )
    code = [cell for cell in rest if cell.cell_type == "code"]
    assert "%pip install --quiet --constraint" in code[0].source
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any("import tensorflow" in cell.source for cell in code)
    assert execute.fields(notebook).keys() >= notebook.metadata["fast"].keys()
    assert execute.fields(notebook)


def test_teaches(path):
    """A question, what to take away, an exercise with a hint, and what comes next."""
    text = "\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    assert re.search(r"^# \d\. ", text) and re.search(r"\*\*[^*]+\?\*\*", text.split("\n## ")[0])
    end = text.split("\n## Take away\n")[1].split("\n## Exercise\n")[1]
    assert "*Hint:*" in end
    following = NOTEBOOKS[NOTEBOOKS.index(path) + 1 :][:1]
    assert [f"]({after.name})" in end for after in following] == [True] * len(following)
    links = re.findall(r"\]\((\w+\.ipynb)\)", text)
    assert {*links} <= {other.name for other in NOTEBOOKS}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.name[:2] in ALWAYS else pytest.mark.slow)
        for path in NOTEBOOKS
    ],
)
def test_runs_in_fast_form(path, tmp_path):
    ours = ("XLA_FLAGS", "MPLBACKEND")  # of the tests' own process
    env = {name: value for name, value in os.environ.items() if name not in ours}
    cache = str(ROOT / ".cache" / "jax")
    env |= {"JAX_COMPILATION_CACHE_DIR": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
    notebook = execute.execute(path, tmp_path, fast=True, env=env)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    pictures = [out for out in outputs if PNG in out.get("data", {})]
    assert pictures, "no picture"
    assert not [out for out in outputs if out.get("name") == "stderr" and "Warning" in out.text]


def test_a_field_that_is_not_there():
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(nbformat.v4.new_code_cell('epochs = 5  # @param {type:"integer"}'))
    execute.fill_in(notebook, {"epochs": 1})
    assert notebook.cells[0].source == 'epochs = 1  # @param {type:"integer"}'
    with pytest.raises(ValueError, match="no form field 'steps'"):
        execute.fill_in(notebook, {"steps": 1})
