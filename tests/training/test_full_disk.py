"""Disks that take no more: files above a size are refused, as by a full one."""

import contextlib
import resource
import time

import pytest
from small import assert_same_run, last_checkpoint, run, small_config

from jaxcnn.training import train
from jaxcnn.training.output.metrics_files import read_rows


@contextlib.contextmanager
def no_room_above(size):
    """No file of this process may grow above a size in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_nothing_is_written(folder):
    """Older versions of Orbax go on with other files of a checkpoint after one has failed."""
    before = None
    while (now := sorted(folder.rglob("*"))) != before:
        before = now
        time.sleep(0.5)


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    config = small_config(model="lenet5_modern", steps=8)  # of half a megabyte
    config.data.source = "digits"
    reports = train(config, tmp_path / "full")
    for report in reports:
        if report.kind == "checkpoint" and not report.values["best"]:
            break
    assert report.step == 4
    wait_for(tmp_path / "full" / "checkpoints" / "4")
    with no_room_above(60_000), pytest.raises(OSError) as caught:
        list(reports)
    assert "checkpoint of step 8 cannot be written" in str(caught.value)
    assert str(caught.value).endswith("(File too large); the newest good one is of step 4")
    wait_until_nothing_is_written(tmp_path / "full")
    assert last_checkpoint(tmp_path / "full")[0] == 4
    run(config, tmp_path / "full", resume=True)
    run(config, tmp_path / "whole")
    assert_same_run(tmp_path / "full", tmp_path / "whole")
    left = [p.name for p in (tmp_path / "full" / "checkpoints").iterdir()]
    assert sorted(left) == ["4", "8"], "what was half written is gone"


def test_metrics_that_cannot_be_written_stop_the_run(tmp_path):
    config = small_config(model="lenet5_modern", steps=8)
    config.data.source = "digits"
    reports = train(config, tmp_path)
    for report in reports:
        if report.kind == "compiled":
            break
    with no_room_above(100), pytest.raises(OSError, match="cannot write the metrics of step 3"):
        list(reports)
    assert all(row["step"] <= 3 for row in read_rows(tmp_path))
