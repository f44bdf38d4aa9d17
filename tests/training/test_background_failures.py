"""What fails beside the steps ends the run: soon, with one line, and with the process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from small import run, small_config
from test_full_disk import no_room_above

from jaxcnn.training import train
from jaxcnn.training.config import set_duration
from jaxcnn.training.output.metrics_files import read_rows

ROOT = Path(__file__).parents[2]


def test_a_checkpoint_that_fails_in_the_background_is_told_before_the_next_one(tmp_path):
    config = small_config(model="lenet5_modern", steps=2000)  # of half a megabyte
    config.data.source = "digits"
    set_duration(config.eval, "every", steps=1000)
    set_duration(config.checkpoint, "every", steps=500)
    config.log.every_steps = 100
    reports = train(config, tmp_path)
    for report in reports:
        if report.kind == "step" and report.step == 499:
            break
    with no_room_above(60_000), pytest.raises(OSError, match="checkpoint of step 500 cannot be"):
        for later in reports:
            last = later
    assert last.step < 990, "before the checkpoint of step 1000 is begun"


@pytest.mark.parametrize("which", ["checkpoints", "best", "tensorboard", "profile"])
def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path, which):
    config = small_config(model="lenet5_modern", steps=8)
    config.data.source = "digits"
    config.log.profile = 1
    (tmp_path / which).symlink_to("/proc/none")
    with pytest.raises((OSError, ValueError), match=which):
        run(config, tmp_path)


SCRIPT = """
import shutil, sys
from jaxcnn.cli import main
from jaxcnn.training.output.checkpoints import Checkpoints

save, place, what = Checkpoints.save, *sys.argv[2:]
def spoiled(self, state, step, meta):
    if step >= 10:
        folder = self.directory.parent / place
        shutil.rmtree(folder, ignore_errors=True)
        if what == "file":
            folder.write_text("in the way")
    return save(self, state, step, meta)
Checkpoints.save = spoiled
sys.exit(main(["train", "configs/lenet_digits.py:smoke", "--workdir", sys.argv[1],
    *"train.devices=1 train.length_steps=40 train.length_epochs=none log.every_steps=2".split(),
    *"eval.every_steps=10 eval.every_epochs=none".split(),
    *"checkpoint.every_steps=5 checkpoint.every_epochs=none".split()]))
"""


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("checkpoints", "file"),
        pytest.param("best", "nothing", marks=pytest.mark.slow),
        pytest.param("tensorboard", "file", marks=pytest.mark.slow),
    ],
)
def test_a_folder_that_is_replaced_in_the_middle(tmp_path, place, what):
    """The process ends with one line, or goes on to its end with what is there."""
    cache = jax.config.jax_compilation_cache_dir
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), place, what],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=200,  # Orbax's threads would wait for 300 s
    )
    assert done.returncode in (0, 2, 3) and "Traceback" not in done.stderr, done.stderr
    if done.returncode:
        [line] = done.stderr.strip().splitlines()[-1:]
        assert line.startswith("jaxcnn: error: ") and f"/run/{place}" in line
    assert read_rows(tmp_path / "run")[-1]["step"] >= 10
