"""What the documentation shows runs: Python blocks of the pages, examples in docstrings."""

import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from jaxcnn.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if "```python" in page.read_text())
FILE = re.compile(r"# (\w+\.py)\n")
EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "jaxcnn").rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


LONG = {"extending", "gradients"}


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in LONG), id=p.stem) for p in PAGES],
)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """A block that begins with `# name.py` is written to that file; then the commands run, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    files = [block for block in blocks if FILE.match(block)]
    for block in files:
        Path(FILE.match(block)[1]).write_text(block)
    if files:
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M):
            for line in block.replace("\\\n", "").splitlines():
                assert main(shlex.split(line)[1:]) in (None, 0), line
    code = "\n".join(block for block in blocks if block not in files)
    exec(compile(code, str(page), "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings(module):
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed
