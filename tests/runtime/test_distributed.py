"""Real processes that train as one, against one process with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import photos
import pytest
from bucket_server import bucket  # noqa: F401
from small import last_checkpoint, without_speed

from jaxcnn._files import any_path, delete_folder, files_below, move_folder
from jaxcnn.runtime import distributed, exit_codes
from jaxcnn.training.output.metrics_files import read_rows

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "training" / "one_of_several.py"


def start(count, folder, *scenes):
    """Processes that carry the scenes out together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(count), str(i), str(folder), *scenes],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def told(processes):
    """Of each process {scene: what it said}, once all have ended well."""
    outs = [process.communicate(timeout=400) for process in processes]
    for process, (_, error) in zip(processes, outs):
        assert process.returncode == 0, error[-3000:]
    # Gloo may write behind a line.
    lines = [
        [json.JSONDecoder().raw_decode(x)[0] for x in out.splitlines() if x.startswith("{")]
        for out, _ in outs
    ]
    return [{line.pop("scene"): line for line in each} for each in lines]


def wait_for_step(processes, directory, step):
    """Returns when the run has written a row of this step or a later one."""
    deadline = time.monotonic() + 200
    while not any(row["step"] >= step for row in read_rows(directory)):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def make_photos(folder):
    counts = {"train": {"ant": 20, "bee": 18}, "val": {"ant": 12, "bee": 11}}
    return photos.write_folder(folder / "photos", counts, 12, 16)


def assert_same_numbers(one, other):
    (step, state, meta), (other_step, other_state, _) = map(last_checkpoint, (one, other))
    assert step == other_step and meta and state.keys() == other_state.keys()
    for path, value in state.items():
        # Twelve steps multiply what sums in another order leave in the last bits: 2e-6 was seen.
        np.testing.assert_allclose(value, other_state[path], atol=1e-5, err_msg=path)
    rows, others = (without_speed(directory)[0] for directory in (one, other))
    assert len(rows) == len(others)
    for row, other_row in zip(rows, others):
        assert row.pop("kind") == other_row.pop("kind")
        assert row == pytest.approx(other_row, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process with four devices makes of the scenes."""
    folder = tmp_path_factory.mktemp("alone")
    make_photos(folder)
    (said,) = told(start(1, folder, "whole"))
    assert said["whole"]["devices"] == 4 and said["whole"]["processes"] == 1
    return folder, said


def check(count, alone, folder, *more):
    """`more` are further scenes that equal one process's."""
    lone, said_alone = alone
    (folder / "photos").symlink_to(lone / "photos")
    (folder / "moved").symlink_to(shortened(lone / "whole", folder))
    said = told(start(count, folder, *more, "resumed", "taken", "stopped"))
    for scene in more:
        assert_same_numbers(folder / scene, lone / scene)
        for one in said:
            assert one[scene] | {"processes": 1} == {
                **said_alone[scene],
                "test_loss": pytest.approx(said_alone[scene]["test_loss"], rel=1e-5),
            }
            assert one[scene]["processes"] == count
    # One process's checkpoint, resumed by several: the same numbers again.
    assert all(one["resumed"]["from"] == 8 for one in said)
    assert_same_numbers(folder / "moved", lone / "whole")
    assert all("already holds a run" in one["taken"]["error"] for one in said)
    # One was asked to stop: all did, after the same step, with a checkpoint of it.
    (stopped,) = {json.dumps(one["stopped"]) for one in said}
    stopped = json.loads(stopped)
    assert (stopped["last"], stopped["signal"]) == ("stopped", "SIGTERM")
    assert 5 <= stopped["step"] < 4000
    assert last_checkpoint(folder / "stopped")[0] == stopped["step"]


def shortened(directory, folder):
    """A copy of a run without its last checkpoint."""
    import shutil

    copy = shutil.copytree(directory, folder / "copy")
    shutil.rmtree(copy / "checkpoints" / "12")
    return copy


def test_two_processes_equal_one(alone, tmp_path):
    check(2, alone, tmp_path)


@pytest.mark.slow
def test_several_processes_in_a_bucket(bucket, alone, tmp_path):  # noqa: F811
    """They begin, are refused, and go on after the newest checkpoint was lost."""
    told(start(2, "gs://bucket", "whole"))
    there = any_path("gs://bucket/whole")
    move_folder(there, any_path("gs://bucket/moved"))
    delete_folder(any_path("gs://bucket/moved/checkpoints/12"))
    said = told(start(2, "gs://bucket", "taken", "resumed"))
    assert all("already holds a run" in one["taken"]["error"] for one in said)
    assert all(one["resumed"]["from"] == 8 for one in said)
    for path in files_below(any_path("gs://bucket/moved")):
        local = tmp_path / "moved" / path.relative_to(any_path("gs://bucket/moved"))
        local.parent.mkdir(parents=True, exist_ok=True)
        path.download(local)
    assert_same_numbers(tmp_path / "moved", alone[0] / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_equal_one(alone, tmp_path, count):
    """All scenes, and back: what several have begun, one process resumes."""
    lone, said = alone
    if "scanned" not in said:
        said |= told(start(1, lone, "scanned", "streamed"))[0]
    check(count, alone, tmp_path, "whole", "scanned", "streamed")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "moved").symlink_to(shortened(tmp_path / "whole", tmp_path / "back"))
    (back,) = told(start(1, tmp_path / "back", "resumed"))
    assert back["resumed"]["from"] == 8
    assert_same_numbers(tmp_path / "back" / "moved", lone / "whole")


@pytest.mark.parametrize(("count", "victim"), [(2, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_when_one_is_killed_the_others_end_with_a_line(tmp_path, count, victim):
    processes = start(count, tmp_path, "lost")
    wait_for_step(processes, tmp_path / "lost", 3)
    processes[victim].kill()
    for number, process in enumerate(processes):
        _, error = process.communicate(timeout=60)
        if number != victim:
            assert process.returncode == exit_codes.PROCESS_LOST, error[-3000:]
            said = [line for line in error.splitlines() if "process" in line]
            text = f"jaxcnn: process {number}: process {victim} has ended, so this one ends too"
            assert len(said) == 1 and said[0].startswith(text), error


@pytest.mark.slow
def test_when_the_first_is_killed_the_others_end(tmp_path):
    """JAX aborts them in the same moment, as its service is gone."""
    processes = start(2, tmp_path, "lost")
    wait_for_step(processes, tmp_path / "lost", 3)
    processes[0].kill()
    processes[0].communicate()
    processes[1].communicate(timeout=60)
    assert processes[1].returncode in (exit_codes.PROCESS_LOST, -signal.SIGABRT)


@pytest.mark.slow
def test_kills_at_random_moments_end_in_the_same_bits(tmp_path):
    """Four processes with two devices each: none hangs, and each reports a lost one in a line."""
    (tmp_path / "whole").mkdir()
    told(start(4, tmp_path / "whole", "killed"))
    folder, random = tmp_path / "often", np.random.default_rng(0)
    folder.mkdir()
    lost = 0
    for _ in range(10):
        processes = start(4, folder, "killed")
        while len(list(folder.glob("connected_*"))) < 4:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        time.sleep(random.uniform(0, 12))
        victim = int(random.integers(4))
        processes[victim].kill()
        for path in folder.glob("connected_*"):
            path.unlink()
        for number, process in enumerate(processes):
            _, error = process.communicate(timeout=60)
            if number == victim or process.returncode == 0:  # it had finished
                continue
            lost += 1
            codes = (exit_codes.PROCESS_LOST, *[-signal.SIGABRT] * (victim == 0))
            assert process.returncode in codes, (victim, number, error[-3000:])
            if process.returncode == exit_codes.PROCESS_LOST:
                said = [line for line in error.splitlines() if "has ended, so this one" in line]
                assert len(said) == 1, error[-3000:]
    assert lost >= 9
    told(start(4, folder, "killed"))
    (step, state, _), (other_step, other, _) = (
        last_checkpoint(tmp_path / name / "killed") for name in ("whole", "often")
    )
    assert step == other_step == 60 and state.keys() == other.keys()
    for path, value in state.items():
        np.testing.assert_array_equal(value, other[path], err_msg=path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"coordinator": "a:1"}, "--processes is missing"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "--process is 2; it must be 0 to 1"),
        ({"coordinator": "a", "processes": 2, "process": 1}, "it must be HOST:PORT"),
        ({"coordinator": "8476", "processes": 2, "process": 1}, "it must be HOST:PORT"),
    ],
)
def test_mistakes_are_told_before_anything_waits(arguments, text):
    with pytest.raises(ValueError, match=text):
        distributed.begin(**arguments)
    assert distributed.count() == 1 and distributed.is_first()


def test_without_a_launcher_it_says_what_to_give(tmp_path):
    command = [sys.executable, "train.py", "--distributed", f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "give --coordinator=HOST:PORT, --processes=N and --process=I" in done.stderr
