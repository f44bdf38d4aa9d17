"""What `--overwrite` may delete: what the run wrote, and nothing that somebody else put there."""

import shutil

import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.training.config import default_config
from jaxcnn.training.output import workdir, written

FOREIGN = [
    "checkpoints/thesis.txt",
    "checkpoints/8/notes.txt",
    "checkpoints/7/_CHECKPOINT_METADATA",  # as of another run's checkpoint that was put here
    "best/weights.npz",
    "best/12.orbax-checkpoint-tmp-1/x.py",
    "tensorboard/events.out.tfevents.1700000000.another",
    "tensorboard/hparams/a.csv",
    "profile/plugins/profile/2020_01_01/host.xplane.pb",
    "unreadable/step_4/state/d/0123456789abcdef0123456789abcdef",
    "unreadable/mine",
]


def files_of(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}


@pytest.fixture(scope="module")
def finished(tiny_network, tmp_path_factory):  # noqa: F811
    """A run with one of everything that a run writes: it was resumed past a broken checkpoint."""
    directory = tmp_path_factory.mktemp("overwrite") / "run"
    config = small_config()
    config.log.profile = 1
    run(config, directory)
    for file in (directory / "checkpoints" / "12").rglob("d/*"):
        file.write_bytes(b"")
    run(config, directory, resume=True)
    (directory / ".config.json.99.draft.json").write_text("{")
    (directory / "checkpoints" / "8.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (directory / "checkpoints" / "8.orbax-checkpoint-tmp" / "state" / "manifest.ocdbt").touch()
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_all_that_a_run_writes_goes(copied):
    found = files_of(copied)
    assert any(name.startswith("unreadable/step_12/") for name in found)
    assert any(name.startswith("profile/") for name in found)
    assert len([name for name in found if name.startswith("tensorboard/")]) == 2
    (copied / "notes.txt").write_text("mine")
    workdir.delete_run(copied)
    assert files_of(copied) == {"notes.txt", workdir.LOCK}
    assert [p for p in copied.iterdir() if p.is_dir()] == []


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_named_and_nothing_is_deleted(copied, name):
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_text("mine")
    before = files_of(copied)
    message = f"holds {name}, which the run did not write; nothing was deleted: move it away"
    with pytest.raises(ValueError, match=message):
        run(small_config(), copied, overwrite=True)
    assert files_of(copied) == before and (copied / name).read_text() == "mine"


def test_a_link_within_is_somebody_elses(copied, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (copied / "tensorboard" / "events.out.tfevents.1.link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"link, which the run did not write"):
        workdir.check_deletable(copied)


def test_files_beside_the_folders_stay(copied):
    mine = ("bad_records_mine.jsonl", "bad_records_3.jsonl", "config.json.bak", "metrics.jsonl~")
    for name in mine:
        (copied / name).write_text("mine")
    workdir.delete_run(copied)
    assert files_of(copied) == {*mine, workdir.LOCK}


@pytest.mark.usefixtures("tiny_network")
def test_a_run_of_before_has_no_list(copied):
    """What is called as a run's files are is its own; resumed, it gets a list of them."""
    (copied / written.LIST).unlink()
    config = small_config()
    config.log.profile = 1
    run(config, copied, resume=True)
    (copied / "checkpoints" / "7").mkdir()
    (copied / "checkpoints" / "7" / "_CHECKPOINT_METADATA").write_text("mine")
    with pytest.raises(ValueError, match="checkpoints/7/_CHECKPOINT_METADATA, which the run"):
        workdir.delete_run(copied)
    (copied / written.LIST).unlink()
    workdir.delete_run(copied)
    assert files_of(copied) == {workdir.LOCK}


@pytest.mark.usefixtures("tiny_network")
def test_members_go_if_all_of_them_may(tmp_path):
    config = small_config()
    config.train.members = "2"
    run(config, tmp_path)
    run(small_config(), tmp_path / "member_7")  # somebody's own run, of a name like theirs
    (tmp_path / "member_1" / "best" / "mine").write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"member_1 holds best/mine, which the run did not write"):
        run(config, tmp_path, overwrite=True)
    assert files_of(tmp_path) - before <= {f"member_{i}/{workdir.LOCK}" for i in range(2)}
    assert files_of(tmp_path) >= before
    (tmp_path / "member_1" / "best" / "mine").unlink()
    config.train.members = "1"
    run(config, tmp_path, overwrite=True)
    assert not (tmp_path / "member_1" / "config.json").exists()
    assert (tmp_path / "member_7" / "config.json").exists()


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("use", ["resume", "overwrite", "fresh"])
@pytest.mark.parametrize(
    "left", [[".lock"], [".lock", ".written"], [".lock", ".written", ".config.json.7.draft.json"]]
)
def test_a_kill_before_the_manifest_leaves_a_directory_of_use(tmp_path, left, use):
    for name in left:
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints").mkdir()
    options = {} if use == "fresh" else {use: True}
    assert workdir.check_workdir(tmp_path, default_config(), **options) == tmp_path
    workdir.open_workdir(tmp_path, default_config(), {}, **options)
    assert (tmp_path / "config.json").is_file()


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("mode", ["sequential", "vmap", None])
@pytest.mark.parametrize("field", ["model.weights", "loss.aux_weight", "log.wandb"])
def test_nothing_is_written_before_all_is_checked(tmp_path, mode, field):
    """A run, or the members of an ensemble, with a mistake that shows late."""
    config = small_config()
    if mode:
        config.train.members, config.train.ensemble_mode = "2", mode
    section, name = field.split(".")
    config[section][name] = {"weights": str(tmp_path / "no.npz"), "aux_weight": 0.3}.get(name, "p")
    with pytest.raises((ValueError, OSError)):
        run(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()
