"""A training that is left in the middle: the process ends, and signals are its own again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from small import last_checkpoint, small_config, tiny_network  # noqa: F401

from jaxcnn.training import train

ROOT = Path(__file__).parents[2]
SCRIPT = """
import signal, sys
from pathlib import Path
from jaxcnn.training import read_config, set_duration, train

config = read_config("configs/lenet_digits.py:smoke", ["train.devices=1"])
set_duration(config.eval, "every", steps=2)
set_duration(config.checkpoint, "every", steps=2)
reports = train(config, sys.argv[1])
{body}
print("end of script", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
"""
BREAK = "for report in reports:\n    if report.kind == 'step' and report.step == 4: break"
UNWRITABLE = """
try:
    for report in reports:
        if report.kind == "compiled":
            (Path(sys.argv[1]) / "checkpoints").rmdir()
            (Path(sys.argv[1]) / "checkpoints").write_text("in the way")
except OSError as error:
    assert "the checkpoint of step 2 cannot be written" in str(error), error
"""


@pytest.mark.parametrize(
    "body", [BREAK, "next(reports)", UNWRITABLE], ids=["break", "next once", "unwritable"]
)
def test_the_process_ends(tmp_path, body):
    cache = jax.config.jax_compilation_cache_dir
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=250,  # Orbax's threads would wait for 300 s
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end of script True\n" and "Traceback" not in done.stderr
    if body == BREAK:
        assert last_checkpoint(tmp_path / "run")[0] == 2


@pytest.mark.usefixtures("tiny_network")
def test_signals_are_caught_while_a_report_is_made_or_throughout_a_with_statement(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def now():
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    reports = train(small_config(), tmp_path / "bare")
    next(reports)
    assert now() == before
    reports.close()
    assert list(reports) == [] and now() == before
    with train(small_config(), tmp_path / "with") as reports:
        assert all(handler not in before for handler in now())
        next(reports)
        assert all(handler not in before for handler in now())
    assert now() == before and list(reports) == []
