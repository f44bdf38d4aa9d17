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
    "body",
    [BREAK, pytest.param("next(reports)", marks=pytest.mark.slow), UNWRITABLE],
    ids=["break", "next once", "unwritable"],
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


@pytest.fixture
def hangup():
    """Sets the handler of SIGHUP, which the process that started the tests may ignore."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("tiny_network")
def test_signals_are_caught_while_a_report_is_made_or_throughout_a_with_statement(tmp_path, hangup):
    hangup(signal.SIG_DFL)

    def now():
        return [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]

    before = now()
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


@pytest.mark.usefixtures("tiny_network")
def test_a_closed_terminal_stops_the_run_except_where_it_is_to_be_ignored(tmp_path, hangup):
    hangup(signal.SIG_IGN)  # as `nohup` does
    with train(small_config(), tmp_path / "ignored") as reports:
        next(reports)
        signal.raise_signal(signal.SIGHUP)
        assert [report.kind for report in reports][-1] == "end"
    hangup(signal.SIG_DFL)
    with train(small_config(), tmp_path / "stopped") as reports:
        next(reports)
        signal.raise_signal(signal.SIGHUP)
        last = list(reports)[-1]
    assert (last.kind, last.values["signal"]) == ("stopped", "SIGHUP")
    assert last_checkpoint(tmp_path / "stopped")
