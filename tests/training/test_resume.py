"""A run that was killed and resumed equals an undisturbed one, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small import (  # noqa: F401
    assert_same_run,
    last_checkpoint,
    run,
    small_config,
    tiny_network,
)

from jaxcnn.training import train
from jaxcnn.training.config import set_duration
from jaxcnn.training.output.metrics_files import read_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tiny_network, tmp_path_factory):  # noqa: F811
    directory = tmp_path_factory.mktemp("undisturbed")
    run(small_config(), directory)
    return directory


def stop_at(step, number, config, directory, **options):
    """Runs until the metrics of a step are there, then sends this process a signal."""
    told = []
    with train(config, directory, **options) as reports:
        for report in reports:
            told.append(report)
            if report.kind == "step" and report.step == step:
                signal.raise_signal(number)
    return told


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (8, signal.SIGINT)])
def test_a_signal_saves_and_the_run_goes_on(undisturbed, tmp_path, step, number):
    before = signal.getsignal(number)
    reports = stop_at(step, number, small_config(), tmp_path)
    assert signal.getsignal(number) == before
    assert reports[-1].kind == "stopped"
    assert reports[-1].values["signal"] == signal.Signals(number).name
    assert last_checkpoint(tmp_path)[0] == reports[-1].step < 12
    resumed = run(small_config(), tmp_path, resume=True)
    assert resumed[0].step == reports[-1].step
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.usefixtures("tiny_network")
def test_a_run_that_breaks_off_goes_on_from_its_checkpoint(undisturbed, tmp_path):
    """Rows after the checkpoint are written anew, not twice."""
    for report in train(small_config(), tmp_path):
        if report.kind == "step" and report.step == 7:
            break  # the generator is closed: nothing more is saved
    assert last_checkpoint(tmp_path)[0] == 4
    assert max(row["step"] for row in read_rows(tmp_path)) == 6
    run(small_config(), tmp_path, resume=True)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.usefixtures("tiny_network")
def test_a_broken_checkpoint_is_passed_over(undisturbed, tmp_path):
    stop_at(9, signal.SIGTERM, small_config(), tmp_path)
    newest = last_checkpoint(tmp_path)[0]
    for file in (tmp_path / "checkpoints" / str(newest)).rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-1])
    reports = run(small_config(), tmp_path, resume=True)
    assert reports[0].step == 8
    notices = [r.values["text"] for r in reports if r.kind == "notice"]
    assert len(notices) == 1 and f"checkpoint of step {newest} cannot be read" in notices[0]
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.usefixtures("tiny_network")
def test_a_finished_run_stays_as_it_is(undisturbed):
    before = {p: p.read_bytes() for p in undisturbed.glob("metrics.*")}
    drawn = undisturbed / "predictions.png"
    when = drawn.stat().st_mtime_ns
    reports = run(small_config(), undisturbed, resume=True)
    assert [r.kind for r in reports if r.kind in ("step", "eval")] == []
    assert reports[0].step == 12 and reports[-1].kind == "end"
    assert before == {p: p.read_bytes() for p in undisturbed.glob("metrics.*")}
    assert drawn.stat().st_mtime_ns == when, "it is not drawn again"
    drawn.unlink()
    run(small_config(), undisturbed, resume=True)
    assert drawn.is_file()


@pytest.mark.usefixtures("tiny_network")
def test_several_steps_in_a_call_resume_too(tmp_path):
    config = small_config()
    config.train.steps_per_call = 3
    run(config, tmp_path / "whole")
    stop_at(7, signal.SIGTERM, config, tmp_path / "broken")
    run(config, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.usefixtures("tiny_network")
def test_a_run_goes_on_with_other_devices(tmp_path):
    """8 devices, then 1: the same batches and, but for the order of sums, the same numbers."""
    config = small_config()
    config.eval.batch_size, config.train.devices = 64, 8
    run(config, tmp_path / "whole")
    stop_at(5, signal.SIGTERM, config, tmp_path / "moved")
    config.train.devices = 1
    run(config, tmp_path / "moved", resume=True)
    (_, whole, _), (_, moved, _) = (last_checkpoint(tmp_path / n) for n in ("whole", "moved"))
    assert whole.keys() == moved.keys()
    for path in whole:
        np.testing.assert_allclose(whole[path], moved[path], rtol=1e-3, atol=1e-5, err_msg=path)


def notices(reports):
    return [report.values["text"] for report in reports if report.kind == "notice"]


@pytest.mark.usefixtures("tiny_network")
def test_an_extended_run_equals_one_of_that_length(tmp_path):
    shorter, longer = small_config(steps=8), small_config()
    for config in (shorter, longer):
        config.schedule = {"name": "constant", "learning_rate": 0.05}
    run(longer, tmp_path / "whole")
    extended = tmp_path / "extended"
    run(shorter, extended)
    reports = stop_at(10, signal.SIGTERM, longer, extended, extend=True)
    assert reports[0].step == 8
    [text] = notices(reports)
    assert text == (
        "extended from 8 to 12 steps; the learning rate follows the schedule of 12 steps from step "
        "8 on"
    )
    assert notices(run(longer, extended, resume=True)) == [], "it is a run of 12 steps now"
    assert_same_run(extended, tmp_path / "whole")


@pytest.mark.usefixtures("tiny_network")
def test_what_an_extended_run_may_not_change(undisturbed, tmp_path):
    before = {p: p.read_bytes() for p in undisturbed.glob("*.*")}
    longer = small_config(steps=16)
    with pytest.raises(ValueError, match="length_steps: 12 in the run, 16 now; --extend allows"):
        run(longer, undisturbed, resume=True)
    with pytest.raises(ValueError, match="completed 12 steps; it cannot be shortened to 8 steps"):
        run(small_config(steps=8), undisturbed, extend=True)
    longer.train.seed = 5
    with pytest.raises(ValueError, match=r"train\.seed: 0 in the run, 5 now$"):
        run(longer, undisturbed, extend=True)
    with pytest.raises(ValueError, match="extend and overwrite cannot be combined"):
        run(longer, undisturbed, extend=True, overwrite=True)
    with pytest.raises(ValueError, match="is not a run directory"):
        run(longer, tmp_path / "typo", extend=True)
    assert not (tmp_path / "typo").exists()
    assert before == {p: p.read_bytes() for p in undisturbed.glob("*.*")}


@pytest.mark.usefixtures("tiny_network")
def test_members_are_extended_together(tmp_path):
    config = small_config(steps=4)
    config.train.members = "2"
    run(config, tmp_path)
    set_duration(config.train, "length", steps=6)
    reports = run(config, tmp_path, extend=True)
    assert [text[:23] for text in notices(reports)] == ["extended from 4 to 6 st"] * 2
    assert [(r.member, r.step) for r in reports if r.kind == "end"] == [(0, 6), (1, 6)]


FLAGS = ["--config=configs/lenet_digits.py:smoke", "--config.train.length_steps=40"]
FLAGS += ["--config.checkpoint.every_steps=5", "--config.eval.every_steps=10"]
FLAGS += ["--config.log.every_steps=2"]


def start(directory, *flags):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    cache = jax.config.jax_compilation_cache_dir
    return subprocess.Popen(
        [sys.executable, "train.py", *FLAGS, f"--workdir={directory}", *flags],
        cwd=ROOT,
        env=environment | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process, directory, step):
    """Returns when the run has written a row of this step or a later one."""
    deadline = time.monotonic() + 120
    while not any(row["step"] >= step for row in read_rows(directory)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def test_a_killed_process_goes_on(tmp_path):
    """kill -9, SIGTERM, a broken checkpoint, then to the end; against an undisturbed process."""
    whole = start(tmp_path / "whole")
    out, error = whole.communicate(timeout=300)
    assert whole.returncode == 0, error
    broken = tmp_path / "broken"
    process = start(broken)
    wait_for_step(process, broken, 12)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    process = start(broken, "--resume")
    wait_for_step(process, broken, 20)
    process.terminate()
    out, error = process.communicate(timeout=300)
    assert process.returncode == 143 and "Traceback" not in error
    assert "stopped by SIGTERM at step" in out
    assert f"continue with `jaxcnn train --resume --workdir {broken}`" in out
    newest = last_checkpoint(broken)[0]
    for file in (broken / "checkpoints" / str(newest)).rglob("d/*"):
        file.write_bytes(file.read_bytes()[:10])
    process = start(broken, "--resume")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in error, error
    assert f"note: the checkpoint of step {newest} cannot be read" in out
    assert "done in" in out
    assert_same_run(broken, tmp_path / "whole")


def wait_for_writing(process, directory):
    """Returns when the run is in the middle of writing a checkpoint."""
    old = set((directory / "checkpoints").glob("*tmp*"))
    deadline = time.monotonic() + 120
    while not set((directory / "checkpoints").glob("*tmp*")) - old:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    """kill -9, in turn at a random step and while a checkpoint is being written."""
    longer = ("--config.train.length_steps=600", "--config.checkpoint.every_steps=7")
    whole = start(tmp_path / "whole", *longer)
    assert whole.communicate(timeout=300) and whole.returncode == 0
    broken, draw, reached = tmp_path / "broken", random.Random(0), []
    for kill in range(20):
        process = start(broken, "--resume", *longer)
        if kill % 2:
            wait_for_writing(process, broken)
        else:
            newest = max((row["step"] for row in read_rows(broken)), default=0)
            wait_for_step(process, broken, newest + draw.randint(1, 20))
        process.kill()
        process.communicate()
        reached.append(max(row["step"] for row in read_rows(broken)))
    assert len(set(reached)) > 10, "the kills came at different steps"
    process = start(broken, "--resume", *longer)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in error, error
    assert "cannot be read" not in out
    assert_same_run(broken, tmp_path / "whole")
