"""Data sources of one's own: registered or by address, in memory, in part, and as image files."""

import os
import re

import numpy as np
import pytest
from photos import write_folder

from jaxcnn import data
from jaxcnn.cli import main
from jaxcnn.data import catalog

NAMES = ("cat", "dog")


def draw(count):
    labels = np.arange(count) % 2
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return images, labels


@pytest.fixture
def register():
    """`data.register`, undone at the end."""
    names = []

    def add(function, name="mine"):
        data.register(name, function)
        names.append(name)

    yield add
    for name in names:
        data.unregister(name)


def test_arrays(register):
    calls = []

    def open_mine(data_dir):
        calls.append(data_dir)
        return draw(20), draw(7), list(NAMES)

    register(open_mine)
    train, test = (data.load("mine", split, data_dir="~/there") for split in ("train", "test[1:]"))
    assert calls == [os.path.expanduser("~/there")] and not catalog.is_streamed("mine", "~/there")
    np.testing.assert_array_equal(train.images, draw(20)[0])
    np.testing.assert_array_equal(test.labels, draw(7)[1][1:])
    assert test.labels.dtype == np.int32 and test.class_names == NAMES
    np.testing.assert_allclose(test.mean, draw(20)[0].mean((0, 1, 2)) / 255)


def test_a_source_is_read_in_part(register):
    asked = []

    def read(part, start, stop):
        asked.append((part, start, stop))
        return tuple(values[start:stop] for values in draw(30))

    register(lambda: data.Source(NAMES, {"train": 30, "test": 30, "extra": 30}, read))
    extra = data.load("mine", "extra[10:15]")
    np.testing.assert_array_equal(extra.labels, draw(30)[1][10:15])
    assert asked == [("extra", 10, 15), ("train", 0, 30)]  # and the statistics


def test_image_files(register, tmp_path):
    write_folder(tmp_path, {"train": {"ant": 2, "bee": 3}, "val": {"ant": 1, "bee": 1}}, 16, 16)
    register(lambda data_dir: catalog.open_parts(f"folder:{data_dir}"))
    assert catalog.is_streamed("mine", tmp_path)
    own, known = (
        catalog.open_encoded(source, "test[1:]", tmp_path) for source in ("mine", "folder:.")
    )
    assert own.read(0) == known.read(0) and own.class_names == ("ant", "bee")
    with pytest.raises(ValueError, match="'mine' has image files, which training streams"):
        data.load("mine", "train", data_dir=tmp_path)


def test_by_address(tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n"
        "def cifar10():\n"
        "    images = np.tile(np.uint8([[0], [200]]), (4, 8, 1, 1))\n"
        "    return (images, np.arange(4)), (images, np.arange(4)), list('abcd')\n"
    )
    monkeypatch.chdir(tmp_path)
    found = data.load("my_data.py:cifar10", "train")
    assert len(found) == 4 and len(found.mean) == 1  # not the statistics of CIFAR-10
    with pytest.raises(ValueError, match="unknown option 'data_dir' of data source 'my_data"):
        data.load("my_data.py:cifar10", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_dat.py:mine", "data.source 'my_dat.py:mine': there is no file my_dat.py in"),
        ("nowhere.data:mine", "data.source 'nowhere.data:mine': there is no module 'nowhere'"),
        ("tfd:cifar10", "there is no module 'tfd'; did you mean 'tfds'"),
        ("mine", "unknown data source 'mine'.*for one program only"),
    ],
)
def test_sources_that_there_are_not(name, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, "train")


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("digits", draw, "'digits' is a data source of jaxcnn"),
        ("folder", draw, "'folder' is a data source of jaxcnn"),
        ("my:set", draw, "must not contain a colon"),
        ("mine", 3, "data source 'mine' is of type int; it must be a function"),
        ("mine", draw, r"cannot be called with \(\): missing a required argument: 'count'"),
    ],
)
def test_what_cannot_be_registered(name, function, message):
    with pytest.raises(ValueError, match=message):
        data.register(name, function)
    with pytest.raises(ValueError, match=re.escape(f"{name!r} is not registered")):
        data.unregister(name)


def test_a_name_is_taken_once(register):
    register(lambda: None)
    with pytest.raises(ValueError, match=r"'mine' is registered; jaxcnn.data.unregister\('mine'\)"):
        data.register("mine", lambda: None)


@pytest.mark.parametrize(
    ("opened", "message"),
    [
        ((NAMES, {"train": 3}), "returned an object of type tuple; it must return"),
        (data.Source(NAMES, {"test": 3}, draw), "has no split 'train'; it has test"),
        (([], [], NAMES), r"'train' is of type list; it must be \(images, labels\)"),
    ],
)
def test_what_cannot_be_opened(register, opened, message):
    register(lambda: opened)
    with pytest.raises(ValueError, match=f"data source 'mine'.*{message}"):
        data.load("mine", "train")


def test_a_source_in_memory_has_no_image_files(register, tmp_path, capsys):
    register(lambda: data.Source(NAMES, {"train": 3}, draw))
    assert main(["prepare", "mine", str(tmp_path / "out")]) == 2
    assert "'mine' is a dataset in memory" in capsys.readouterr().err
