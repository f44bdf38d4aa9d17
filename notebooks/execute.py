"""Runs notebooks from top to bottom, as `make notebooks` does.

    python notebooks/execute.py                # all of them
    python notebooks/execute.py --fast 01 06   # two, with the values of the tests

The small values of a notebook's form fields are in its metadata, under "fast".
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
_FIELD = re.compile(r"^(\w+) = (.*?)(\s*# ?@param.*)$", re.M)


def fields(notebook: Any) -> dict[str, str]:
    """The form fields `name = value  # @param ...` of a notebook, with their values as text."""
    code = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return {name: value for source in code for name, value, _ in _FIELD.findall(source)}


def fill_in(notebook: Any, values: Mapping[str, Any]) -> None:
    """Sets form fields.

    Raises:
      ValueError: the notebook has no such field.
    """
    if unknown := set(values) - set(fields(notebook)):
        raise ValueError(f"the notebook has no form field {min(unknown)!r}")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = _FIELD.sub(functools.partial(_filled, values), cell.source)


def _filled(values: Mapping[str, Any], field: re.Match) -> str:
    name, _, form = field.groups()
    return f"{name} = {values[name]!r}{form}" if name in values else field[0]


def execute(path: Path, folder: Path, *, fast: bool, env: Mapping[str, str] | None = None) -> Any:
    """Runs a notebook in its own process, in a folder, and returns it with its outputs.

    Raises:
      CellExecutionError: a cell failed; the text shows the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    if fast:
        fill_in(notebook, notebook.metadata["fast"])
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR", "--InteractiveShell.colors=NoColor"],
        resources={"metadata": {"path": folder}},
    )
    return client.execute(**({} if env is None else {"env": dict(env)}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="prefixes of file names (default: all)")
    parser.add_argument("--fast", action="store_true", help="use the small values of the tests")
    args = parser.parse_args()
    found = [p for p in sorted(HERE.glob("*.ipynb")) if p.name.startswith(tuple(args.names) or "")]
    if not found:
        parser.error(f"no notebook starts with {' or '.join(args.names)}")
    failed = 0
    for path in found:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                execute(path, Path(folder), fast=args.fast)
            except CellExecutionError as error:
                failed += 1
                print(f"{path.name}: failed\n{error}", file=sys.stderr)
                continue
        print(f"{path.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
