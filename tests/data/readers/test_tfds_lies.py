"""Descriptions of TFDS's sets that are damaged or claim what is not so: one line with the file."""

import json
import shutil

import pytest
from tfds_sets import build, draw

from jaxcnn.data import catalog
from jaxcnn.data.readers import tfds, tfds_images

OPENED = [tfds.open_tfds, tfds_images.open_tfds_images]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    build(root, "cifar10", {"train": draw(7, 3, 0), "test": draw(5, 3, 1)}, shards=2)
    return root


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "sets")
    return tmp_path / "sets" / "cifar10" / "3.0.1"


def refused(folder, opened, *words):
    with pytest.raises(ValueError) as error:
        opened("cifar10", folder.parents[1])
    text = str(error.value)
    assert "\n" not in text and str(folder) in text and len(text) < 1000
    assert all(word in text for word in words), text


def shards(*lengths):
    def change(info):
        info["splits"][0]["shardLengths"] = list(lengths)
        return info

    return change


def without(name):
    return lambda info: {key: value for key, value in info.items() if key != name}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("text", ["", "{", '{"name": "ci', "[" * 100_000, "\udcff"])
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_what_is_no_json_is_named(folder, opened, file, text):
    (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(folder, opened, file, "is not JSON")


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda _: [],
        lambda _: "text",
        lambda content: content | {"novelty": 3},
    ],
)
def test_another_content_is_named(folder, opened, file, change):
    path = folder / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(folder, opened, "dataset_info.json or features.json in")


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize(
    "change",
    [
        shards("x", "y"),
        shards("-3", "10"),
        shards("3", "99999999999999999999999"),
        shards({}),
        without("version"),
        lambda info: info | {"fileFormat": "nonsense"},
        lambda info: info | {"splits": [{"name": "train", "shardLengths": ["7"], "x": 1}]},
        lambda info: info | {"splits": "train"},
    ],
)
def test_an_info_that_cannot_be(folder, opened, change):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(folder, opened)


def test_more_examples_than_there_are_take_no_memory(folder):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(shards("1000000000000", "3")(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"cifar10-.* holds . examples; 1000000000000 expected"):
        for part in ("train", "test"):
            catalog.load("tfds:cifar10", part, data_dir=folder)


def test_a_claimed_shape_takes_no_memory(folder):
    path = folder / "features.json"
    text = path.read_text()
    assert '"12"' in text
    path.write_text(text.replace('"12"', '"1200000000"'))
    with pytest.raises(ValueError, match=r"the image is uint8\[12, 10, 3\]; uint8\[1200000000,"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)


def test_an_example_of_other_features_is_named(folder):
    """The files hold a label in other words than the description has."""
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"label": {', '"tag": {'))
    with pytest.raises(ValueError, match="has no feature 'label'; it has"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)
    path.write_text(path.read_text().replace('"tag": {', '"label": {').replace('"id"', '"other"'))
    assert len(catalog.load("tfds:cifar10", "train", data_dir=folder)) == 7  # it is not read
    info, *_ = tfds.open_info("cifar10", folder.parents[1])
    with pytest.raises(ValueError, match="record 0 is not an example of the dataset"):
        tfds._example(info.features, b"\xff", (12, 10, 3), "record 0")
