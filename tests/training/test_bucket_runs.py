"""A run in a bucket does what a local one does; see `test_buckets` for the files by themselves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from bucket_server import amazon, bucket, environment  # noqa: F401
from PIL import Image
from small import assert_same_run, run, small_config, tiny_network  # noqa: F401

from jaxcnn import _files
from jaxcnn.cli.main import main
from jaxcnn.reporting.html.page import make_page
from jaxcnn.training import load_run, train
from jaxcnn.training.output import records, run_files
from jaxcnn.training.output.metrics_files import MetricsFiles, read_rows

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


def steps_of(name, folder):
    return records.complete_steps(_files.any_path(name) / folder)


def files_of(name):
    root = _files.any_path(name)
    return {path.relative_to(root).as_posix(): stat for path, stat in root.files()}


@pytest.fixture(scope="module")
def whole(tiny_network, tmp_path_factory):  # noqa: F811
    """The directory of a local run."""
    local = tmp_path_factory.mktemp("run")
    run(small_config(steps=8), local)
    return local


def test_a_run_in_a_bucket_is_the_run_that_a_local_one_is(bucket, whole, tmp_path, capsys):  # noqa: F811
    """It is left, refused, and resumed to the same bits; `report` and `load_run` read it."""
    there = "gs://bucket/run"
    with train(small_config(steps=8), there) as reports:
        while next(reports).step < 5:
            pass
        with pytest.raises(ValueError, match=f"{there} is in use by this process"):
            run(small_config(steps=8), there, overwrite=True)
    assert steps_of(there, "checkpoints") == [4]
    before = files_of(there)
    with pytest.raises(ValueError, match=f"^{there} already holds a run; resume it"):
        run(small_config(steps=8), there)
    with pytest.raises(ValueError, match=f"{there} holds a run with another configuration"):
        run(small_config(steps=8, batch_size=24), there, resume=True)
    assert files_of(there) == before
    assert run(small_config(steps=8), there, resume=True)[-1].kind == "end"
    copy = fetched(there, tmp_path)
    assert_same_run(whole, copy)
    same = {path.relative_to(whole).parts[0] for path in _files.files_below(whole)}
    found = {path.relative_to(copy).parts[0] for path in _files.files_below(copy)}
    assert {name for name in found if not name.startswith(".lock.")} == same - {".lock"}
    one, other = load_run(whole), load_run(there)
    assert one.step == other.step
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    assert main(["report", there, "--out=gs://bucket/out/report.svg"]) == 0
    assert b"<svg" in _files.any_path("gs://bucket/out/report.svg").read_bytes()
    assert there in capsys.readouterr().out
    (recorded,) = records.open_runs([there])
    found = run_files.read_contents(recorded, _files.any_path("gs://bucket/out/page.html"))
    assert [link.text for link in found.files][-2:] == ["checkpoints/4", "checkpoints/8"]
    assert {link.target for link in found.files} == {None} and "predictions.png" in found.pictures
    assert there in make_page([found], script="", when="now")


@pytest.mark.slow
def test_it_is_overwritten_but_for_foreign_files(bucket, whole, tmp_path):  # noqa: F811
    there = "gs://bucket/over"
    run(small_config(steps=5), there)
    notes = _files.any_path(f"{there}/checkpoints/notes.txt")
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"holds checkpoints/notes.txt, which the run did not"):
        run(small_config(steps=8), there, overwrite=True)
    notes.unlink()
    run(small_config(steps=8), there, overwrite=True)
    assert_same_run(whole, fetched(there, tmp_path))


@pytest.mark.slow
def test_an_incomplete_checkpoint_does_not_count(bucket, whole, tmp_path):  # noqa: F811
    """As after a kill while it was written, or while it was deleted."""
    there = "gs://bucket/incomplete"
    run(small_config(steps=8), there)
    (_files.any_path(there) / "checkpoints" / "8" / "commit_success.txt").unlink()
    assert steps_of(there, "checkpoints") == [4] and load_run(there, "newest").step == 4
    assert run(small_config(steps=8), there, resume=True)[-1].kind == "end"
    assert steps_of(there, "checkpoints") == [4, 8]
    assert_same_run(whole, fetched(there, tmp_path))


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_is_set_aside(bucket, whole, tmp_path):  # noqa: F811
    there = "gs://bucket/damaged"
    run(small_config(steps=8), there)
    data = [
        p for p, _ in (_files.any_path(there) / "checkpoints/8/state").files() if "/d/" in str(p)
    ]
    for path in data:
        bits = bytearray(path.read_bytes())
        bits[len(bits) // 2] ^= 1
        path.write_bytes(bytes(bits))
    reports = run(small_config(steps=8), there, resume=True)
    notices = [r.values["text"] for r in reports if r.kind == "notice"]
    assert any(
        f"was moved to {there}/unreadable/step_8; continuing from step 4" in n for n in notices
    )
    assert _files.files_below(_files.any_path(there) / "unreadable")
    assert_same_run(whole, fetched(there, tmp_path))


@pytest.mark.slow
def test_commands_read_and_write_there(bucket, tmp_path, capsys):  # noqa: F811
    there, local = "gs://bucket/lenet", str(tmp_path / "lenet")
    for where in (there, local):
        assert main(["train", "lenet_digits:smoke", "train.devices=1", "--workdir", where]) == 0
        out = f"{where}.safetensors"
        assert main(["export", where, out]) == 0
    from jaxcnn.weights import files

    (one, facts), (other, same) = files.read(f"{there}.safetensors"), files.read(out)
    assert facts == same and one.keys() == other.keys()
    jax.tree.map(np.testing.assert_array_equal, one, other)
    for where in (there, local):
        assert main(["export", where, f"{where}_folder", "--to", "safetensors"]) == 0
        names = {path.name for path in _files.files_below(_files.any_path(f"{where}_folder"))}
        assert names == {"model.safetensors", "model.json", "example.py"}
        pushed = f"{tmp_path}/pushed_{len(where)}"
        assert main(["push", where, "hf:me/lenet", "--folder", pushed]) == 0
        about = json.loads(Path(pushed, "model.json").read_text())
        assert about["source"]["name"] == "lenet"
    assert not Path("gs:").exists()
    capsys.readouterr()
    tables = []
    for what in (there, local, f"{there}.safetensors"):
        data = ["--data", "digits", "--split", "test[:64]"] if what.endswith("s") else []
        assert main(["evaluate", what, *data, "--json", f"{there}.json"]) == 0
        rows = json.loads(_files.any_path(f"{there}.json").read_bytes())["rows"]
        tables.append([row["top1_error"] for row in rows])
    assert tables[0] == tables[1] == tables[2]
    assert main(["signals", there, "--out=gs://bucket/signals.svg", "--csv=gs://bucket/s.csv"]) == 0
    assert b"<svg" in _files.any_path("gs://bucket/signals.svg").read_bytes()
    Image.new("L", (28, 28), 90).save(tmp_path / "a.png")
    _files.any_path("gs://bucket/photos/a.png").upload(tmp_path / "a.png")
    capsys.readouterr()
    assert main(["predict", there, "gs://bucket/photos"]) == 0
    assert capsys.readouterr().out.startswith("gs://bucket/photos/a.png\n")


def test_metrics_of_a_process_that_lost_the_run_stay_away(bucket):  # noqa: F811
    place = _files.any_path("gs://bucket/lost")
    row = ("train", 1, 0.1, {"loss": 1.0})

    def lost():
        raise OSError("taken over")

    for check, rows in ((lost, 0), (lambda: None, 1)):
        files = MetricsFiles(place, check=check)
        files.write(*row)
        with pytest.raises(OSError, match="taken over") if not rows else contextlib.nullcontext():
            files.flush()
        files.close()
        assert len(read_rows(place)) == rows


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
        saved = steps_of(name, "checkpoints")
        rows = [(row["kind"], row["step"]) for row in read_rows(name)]
        assert len(rows) == len(set(rows)), attempt
        expected = set(range(4, max(saved, default=0) + 1, 4))
        assert expected <= {step for kind, step in rows if kind == "eval"}, attempt
    process = start(bucket, name, "--resume", steps=steps)
    assert process.wait() == 0, process.communicate()
    assert_same_run(tmp_path / "whole", fetched(name, tmp_path / "copy"))


def uploads(proxy, since):
    return sum(request.startswith(("POST", "PUT")) for request in proxy.requests[since:])


@pytest.mark.slow
def test_a_run_in_s3_is_killed_and_resumed(amazon, tiny_network, tmp_path):  # noqa: F811
    steps, name = 24, "s3://bucket/killed"
    run(small_config(steps=steps), tmp_path / "whole")
    for wanted in (20, 35, 60):
        before = len(amazon.requests)
        process = start(amazon, name, "--resume", steps=steps)
        while process.poll() is None and uploads(amazon, before) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(amazon, name, "--resume", steps=steps)
    assert process.wait() == 0, process.communicate()
    assert_same_run(tmp_path / "whole", fetched(name, tmp_path / "copy"))
    with pytest.raises(ValueError, match=f"^{name} already holds a run; resume it"):
        run(small_config(steps=steps), name)
    processes = [start(amazon, "s3://bucket/both") for _ in range(2)]
    ends = [(p.communicate()[1], p.returncode) for p in processes]
    assert sorted(code for _, code in ends) == [0, 2], ends


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
    steps = 24
    process = start(bucket, "gs://bucket/bad", steps=steps)
    begun = len(bucket.requests)
    while uploads(bucket, begun) < 30:
        time.sleep(0.01)
    away = time.monotonic() + 60
    bucket.fault = lambda method, path: "away" if time.monotonic() < away else None
    while time.monotonic() < away:
        time.sleep(0.5)
    rng = np.random.default_rng(0)
    faults = [*[None] * 28, "503", "429", "cut", "lost"]
    bucket.fault = lambda method, path: faults[rng.integers(len(faults))]
    try:
        err = process.communicate(timeout=200)[1]
    finally:
        process.kill()
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
    assert process.returncode == 2 and "the bucket gs://nobucket does not exist" in err
    assert len(err.strip().splitlines()) == 1
