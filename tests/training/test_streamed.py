"""Runs on photos that stream from files: the same loop, its promises kept."""

import json
import shutil
import signal

import jax
import numpy as np
import photos
import pytest
from small import (  # noqa: F401
    assert_same_run,
    last_checkpoint,
    run,
    small_config,
    tiny_network,
)

from jaxcnn.analysis import samples
from jaxcnn.cli import main
from jaxcnn.data import crops, prepare
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.loader import resident, streaming
from jaxcnn.models import model_info
from jaxcnn.training import engine, train
from jaxcnn.training.build import build_experiment
from jaxcnn.training.config import TrackedConfig
from jaxcnn.training.config.files import read_config
from jaxcnn.training.guard import preflight
from jaxcnn.training.input import loaders, sets
from jaxcnn.training.output.checkpoints import Checkpoints, abstract
from jaxcnn.training.output.metrics_files import read_rows
from jaxcnn.training.output.workdir import delete_run, describe_data

pytestmark = pytest.mark.usefixtures("tiny_network")

SIZE = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    counts = {"train": {"ant": 20, "bee": 18}, "val": {"ant": 11, "bee": 10}}
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", counts, 12, 16)


def config_of(source, *, steps=7):
    config = small_config(steps=steps, batch_size=16)
    config.data.source = str(source)
    config.data.train_split, config.data.test_split = "train", "test"
    config.data.image_size = SIZE
    config.data.augment = (("flip", 0.5),)
    config.eval.batch_size = 8
    return config


@pytest.fixture(scope="module")
def finished(tiny_network, root, tmp_path_factory):  # noqa: F811
    """One run to the end: (directory, reports)."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(config_of(f"folder:{root}"), directory)


@pytest.mark.parametrize("name", ["alexnet", "zfnet", "dpn68", "inception_v3"])
def test_photos_are_prepared_for_networks_with_a_normalization_of_their_own(root, name):
    """AlexNet and ZFNet take pixels of 0 to 255 minus the mean, which is no mistake."""
    config = config_of(f"folder:{root}")
    config.model.name, config.data.image_size = name, None
    experiment = build_experiment(TrackedConfig(config))
    preflight.check(experiment)
    assert tuple(experiment.train_set.std) == model_info(name).std


def notices(reports):
    return [r.values["text"] for r in reports if r.kind == "notice"]


@pytest.mark.parametrize("size", [SIZE, None])
def test_the_training_size_is_recorded(root, size):
    """That of the images in training, not of the larger ones in evaluation."""
    config = config_of(f"folder:{root}")
    config.model.name, config.data.image_size = "resnet18", size
    config.data.eval_size, config.data.eval_resize = 288, 320
    about = describe_data(config)
    assert about["train_size"] == (size or 224) and about["preprocessing"]["size"] == 288


def test_it_trains_and_reports_how_long_it_waited(finished):
    directory, reports = finished
    assert [r.step for r in reports if r.kind == "step"] == list(range(1, 8))
    assert reports[-1].kind == "end" and notices(reports) == []
    start = reports[0].values
    assert (start["train_examples"], start["test_examples"]) == (38, 21)
    rows = [row for row in read_rows(directory) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(0 <= row["data_wait_ms"] < 60_000 for row in rows)
    assert (directory / "predictions.png").exists()
    assert not (directory / "bad_records.jsonl").exists()


def test_the_evaluation_counts_each_photo_once(root, finished):
    """The last test error, counted again from the checkpoint on images cut one by one."""
    directory, reports = finished
    config = config_of(f"folder:{root}")
    experiment = build_experiment(TrackedConfig(config))
    with Checkpoints(directory / "checkpoints", 3) as store:
        _, state, _, _ = store.restore_newest(abstract(experiment.shapes, experiment.mesh))
    test = open_encoded(f"folder:{root}", "val")
    wrong = 0
    for i in range(len(test)):
        data, label = test.read(i)
        image = crops.cut(data, lambda h, w: crops.center(h, w, size=SIZE, side=9), SIZE)
        image = (image / 255 - np.float32(test.mean)) / np.float32(test.std)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = experiment.model.apply(variables, image.astype(np.float32)[None], train=False)
        wrong += int(np.argmax(logits) != label)
    assert reports[-1].values["top1_error"] == pytest.approx(wrong / 21, abs=1e-7)
    predicted = engine.predict(experiment, state, *loaders.first_examples(experiment, 21))
    labels = np.array([test.read(i)[1] for i in range(21)])
    assert (predicted != labels).sum() == wrong


def test_a_stopped_run_goes_on_bit_for_bit_and_an_archive_is_the_same(root, finished, tmp_path):
    """Stopped in step 5 of a folder's run, with one thread; gone on with from an archive."""
    config = config_of(f"folder:{root}")
    config.data.workers = 1
    with train(config, tmp_path / "run") as reports:
        for report in reports:
            if report.kind == "step" and report.step == 5:
                signal.raise_signal(signal.SIGTERM)
    assert report.kind == "stopped" and 5 <= report.step < 7
    config.data.workers = 3
    assert run(config, tmp_path / "run", resume=True)[-1].kind == "end"
    assert_same_run(tmp_path / "run", finished[0])
    list(prepare.write_archive(f"folder:{root}", tmp_path / "archived"))
    config = config_of(f"archive:{tmp_path / 'archived'}")
    run(config, tmp_path / "archive")
    assert_same_run(tmp_path / "archive", finished[0])


def test_eight_devices_share_the_photos(root, finished, tmp_path):
    config = config_of(f"folder:{root}")
    config.train.devices = 8
    run(config, tmp_path)
    (step, many, _), (_, one, _) = map(last_checkpoint, (tmp_path, finished[0]))
    assert step == 7
    for path, value in one.items():
        np.testing.assert_allclose(many[path], value, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.fixture
def damaged(root, tmp_path):
    """Makes a copy of the set in which so many training images are empty files."""
    import shutil

    def make(count):
        shutil.copytree(root, tmp_path / "set")
        files = sorted((tmp_path / "set" / "train" / "bee").iterdir())[:count]
        for file in files:
            file.write_bytes(b"")
        return tmp_path / "set", files

    return make


def test_a_bad_record_is_named_and_the_run_goes_on(damaged, tmp_path):
    folder, (file,) = damaged(1)
    reports = run(config_of(f"folder:{folder}", steps=4), tmp_path / "run")
    expected = "1 record of 38 cannot be read; bad_records.jsonl names them, others stand in"
    (text,) = notices(reports)
    assert text.startswith(expected) and reports[-1].kind == "end"
    (row,) = map(json.loads, (tmp_path / "run" / "bad_records.jsonl").read_text().splitlines())
    assert row == {"name": str(file), "reason": "is empty"}
    delete_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def config_file(directory, folder):
    """The path of a configuration file of the tiny network."""
    file = directory / "config.py"
    file.write_text(
        "from jaxcnn.training.config import default_config\n"
        "def get_config(arg=None):\n"
        "    c = default_config()\n"
        f"    c.model.name, c.data.source, c.data.image_size = 'tiny', 'folder:{folder}', {SIZE}\n"
        "    c.train.batch_size, c.eval.batch_size, c.train.devices = 38, 8, 1\n"
        "    return c\n"
    )
    return str(file)


def test_too_many_end_the_run(damaged, tmp_path, capsys):
    folder, _ = damaged(2)
    config = config_file(tmp_path, folder)
    assert main(["train", config, "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "2 of 38 records cannot be read, more than 1%; the last is" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.crop", "inceptoin", "config.data.crop is 'inceptoin'; did you mean 'inception'"),
        ("data.image_size", 0, "config.data.image_size is 0"),
        ("data.eval_resize", 7, "config.data.eval_resize is 7; it must be at least eval_size, 8"),
        ("data.workers", -1, "config.data.workers is -1"),
        ("train.steps_per_call", 2, "steps_per_call is 2; it must be 0 or 1 for"),
        ("data.test_split", "tets", "unknown split 'tets'; did you mean 'test'"),
        ("data.source", "folder:/nowhere", "there is no folder /nowhere"),
        ("data.source", "floder:/nowhere", "did you mean 'folder'"),
        ("data.source", "tfds:imagenet2012", "tfds:imagenet2012 is not in .*; either build it"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(root, tmp_path, field, value, message):
    config = config_of(f"folder:{root}")
    config.data.dir = str(tmp_path)
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_sheet_shows_what_the_network_sees(root, tmp_path):
    """Streamed: the first batch, flipped or not. In memory: the same. Mixed: named so."""
    config = config_of(f"folder:{root}")
    images, labels = samples.first_samples(config)
    train_set = open_encoded(f"folder:{root}", "train")
    crop = crops.training_crop("inception", SIZE)
    source = streaming.Training(train_set, 0, 16, SIZE, crop, BadRecords(38))
    batch = streaming.make_batch(source, 0)
    assert labels == [("ant", "bee")[label] for label in batch["label"]]
    flipped = [not np.array_equal(a, b) for a, b in zip(images, batch["image"], strict=True)]
    assert 0 < sum(flipped) < 16
    for image, expected, turned in zip(images, batch["image"], flipped):
        np.testing.assert_array_equal(image, expected[:, ::-1] if turned else expected)
    # The step draws the same flips.
    experiment = build_experiment(TrackedConfig(config))
    _, key = jax.random.split(jax.random.key(0))
    keys = [jax.random.fold_in(jax.random.fold_in(key, 0), slot) for slot in range(16)]
    ready = experiment.preprocess(batch, jax.numpy.stack(keys))
    seen = np.asarray(ready["image"]) * np.float32(train_set.std) + np.float32(train_set.mean)
    np.testing.assert_array_equal(np.round(seen * 255).astype(np.uint8), images)

    config = small_config(batch_size=200)
    images, labels = samples.first_samples(config)
    experiment = build_experiment(TrackedConfig(config))
    index = resident.batch_indices(0, 0, 200, 200)[:40]
    np.testing.assert_array_equal(images, experiment.train_set.images[index])
    config.data.mixup = 1.0
    _, mixed = samples.first_samples(config)
    assert any("\n+ " in label for label in mixed)


def test_the_sheet_from_the_command_line(root, tmp_path, capsys):
    config = config_file(tmp_path, root)
    out = tmp_path / "sheet.png"
    assert main(["show-data", config, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: the first 38 samples of the run, 8 x 8 pixels\n"
    from PIL import Image

    with Image.open(out) as sheet:
        assert sheet.width > 1000 and sheet.height > 900
    for arguments in (["--out", "sheet.jpg"], ["--out", str(tmp_path / "no" / "a.png")]):
        assert main(["show-data", config, *arguments]) == 2
    (tmp_path / "run").mkdir()  # of a run: those of its configuration
    manifest = {"config": json.loads(read_config(config).to_json()), "jaxcnn": "0"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(manifest))
    again = tmp_path / "again.png"
    assert main(["show-data", str(tmp_path / "run"), "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_class_names_of_wordnet_are_put_in_words():
    assert samples.readable(("n01440764", "n01443537", "other")) == ["tench", "goldfish", "other"]
    assert samples.readable(("n", "cat")) == ["n", "cat"]


def test_an_exported_network_knows_how_photos_are_prepared(root, finished):
    from jaxcnn.training.output.trained import load_run

    trained = load_run(finished[0], "newest")
    how = trained.preprocessing
    assert (how.size, how.interpolation, trained.class_names) == (8, "bilinear", ("ant", "bee"))
    assert int(how.size / how.crop) == 9 and how.mean == (0.485, 0.456, 0.406)
    for size in range(1, 400, 9):
        config = config_of(f"folder:{root}")
        config.data.image_size, config.data.eval_resize = 224, 224 + size
        how, _ = sets.preprocessing(TrackedConfig(config))
        assert int(how.size / how.crop) == 224 + size


def test_a_moved_run_needs_no_data_and_knows_its_classes(root, finished, tmp_path, capsys):
    """The directory is all that `predict` needs; other classes are refused."""
    moved, folder = tmp_path / "moved", tmp_path / "photos"
    shutil.copytree(finished[0], moved)
    manifest = json.loads((moved / "config.json").read_text())
    manifest["config"]["data"]["dir"] = str(tmp_path / "gone")
    (moved / "config.json").write_text(json.dumps(manifest))
    photo = next((root / "val" / "ant").glob("*.jpg"))
    assert main(["predict", str(moved), str(photo)]) == 0
    shown = capsys.readouterr().out
    assert "ant" in shown and "bee" in shown and len(shown.splitlines()) == 3

    shutil.copytree(root, folder)
    for part in folder.iterdir():
        if part.is_dir() and (part / "bee").is_dir():
            (part / "bee").rename(part / "wasp")
    capsys.readouterr()
    assert main(["evaluate", str(moved), "--data", f"folder:{folder}"]) == 2
    assert "has other classes than folder:" in (text := capsys.readouterr().err)
    assert "class 1 is 'bee' for the network and 'wasp' in the data" in text
    assert main(["evaluate", str(moved), "--data", f"folder:{root}", "--split", "val"]) == 0
    assert f"{moved}: best checkpoint, step " in (out := capsys.readouterr().out)
    assert "chosen by its error on" in out and "top-5" not in out


def test_a_run_of_other_classes_is_not_resumed(root, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(root, folder)
    config = config_of(f"folder:{folder}", steps=2)
    list(train(config, tmp_path / "run"))
    for part in folder.iterdir():
        if (part / "bee").is_dir():
            (part / "bee").rename(part / "wasp")
    text = r"trained on other classes: .* was 'bee' and is 'wasp'"
    with pytest.raises(ValueError, match=text):
        list(train(config, tmp_path / "run", resume=True))


@pytest.mark.parametrize("step", [4, 7])
def test_a_test_image_that_cannot_be_read_loses_no_step(root, finished, tmp_path, step):
    """The run ends with a checkpoint; with the file replaced, it goes on with that evaluation."""
    shutil.copytree(root, tmp_path / "set")
    bad = tmp_path / "set" / "val" / "bee" / "003.jpg"
    good = bad.read_bytes()
    config = config_of(f"folder:{tmp_path / 'set'}")
    reports = []
    with pytest.raises(ValueError, match=r"bee/003\.jpg"):
        for report in train(config, tmp_path / "run"):
            reports.append(report)
            if report.kind == "step" and report.step == step - 2:
                bad.write_bytes(good[:50])
    assert f"step {step} is saved, and --resume repeats it" in notices(reports)[-1]
    assert last_checkpoint(tmp_path / "run")[0] == step
    bad.write_bytes(good)
    with train(config, tmp_path / "run", resume=True) as reports:  # and is left at once
        next(report for report in reports if report.kind == "eval")
    reports = run(config, tmp_path / "run", resume=True)
    assert next(r.step for r in reports if r.kind == "eval") == step
    assert_same_run(tmp_path / "run", finished[0])


def test_classes_without_a_training_example_are_told(tmp_path, capsys):
    root = photos.write_folder(
        tmp_path / "set",
        {"train": {"ant": 8, "bee": 8, "cow": 8}, "val": {"ant": 2, "cow": 2}},
        40,
        40,
    )
    config = small_config()
    config.data.source, config.data.train_split = f"folder:{root}", "train[:60%]"
    config.data.test_split = "train[60%:]"
    config.data.image_size = config.data.eval_size = config.data.eval_resize = 32
    preflight.check(build_experiment(TrackedConfig(config)))
    assert "note: 1 of 3 classes have no training example: cow;" in capsys.readouterr().err
    config.data.train_split = "train"
    preflight.check(build_experiment(TrackedConfig(config)))
    assert "no training example" not in capsys.readouterr().err
