"""A batch passes through few files: those that take part in a run are counted, not listed by hand.

`python tests/training/walk.py CONFIG WORKDIR` prints them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOP = 25  # files from the first batch to the last checkpoint, but for what JAX traces
STEP = 34  # and with what JAX traces: the network, its operations, the step
WHOLE = 73  # and with reading the configuration, building, and the figures at the end


def test_a_batch_passes_through_few_files(tmp_path):
    config = str(ROOT / "configs" / "lenet_digits.py:smoke")
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("walk.py")), config, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    files = json.loads(ran.stdout.splitlines()[-1])
    print(*files["loop"], sep="\n")
    assert "training/loop.py" in files["loop"] and "models/lenet.py" in files["traced"]
    assert len(files["loop"]) <= LOOP, files["loop"]
    assert len({*files["loop"], *files["traced"]}) <= STEP, files
    assert len(set().union(*files.values())) <= WHOLE, files


def test_functions_of_the_loop_are_short():
    import ast

    tree = ast.parse((ROOT / "jaxcnn" / "training" / "loop.py").read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions}
    assert len(functions) > 10 and max(lengths.values()) <= 60, lengths
    assert not any(isinstance(node, ast.Nonlocal) for node in ast.walk(tree))
    assert "send" not in {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
