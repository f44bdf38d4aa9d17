"""A run goes on with the examples that it began with, wherever they lie now."""

import dataclasses
import json
import shutil
import tarfile

import numpy as np
import photos
import pytest
from small import run, small_config, tiny_network  # noqa: F401

from jaxcnn.data import catalog, prepare
from jaxcnn.training.config.checks import differences


@pytest.fixture
def folder(tmp_path):
    counts = {"train": {"ant": 6, "bee": 5}, "val": {"ant": 2, "bee": 2}}
    return photos.write_folder(tmp_path / "set", counts, 12, 16)


def digests(source):
    return [catalog.open_encoded(source, split).digest for split in ("train", "test")]


def test_a_list_is_the_same_wherever_the_set_lies(folder, tmp_path):
    before = digests(f"folder:{folder}")
    moved = folder.rename(tmp_path / "moved")
    assert digests(f"folder:{moved}") == before
    for part in ("train", "val"):
        with tarfile.open(tmp_path / "moved" / f"{part}.tar", "w") as tar:
            for path in sorted((moved / part).rglob("*.jpg")):
                tar.add(path, str(path.relative_to(moved / part)))
        shutil.rmtree(moved / part)
    assert digests(f"folder:{moved}") == before


def test_an_archive_is_known_by_what_is_in_it(folder, tmp_path):
    for name in ("a", "b"):
        list(prepare.write_archive(f"folder:{folder}", tmp_path / name))
    before = digests(f"archive:{tmp_path / 'a'}")
    assert digests(f"archive:{tmp_path / 'b'}") == before
    (folder / "train" / "ant" / "000.jpg").write_bytes(photos.jpeg(photos.pixels(99, 12, 16)))
    list(prepare.write_archive(f"folder:{folder}", tmp_path / "c"))
    train, test = digests(f"archive:{tmp_path / 'c'}")
    assert train != before[0] and test == before[1]


def test_every_slice_has_a_list_of_its_own(folder):
    splits = ("train", "train[:4]", "train[1:5]", "test", "test[:2]")
    found = {catalog.open_encoded(f"folder:{folder}", split).digest for split in splits}
    assert len(found) == len(splits)


def test_a_set_in_memory_is_known_by_its_labels():
    one = catalog.load("synthetic", "train[:50]")
    assert catalog.load("synthetic", "train[:50]").digest == one.digest
    others = [
        catalog.load("synthetic", "train[:51]"),
        catalog.load("synthetic", "train[1:51]"),
        dataclasses.replace(one, labels=np.roll(one.labels, 1)),
        dataclasses.replace(one, images=one.images[:, :16]),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5


def swap(folder):
    """A file changes its class: as many examples as before."""
    (folder / "train/ant/000.jpg").rename(folder / "train/bee/900.jpg")


CHANGES = [
    (swap, "training examples: 11 as now, with other names or labels, or in another order"),
    (lambda f: (f / "train/ant/000.jpg").unlink(), "training examples: 11 then, 10 now"),
    (lambda f: (f / "val/bee/001.jpg").unlink(), "test examples: 4 then, 3 now"),
    (
        lambda f: shutil.copy(f / "val/bee/001.jpg", f / "val/bee/z.jpg"),
        "test examples: 4 then, 5 now",
    ),
]


@pytest.mark.usefixtures("tiny_network")
def test_other_examples_are_one_line_at_resume(folder, tmp_path):
    config = small_config(steps=2, batch_size=4)
    config.data.source, config.data.image_size = f"folder:{folder}", 8
    config.data.train_split, config.data.test_split = "train", "test"
    config.eval.batch_size = 4
    run(config, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "config.json").read_text())
    assert manifest["examples"] == dict(zip(("train", "test"), digests(f"folder:{folder}")))
    shutil.copytree(folder, tmp_path / "kept")
    before = sorted(path.read_bytes() for path in (tmp_path / "run").glob("*.*"))
    for change, words in CHANGES:
        change(folder)
        with pytest.raises(ValueError, match=f"was started with other {words}") as error:
            run(config, tmp_path / "run", resume=True)
        assert "\n" not in str(error.value)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)
    assert before == sorted(path.read_bytes() for path in (tmp_path / "run").glob("*.*"))
    assert run(config, tmp_path / "run", resume=True)[-1].kind == "end"
    config.data.source = f"folder:{folder.rename(tmp_path / 'moved')}"
    assert run(config, tmp_path / "run", resume=True)[-1].kind == "end"
    manifest = json.loads((tmp_path / "run" / "config.json").read_text())
    assert manifest["config"]["data"]["source"] == config.data.source


@pytest.mark.parametrize(
    ("before", "now", "good"),
    [
        ("folder:a", "folder:/data/b", True),
        ("wds:a-{0..9}.tar,label=cls", "wds:gs://b/a-{0..9}.tar,label=cls", True),
        ("hf:/data/photos", "hf:/data/others", False),
        ("hf:me/photos,label=fine", "hf:me/photos,label=coarse", False),
        ("folder:a", "archive:a", False),
        ("tfds:cifar10", "tfds:cifar100", False),
        ("files:cifar10", "files:cifar100", False),
        ("synthetic:96", "synthetic:32", False),
    ],
)
def test_only_the_place_of_files_may_differ(before, now, good):
    configs = {"data": {"source": before}}, {"data": {"source": now}}
    assert bool(differences(*configs, moved=True)) is not good
    assert differences(*configs)
