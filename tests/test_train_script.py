"""`train.py` as a user meets it: what it prints, its exit codes, one line for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxcnn.cli import main

ROOT = Path(__file__).parents[1]


def train(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    cache = str(jax.config.jax_compilation_cache_dir)
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        env=environment | {"JAX_COMPILATION_CACHE_DIR": cache},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


SMOKE = "--config=configs/lenet_digits.py:smoke"


def test_a_run_and_then_its_directory_is_taken(tmp_path):
    done = train(SMOKE, f"--workdir={tmp_path}", "--config.train.seed=3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("lenet5_modern (61,706 parameters) on digits (128 to train on")
    assert "test error" in lines[-1] and "of 64 wrong" in lines[-1]
    refused = train(SMOKE, f"--workdir={tmp_path}")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"train.py: error: {tmp_path} already holds a run; resume it")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.bach_size=3"], "unknown field config.train.bach_size; did you mean"),
        (["--workdri=x"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
        (["--config=configs/lenet_digit.py"], "did you mean 'lenet_digits.py'"),
        (["--config.log.profile=1;2"], "flag --config.log.profile=1;2: it must be of type int"),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    done = train(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_optimizer_is_said_to_drop_fields():
    done = train("--config.optimizer.name=adam", "--config.train.members=x")
    assert done.returncode == 2
    note, error = done.stderr.splitlines()
    assert note.startswith("note: optimizer 'adam' does not take config.optimizer.momentum")
    assert error.startswith("train.py: error: config.train.members is 'x'")


def test_help_is_no_failure():
    done = train("--help")
    assert (done.returncode, done.stderr) == (0, "") and "--workdir" in done.stdout


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = train(SMOKE, f"--workdir={tmp_path}/file/run")
    assert done.returncode == 2
    assert done.stderr == (
        f"train.py: error: {tmp_path}/file/run: cannot write to workdir (Not a directory)\n"
    )


def test_the_command_does_the_same(tmp_path, capsys):
    config = f"{ROOT}/configs/lenet_digits.py:smoke"
    arguments = ["train", config, "train.seed=3", "train.devices=1", "--workdir", str(tmp_path)]
    assert main(arguments) == 0
    assert "done in" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert main(["train", config, "train.sede=3", "--workdir", str(tmp_path)]) == 2
    assert "unknown field config.train.sede" in capsys.readouterr().err


def test_a_run_continues_with_its_own_configuration(tmp_path, capsys):
    config = f"{ROOT}/configs/lenet_digits.py:smoke"
    workdir = ["--workdir", str(tmp_path / "run")]
    given = ["train.seed=3", "train.devices=1", "data.augment=[('flip', 0.5)]"]
    assert main(["train", config, *given, *workdir]) == 0
    assert main(["train", *workdir, "--resume"]) == 0
    assert "the run is already finished" in capsys.readouterr().out
    assert main(["train", *workdir, "--extend", "train.length_steps=7", "log.every_steps=2"]) == 0
    assert "resuming from step 5" in (out := capsys.readouterr().out) and "7/7" in out
    for arguments, message in (
        (["--resume", "train.seed=4", *workdir], "train.seed: 3 in the run, 4 now"),
        (["--resume", "train.sede=4", *workdir], "unknown field config.train.sede"),
        (["--resume"], "--resume needs CONFIG, or --workdir with the directory of a run"),
        (["--overwrite", *workdir], "--overwrite needs CONFIG"),
        (["--extend", "--workdir", f"{tmp_path}/none"], "none is not a run directory"),
    ):
        assert main(["train", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_configuration_of_another_version_is_not_taken(tmp_path, capsys):
    content = {"model": {"name": "lenet5", "options": {}}, "train": {"batch_size": "many"}}
    content["data"] = {"source": "digits", "train_split": "train", "test_split": "test"}
    manifest = {"jaxcnn": "0.9", "config": content}
    (tmp_path / "config.json").write_text(json.dumps(manifest))
    assert main(["train", "--workdir", str(tmp_path), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "--resume needs CONFIG: the configuration of" in error and error.count("\n") == 1
