"""A run in a bucket does what a local one does; see `test_buckets` for the files by themselves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from bucket_server import bucket, environment  # noqa: F401
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn import _files
from jaxcnn.cli.main import main
from jaxcnn.training import load_run, train
from jaxcnn.training.output import bucket_checkpoints
from jaxcnn.training.output.metrics_files import read_rows

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def fetched(name, folder):
    """A local copy of a run in the bucket."""
    source = _files.any_path(name)
    for path in _files.files_below(source):
        local = folder / path.relative_to(source)
        local.parent.mkdir(parents=True, exist_ok=True)
        path.download(local)
    return folder


def files_of(name):
    root = _files.any_path(name)
    return {path.relative_to(root).as_posix(): stat for path, stat in root.files()}


@pytest.fixture(scope="module")
def finished(bucket, tiny_network, tmp_path_factory):  # noqa: F811
    """(a local directory, that of the same run in the bucket)."""
    local = tmp_path_factory.mktemp("run")
    run(small_config(), local)
    run(small_config(), "gs://bucket/run")
    return local, "gs://bucket/run"


def test_it_is_the_run_that_a_local_one_is(finished, tmp_path):
    local, there = finished
    copy = fetched(there, tmp_path)
    assert_same_run(local, copy)
    same = {path.relative_to(local).parts[0] for path in _files.files_below(local)}
    found = {path.relative_to(copy).parts[0] for path in _files.files_below(copy)}
    assert {name for name in found if not name.startswith(".lock.")} == same - {".lock"}
    one, other = load_run(local), load_run(there)
    assert one.step == other.step
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


def test_commands_read_and_write_it(finished, tmp_path, capsys):
    local, there = finished
    assert main(["report", there, "--out=gs://bucket/out/report.svg"]) == 0
    assert b"<svg" in _files.any_path("gs://bucket/out/report.svg").read_bytes()
    assert main(["export", there, "gs://bucket/out/w.safetensors"]) == 0
    assert main(["export", str(local), str(tmp_path / "w.safetensors")]) == 0
    from jaxcnn.weights import files

    (one, facts), (other, same) = map(
        files.read, ("gs://bucket/out/w.safetensors", tmp_path / "w.safetensors")
    )
    assert facts == same and one.keys() == other.keys()
    jax.tree.map(np.testing.assert_array_equal, one, other)
    capsys.readouterr()
    for run_ in (there, str(local)):
        assert main(["evaluate", run_, "--json", f"{tmp_path}/e.json"]) == 0
    texts = capsys.readouterr().out.replace(there, str(local)).split("synthetic")
    assert texts[1].split()[1:] == texts[2].split()[1:]


def test_it_is_refused_resumed_and_overwritten(finished, tmp_path, capsys):
    _, there = finished
    before = files_of(there)
    with pytest.raises(ValueError, match=f"^{there} already holds a run; resume it"):
        run(small_config(), there)
    with pytest.raises(ValueError, match=f"{there} holds a run with another configuration"):
        run(small_config(batch_size=24), there, resume=True)
    assert files_of(there) == before
    _files.any_path(f"{there}/checkpoints/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds checkpoints/notes.txt, which the run did not"):
        run(small_config(), there, overwrite=True)
    _files.any_path(f"{there}/checkpoints/notes.txt").unlink()
    with train(small_config(), there, overwrite=True) as reports:
        while next(reports).step < 5:
            pass
    assert bucket_checkpoints.complete_steps(_files.any_path(there) / "checkpoints") == [4]
    assert run(small_config(), there, resume=True)[-1].kind == "end"
    assert_same_run(finished[0], fetched(there, tmp_path))


def test_an_incomplete_checkpoint_does_not_count(finished, tmp_path):
    """As after a kill while it was written, or while it was deleted."""
    _, there = finished
    steps = _files.any_path(there) / "checkpoints"
    newest = bucket_checkpoints.complete_steps(steps)[-1]
    (steps / str(newest) / "commit_success.txt").unlink()
    assert newest not in bucket_checkpoints.complete_steps(steps)
    assert load_run(there, "newest").step < newest
    assert run(small_config(), there, resume=True)[-1].kind == "end"
    assert bucket_checkpoints.complete_steps(steps)[-1] == newest
    assert_same_run(finished[0], fetched(there, tmp_path))


RUN = """
import sys
sys.path[:0] = {paths}
from small import registered, small_config
from tiny import Tiny
from jaxcnn.cli.train import train_and_show
with registered("tiny", Tiny):
    config, resume = small_config(steps={steps}), "--resume" in sys.argv
    sys.exit(train_and_show(config, sys.argv[1], resume=resume))
"""


def start(proxy, name, *options, steps=10):
    code = RUN.format(paths=[str(TESTS), str(TESTS / "training")], steps=steps)
    return subprocess.Popen(
        [sys.executable, "-c", code, name, *options],
        env={**os.environ, **environment(proxy), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_kills_at_any_moment_end_in_the_same_bits(bucket, tiny_network, tmp_path):  # noqa: F811
    """Some while a checkpoint is being written: after a given number of its objects."""
    steps = 40
    run(small_config(steps=steps), tmp_path / "whole")
    name = "gs://bucket/killed"
    rng = np.random.default_rng(0)
    for attempt in range(10):
        before = len(bucket.requests)
        process = start(bucket, name, "--resume", steps=steps)
        wanted = int(rng.integers(15, 120))
        while process.poll() is None and uploads(bucket, before) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        saved = bucket_checkpoints.complete_steps(_files.any_path(name) / "checkpoints")
        rows = [(row["kind"], row["step"]) for row in read_rows(name)]
        assert len(rows) == len(set(rows)), attempt
        expected = set(range(4, max(saved, default=0) + 1, 4))
        assert expected <= {step for kind, step in rows if kind == "eval"}, attempt
    process = start(bucket, name, "--resume", steps=steps)
    assert process.wait() == 0, process.communicate()
    assert_same_run(tmp_path / "whole", fetched(name, tmp_path / "copy"))


def uploads(proxy, since):
    return sum(request.startswith("POST") for request in proxy.requests[since:])


@pytest.mark.slow
def test_of_two_processes_that_begin_at_once_one_gets_the_run(bucket):  # noqa: F811
    processes = [start(bucket, "gs://bucket/both") for _ in range(2)]
    ends = [(p.communicate()[1], p.returncode) for p in processes]
    (_, code), (refused, other) = sorted(ends, key=lambda end: end[1])
    assert (code, other) == (0, 2), ends
    assert "gs://bucket/both" in refused and len(refused.strip().splitlines()) == 1
    assert "is in use by process" in refused or "already holds a run" in refused


@pytest.mark.slow
def test_a_run_outlasts_a_server_that_is_away_and_has_bad_days(bucket, tmp_path):  # noqa: F811
    steps = 40
    process = start(bucket, "gs://bucket/bad", steps=steps)
    begun = len(bucket.requests)
    while uploads(bucket, begun) < 30:
        time.sleep(0.01)
    away = time.monotonic() + 60
    bucket.fault = lambda method, path: "away" if time.monotonic() < away else None
    while time.monotonic() < away:
        time.sleep(0.5)
    rng = np.random.default_rng(0)
    faults = [None, None, None, None, "503", "429", "cut", "lost"]
    bucket.fault = lambda method, path: faults[rng.integers(len(faults))]
    try:
        err = process.communicate(timeout=200)[1]
    finally:
        bucket.fault = lambda method, path: None
    assert process.returncode == 0, err
    assert "note: gs://bucket does not answer" in err and "answers again" in err
    whole = start(bucket, str(tmp_path / "whole"), steps=steps)
    assert whole.wait() == 0
    assert_same_run(tmp_path / "whole", fetched("gs://bucket/bad", tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize("fault, told", [("401", "no credentials"), ("403", "no permission")])
def test_who_may_not_write_is_told_so_in_one_line(bucket, fault, told):  # noqa: F811
    bucket.fault = lambda method, path: fault
    try:
        process = start(bucket, "gs://bucket/forbidden")
        err = process.communicate()[1]
    finally:
        bucket.fault = lambda method, path: None
    assert process.returncode == 2 and told in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named_in_one_line(bucket):  # noqa: F811
    process = start(bucket, "gs://nobucket/run")
    err = process.communicate()[1]
    assert process.returncode == 2 and "there is no bucket gs://nobucket" in err
    assert len(err.strip().splitlines()) == 1
