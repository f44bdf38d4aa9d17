"""A run in a terminal: what 80 columns show, and displays that fail."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcnn.reporting import console
from jaxcnn.reporting.report import Report

ROOT = Path(__file__).parents[2]
START = {
    "model": "resnet20_cifar",
    "params": 269_722,
    "source": "tfds:cifar10",
    "train_examples": 50_000,
    "test_examples": 10_000,
    "batch_size": 128,
    "total_steps": 64_000,
    "total_epochs": 163.84,
    "device_count": 1,
    "process_count": 1,
    "platform": "cpu",
    "parallel": "jit",
}
END = {
    "top1_error": 0.0875,
    "seconds": 100.0,
    "time_shares": {"training": 0.5, "compiling": 0.2, "evaluation": 0.1, "other": 0.2},
}


def reports(last="end"):
    yield Report("start", 0, 0.0, START)
    yield Report("compiled", 0, 0.0, {"seconds": 20.0})
    for step in range(1, 6):
        yield Report("step", 63_990 + step, 163.8, {"loss": 0.04617})
        yield Report("train", 63_990 + step, 163.8, {"images_per_second": 12_345.0})
        yield Report("eval", 63_990 + step, 163.8, {"top1_error": 0.1234, "train_loss": 0.1,
                                                    "train_top1_error": 0.2})  # fmt: skip
    values = END if last == "end" else {"signal": "SIGTERM"}
    yield Report(last, 64_000, 163.84, values)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [80, 120])
def test_loss_error_and_time_are_uncut(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_REFRESH_SECONDS", 0.0)
    out = Terminal()
    assert console.show(reports(), "runs/r20", out) == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    live = [line for line in lines if "loss 0.0462" in line and "test error" in line]
    assert live and all(len(line.rstrip()) <= width for line in live)
    assert all("test error 12.34 %" in line and "63995/64000" in line for line in live[-1:])
    assert any("compiling" in line for line in lines[: lines.index(live[0])])
    assert "…" not in "".join(live) and re.search(r"\d:\d\d:\d\d", live[-1])
    assert ("images/s" in live[-1]) is (width == 120)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (0, "jit"),
        (500, "jit; resuming from step 500"),
        (64_000, "jit; the run is already finished (with --extend, a longer length continues it)"),
    ],
)
def test_the_start_says_where_the_run_stands(step, text):
    out = io.StringIO()
    console.show([Report("start", step, 0.0, START)], "runs/r20", out)
    assert out.getvalue().rstrip().endswith(f"1 cpu device, {text}")


def test_a_stopped_run_names_the_command_that_continues_it():
    for options, text in (
        ({}, "continue with `jaxcnn train --resume --workdir 'runs/r 20'`"),
        ({"resume": "the same command"}, "continue with the same command"),
    ):
        out = io.StringIO()
        assert console.show(reports("stopped"), "runs/r 20", out, **options) == 143
        assert out.getvalue().rstrip().endswith(text)


def test_a_long_epoch_prints_lines_without_a_terminal(monkeypatch):
    monkeypatch.setattr(console, "_LINE_SECONDS", 0.0)
    out = io.StringIO()
    values = {"images_per_second": 800.0, "loss": 2.5}
    rows = (Report("start", 0, 0.0, START), Report("train", 100, 0.26, values), *reports())
    console.show(iter(rows[:2] + rows[-1:]), "runs/a", out)
    assert "epoch   0.26/163.8  step   100/64000  loss 2.5000, 800 images/s" in out.getvalue()


def test_the_end_names_compiling():
    out = io.StringIO()
    console.show(reports(), "runs/r20", out)
    assert "time: 50 % training, 20 % compiling, 10 % evaluation, 20 % other" in out.getvalue()


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(("last", "code"), [("end", 0), ("stopped", 143)])
def test_a_display_that_fails_ends_no_training(last, code, capsys):
    taken = []

    def watched():
        for report in reports(last):
            yield report
            taken.append(report.kind)

    assert console.show(watched(), "runs/r20", Gone()) == code
    assert taken[-1] == last
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the run continues" in err


@pytest.mark.parametrize(
    "sink",
    [
        "> /dev/full",
        pytest.param("| head -1 >/dev/null", marks=pytest.mark.slow),
        pytest.param(">&-", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_reader_leaves_ends_as_usual(sink, tmp_path):
    if "full" in sink and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    run = f"{sys.executable} -m jaxcnn.cli train lenet_digits:smoke train.devices=1 --workdir run"
    command = f"{run} {sink}; echo ${{PIPESTATUS[0]}} >&2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stderr.splitlines()[-1] == "0", done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert (tmp_path / "run" / "curves.png").is_file()
