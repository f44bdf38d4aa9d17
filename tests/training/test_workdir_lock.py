"""One run in a directory at a time; whoever reads does not disturb it."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn.training import load_run, train
from jaxcnn.training.output import workdir

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from jaxcnn.training.output import workdir
with workdir.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""
USES = [{}, {"resume": True}, {"overwrite": True}]


def hold(directory):
    """A process that holds the directory's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.usefixtures("tiny_network")
def test_another_process_is_named_and_a_killed_one_leaves_no_lock(tmp_path):
    run(small_config(), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    other = hold(tmp_path)
    try:
        holder = rf"in use by process {other.pid} on {socket.gethostname()}; wait for it to end"
        for use in USES:
            with pytest.raises(ValueError, match=holder):
                run(small_config(), tmp_path, **use)
        load_run(tmp_path)
        after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        assert {p for p in before if before[p] != after.get(p)} <= {tmp_path / workdir.LOCK}
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    run(small_config(), tmp_path, overwrite=True)


@pytest.mark.usefixtures("tiny_network")
def test_a_second_one_in_this_process_is_refused_while_the_first_goes_on(tmp_path):
    with train(small_config(), tmp_path) as first:
        assert next(first).kind == "start"
        for use in USES:
            with pytest.raises(ValueError, match=r"in use by this process, \d+ on .*: close that"):
                run(small_config(), tmp_path, **use)
        assert list(first)[-1].kind == "end"
    run(small_config(), tmp_path, resume=True)


@pytest.mark.usefixtures("tiny_network")
def test_two_that_were_both_checked_before_either_began(tmp_path):
    """The second one finds the run that the first one has made meanwhile."""
    from jaxcnn.training.loop import Run

    one, two = Run(small_config(), tmp_path / "w"), Run(small_config(), tmp_path / "w")
    with one, pytest.raises(ValueError, match="in use by this process"):
        two.__enter__()
    with pytest.raises(ValueError, match="already holds a run"):
        two.__enter__()


@pytest.mark.usefixtures("tiny_network")
def test_all_members_are_locked_and_each_of_them(tmp_path):
    config = small_config()
    config.train.members = "2"
    with train(config, tmp_path) as reports:
        next(reports)
        for directory, one in ((tmp_path, config), (tmp_path / "member_0", small_config())):
            with pytest.raises(ValueError, match=f"{directory} is in use"):
                run(one, directory, resume=True)
    other = hold(tmp_path / "member_0")
    try:
        with pytest.raises(ValueError, match="member_0 is in use"):
            run(config, tmp_path, overwrite=True)
    finally:
        other.kill()
        other.wait()
    assert (tmp_path / "member_0" / "config.json").exists()


@pytest.mark.usefixtures("tiny_network")
def test_reading_a_run_that_goes_on_changes_nothing(tmp_path):
    config = small_config()
    config.checkpoint.every_steps, config.eval.every_steps = 1, 2
    run(config, tmp_path / "alone")
    read = 0
    for report in train(config, tmp_path / "read"):
        if report.kind in ("step", "eval") and report.step > 3:  # while one is being written
            for which in ("newest", "best"):
                assert load_run(tmp_path / "read", which).step <= report.step
                read += 1
    assert read > 10
    assert_same_run(tmp_path / "read", tmp_path / "alone")


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("which", ["newest", "best"])
def test_what_a_writer_is_about_to_finish_stays(tmp_path, which):
    run(small_config(), tmp_path)
    for name in ("checkpoints", "best"):
        (tmp_path / name / "99.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    first = load_run(tmp_path, which).variables
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        jax.tree.map(np.testing.assert_array_equal, first, load_run(tmp_path, which).variables)
    finally:
        for path in (tmp_path, *tmp_path.rglob("*")):
            path.chmod(0o755)


def test_a_file_system_without_locks_is_used_as_it_is(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with workdir.lock(tmp_path / "new" / "w"):
        assert (tmp_path / "new" / "w" / workdir.LOCK).read_text().split() == [
            socket.gethostname(),
            str(os.getpid()),
        ]
    with workdir.lock(tmp_path / "new" / "w"):
        pass
