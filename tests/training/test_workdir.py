"""Whose a directory is, and what may be deleted there."""

import json
import subprocess

import pytest

from jaxcnn.training.config import default_config
from jaxcnn.training.output import workdir
from jaxcnn.training.output.workdir import git_state


def make_run(path, config=None):
    """A directory as a run leaves it, with two things of somebody else's."""
    (path / "checkpoints" / "10").mkdir(parents=True)
    (path / "best" / "10").mkdir(parents=True)
    (path / "metrics.jsonl").write_text("{}")
    (path / "notes.txt").write_text("mine")
    (path / "data").mkdir()
    workdir.write_manifest(path, config or default_config(), {"seed": 0})
    return path


def names(path):
    return sorted(p.name for p in path.iterdir() if not p.name.startswith("."))


def test_a_new_or_empty_directory_is_taken(tmp_path):
    for path in (tmp_path / "a" / "b", tmp_path):
        assert workdir.open_workdir(path, default_config(), {}) == path
        assert path.is_dir()
    assert names(tmp_path / "a" / "b") == ["config.json"], "the manifest comes first"


def test_another_run_is_refused(tmp_path):
    before = names(make_run(tmp_path))
    with pytest.raises(ValueError, match=r"already holds a run; resume it \(--resume\), overwrite"):
        workdir.check_workdir(tmp_path, default_config())
    with pytest.raises(ValueError, match="cannot be combined"):
        workdir.check_workdir(tmp_path, default_config(), resume=True, overwrite=True)
    assert names(tmp_path) == before


def test_overwriting_deletes_only_what_a_run_writes(tmp_path):
    make_run(tmp_path)
    workdir.open_workdir(tmp_path, default_config(), {}, overwrite=True)
    assert names(tmp_path) == ["config.json", "data", "notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_unknown_origin_are_left_alone(tmp_path, overwrite):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'checkpoints' but no config.json of a run"):
        workdir.open_workdir(tmp_path, default_config(), {}, overwrite=overwrite)
    (tmp_path / "config.json").write_text(json.dumps({"name": "something else"}))
    with pytest.raises(ValueError, match=r"not the manifest of a run|already holds"):
        workdir.open_workdir(tmp_path, default_config(), {}, overwrite=overwrite)
    assert (tmp_path / "checkpoints" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_a_start_that_was_killed_leaves_a_directory_of_use(tmp_path, option):
    """Before the manifest came first, folders without a file in them were left."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "best").mkdir()
    workdir.open_workdir(tmp_path, default_config(), {}, **{option: True})
    assert "config.json" in names(tmp_path)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run = make_run(tmp_path / "run")
    (run / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link"):
        workdir.open_workdir(run, default_config(), {}, overwrite=True)
    assert (tmp_path / "elsewhere").is_dir()
    assert (run / "config.json").exists()


def test_resuming_with_another_configuration_names_the_fields(tmp_path):
    make_run(tmp_path)
    config = default_config()
    workdir.open_workdir(tmp_path, config, {}, resume=True)
    config.log.every_steps = 3
    workdir.open_workdir(tmp_path, config, {}, resume=True)
    config.train.batch_size = 64
    config.schedule.learning_rate = 0.5
    message = (
        r"schedule.learning_rate: 0.1 in the run, 0.5 now; "
        r"train.batch_size: 128 in the run, 64 now$"
    )
    with pytest.raises(ValueError, match=message):
        workdir.open_workdir(tmp_path, config, {}, resume=True)


def test_resuming_with_another_normalization_is_refused(tmp_path):
    """As after an update that normalizes the images of a network differently."""
    config = default_config()
    config.model.name, config.data.source = "lenet5", "digits"
    make_run(tmp_path, config)
    workdir.open_workdir(tmp_path, config, {}, resume=True)
    content = json.loads((tmp_path / "config.json").read_text())
    content["preprocessing"]["std"] = [0.5]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"normalized with std=\(0.5,\), but .* std=\(0.32"):
        workdir.open_workdir(tmp_path, config, {}, resume=True)


def test_many_differences_are_counted(tmp_path):
    make_run(tmp_path)
    config = default_config()
    config.data.augment = tuple(("flip", i / 100) for i in range(100))
    config.data.mixup, config.train.batch_size, config.train.seed = 0.2, 64, 5
    text = (
        r"configuration: data.augment: \[\] in the run, \[\['flip', 0.0\], .{,40} \.\.\. now; "
        r"data.mixup: 0.0 in the run, 0.2 now; train.batch_size: 128 in the run, 64 now; "
        r"and 1 more$"
    )
    with pytest.raises(ValueError, match=text):
        workdir.open_workdir(tmp_path, config, {}, resume=True)


def test_resuming_where_there_is_nothing_begins(tmp_path):
    new = tmp_path / "new"
    assert workdir.open_workdir(new, default_config(), {}, resume=True) == new


def test_a_broken_manifest_is_named(tmp_path):
    make_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        workdir.open_workdir(tmp_path, default_config(), {}, resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file is not a directory"):
        workdir.open_workdir(tmp_path / "file", default_config(), {})
    with pytest.raises(OSError, match="cannot write to workdir") as caught:
        workdir.open_workdir(tmp_path / "file" / "below", default_config(), {})
    assert caught.value.filename == str(tmp_path / "file" / "below")


def test_the_manifest_says_what_ran(tmp_path):
    make_run(tmp_path)
    content = workdir.read_manifest(tmp_path)
    assert content["config"]["train"]["batch_size"] == 128
    assert content["seed"] == 0
    assert set(content["versions"]) >= {"jax", "flax", "optax"}


def test_the_commit_and_changes_to_it_are_told(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert git_state(tmp_path) is None
    git("init")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-m", "first")
    clean = git_state(tmp_path)
    assert len(clean["revision"]) == 40 and clean["dirty"] is False
    (tmp_path / "code.py").write_text("2\n")
    assert git_state(tmp_path) == clean | {"dirty": True}
