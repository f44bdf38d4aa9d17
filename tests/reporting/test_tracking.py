"""Bars of long work: in a terminal, and never in a file or a pipe."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from jaxcnn.cli import common
for name in common.track("images", iter(["a" * 100, "b"]), 2):
    print(name)
    print("bad", name[0], file=sys.stderr)
"""


@pytest.mark.parametrize("terminal", ["none", "stdout", "stderr"])
def test_bars_are_in_terminals_only(terminal, tmp_path):
    ours, theirs = pty.openpty()
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if terminal != "none":
        streams[terminal] = theirs
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], text=True, cwd=tmp_path, env=environment, **streams
    )
    out, err = process.communicate()
    os.close(theirs)
    shown = ""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part.decode()
    except OSError:  # the end of what was written
        pass
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert process.returncode == 0
    lines = {"stdout": "a" * 100 + "\nb\n", "stderr": "bad a\nbad b\n"}
    for name, found in (("stdout", out), ("stderr", err)):
        if name == terminal:
            assert "images" in shown and all(line in shown for line in lines[name].splitlines())
        else:
            assert found == lines[name]
    assert (terminal == "none") is (shown == "")
