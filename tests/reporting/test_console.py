"""The display of a run, where nothing can be shown any more."""

import os

import pytest

from jaxcnn.reporting import console
from jaxcnn.reporting.report import Report

REPORTS = [
    Report("notice", 0, 0.0, {"text": "one"}),
    Report("notice", 0, 0.0, {"text": "two"}),
    Report("stopped", 1, 0.1, {"signal": "SIGTERM"}),
]


def full():
    return open("/dev/full", "w", encoding="utf-8")


def left():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def ascii_only():
    return open(os.devnull, "w", encoding="ascii")


@pytest.mark.parametrize("output", [full, left, ascii_only])
def test_a_run_goes_on_without_a_display(output, capsys):
    reports = iter([Report("notice", 0, 0.0, {"text": "größer"}), *REPORTS])
    with output() as out:
        assert console.show(reports, "runs/a", out) == 143
    assert next(reports, None) is None, "all were taken"
    assert capsys.readouterr().err.count("the run goes on without a display") == 1
