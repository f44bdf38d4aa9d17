"""WebDataset's tar files against the same images in folders, and damaged ones."""

import json
import shutil
import tarfile

import numpy as np
import photos
import pytest
from other_formats import add, examples, write_tars

from jaxcnn.data import catalog
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import webdataset

NAMES = ("ant", "bee", "cow")
COUNTS = {"train": {"ant": 9, "bee": 8, "cow": 6}, "val": {"ant": 2, "bee": 2, "cow": 3}}
LABELS = {
    "numbers": lambda name, number: ("cls", str(number).encode()),
    "names": lambda name, number: ("txt", name.encode() + b"\n"),
    "fields": lambda name, number: ("json", json.dumps({"label": number, "a": [1]}).encode()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", COUNTS, 32, 40)


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    return write_tars(folder, tmp_path_factory.mktemp("tars") / "set", LABELS["numbers"])


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the set without its index, to be changed."""
    return shutil.copytree(written, tmp_path / "copy", ignore=shutil.ignore_patterns("*.npz"))


def contents(dataset):
    return [dataset.read(i) for i in range(len(dataset))]


def same(source, folder, splits=("train", "train[20%:70%]", "test"), data_dir=None):
    for split in splits:
        a = catalog.open_encoded(f"folder:{folder}", split)
        b = catalog.open_encoded(source, split, data_dir)
        assert contents(a) == contents(b)
    return b.class_names


@pytest.mark.parametrize("kind", LABELS)
def test_the_examples_are_those_of_the_folder(folder, tmp_path, kind):
    written = write_tars(folder, tmp_path / "set", LABELS[kind])
    names = NAMES if kind == "names" else ("0", "1", "2")
    assert same(f"wds:{written}", folder) == names
    assert same(f"wds:{written}/set-train-{{0000..0002}}.tar", folder, ["train"]) == names
    assert same("wds:set-{train,val}-{0000..0002}.tar", folder, data_dir=written) == names
    assert same(f"wds:{written}/*.tar", folder) == names
    train = catalog.open_encoded(f"wds:{written}", "train")
    assert train.name(8) == f"{written}/set-train-0001.tar: ant_008.jpg"
    digests = [catalog.open_encoded(f"wds:{written}", s).digest for s in ("train", "train[1:]")]
    assert digests[0] == train.digest != digests[1]


def test_the_index_is_made_once(copy, monkeypatch):
    first = webdataset.open_shards(str(copy), {})[1]["train"]
    (made,) = copy.glob("set-train-*.index.npz")
    monkeypatch.setattr(webdataset, "_examples", None)  # must not be needed
    again = webdataset.open_shards(str(copy), {})[1]["train"]
    assert [again.read(i) for i in range(23)] == [first.read(i) for i in range(23)]
    monkeypatch.undo()
    made.write_bytes(made.read_bytes()[:100])
    damaged = webdataset.open_shards(str(copy), {})[1]["train"]
    assert damaged.read(22) == first.read(22) and len(made.read_bytes()) > 100
    changed = copy / "set-train-0002.tar"
    shutil.copy(copy / "set-val-0000.tar", changed)
    assert webdataset.open_shards(str(copy), {})[1]["train"].size == 15 + 2


def test_an_index_that_cannot_be_written_is_in_the_cache(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = webdataset.open_shards(str(copy), {})[1]["train"]
    (made,) = copy.glob("set-train-*.index.npz")
    made.unlink()
    made.mkdir()
    webdataset.open_shards(str(copy), {})
    assert len(list((tmp_path / "cache").rglob("set-train-*.index.npz"))) == 1
    monkeypatch.setattr(webdataset, "_examples", None)  # must not be needed
    again = webdataset.open_shards(f"{copy}/set-train-{{0000..0002}}.tar", {})[1]["train"]
    assert [again.read(i) for i in range(23)] == [first.read(i) for i in range(23)]


def test_the_description_defines_splits_and_sizes(copy, folder):
    splits = {}
    for split, new in (("train", "a"), ("validation", "b")):
        files = sorted(copy.glob(f"set-{split[:3]}*.tar"))
        names = [f"{new}{i}.tar" for i in range(3)]
        lengths = [webdataset._places(file, {})[0].size for file in files]
        for file, name in zip(files, names):
            file.rename(copy / name)
        splits[split] = {"filenames": names, "shard_lengths": lengths, "num_samples": sum(lengths)}
    (copy / "_info.json").write_text(json.dumps({"splits": splits}))
    same(f"wds:{copy}", folder)
    splits["train"]["shard_lengths"][1] += 1
    (copy / "_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(ValueError, match=r"a1.tar holds 8 examples; 9 expected"):
        webdataset.open_shards(str(copy), {})
    (copy / "a2.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"a2.tar is missing, which info.json lists"):
        webdataset.open_shards(str(copy), {})
    (copy / "_info.json").write_text(json.dumps({"splits": {"train": {"filenames": ["a"]}}}))
    with pytest.raises(ValueError, match="has no filenames and shard_lengths"):
        webdataset.open_shards(str(copy), {})


def write(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            add(tar, name, content)
    return str(path)


def test_keys_are_selected(tmp_path, folder):
    image = examples(folder, "train")[1][0][0]
    place = write(
        tmp_path / "one.tar",
        [
            ("a/1.small.jpg", b"no"),
            ("a/1.Jpeg", image),
            ("a/1.cls", b"0"),
            ("a/1.json", b'{"kind": "cat", "label": 1}'),
            ("a/2.jpeg", image),
            ("a/2.json", b'{"kind": "dog", "label": 1}'),
            ("a/._2.jpeg", b"hidden"),
            ("readme.txt", b"hello"),
        ],
    )
    names, parts = webdataset.open_shards(place, {})
    train = parts["train"]
    assert names == ("0", "1") and [train.read(i) for i in range(2)] == [(image, 0), (image, 1)]
    names, parts = webdataset.open_shards(place, {"label": "kind"})
    assert names == ("cat", "dog") and [parts["train"].read(i)[1] for i in range(2)] == [0, 1]
    assert webdataset.open_shards(place, {"label": "CLS"})[1]["train"].read(0) == (image, 0)
    other = tmp_path / "set [1]" / "one.tar"
    other.parent.mkdir()
    other.write_bytes((tmp_path / "one.tar").read_bytes())
    assert webdataset.open_shards(other, {})[1]["train"].read(0) == (image, 0)
    source = f"wds:{place},image=small.jpg"
    assert catalog.open_parts(source)[1]["train"].read(0) == (b"no", 0)
    with pytest.raises(ValueError, match=r"one.tar has no labels \(word\)"):
        webdataset.open_shards(place, {"label": "word"})


def test_examples_without_image_or_label_are_bad_records(tmp_path):
    place = write(
        tmp_path / "one.tar",
        [
            *(("1.jpg", b"one"), ("1.cls", b"0"), ("2.jpg", b"two"), ("3.cls", b"1")),
            *(("4.png", b"four"), ("4.cls", b"1"), ("5.jpg", b"five"), ("5.cls", b"-1")),
        ],
    )
    with pytest.raises(ValueError, match="a label is -1"):
        webdataset.open_shards(place, {})
    place = write(tmp_path / "val.tar", [("1.jpg", b"x"), ("1.cls", b"5")])
    place = write(
        tmp_path / "train.tar",
        [
            *(("1.jpg", b"one"), ("1.cls", b"0"), ("2.jpg", b"two"), ("3.cls", b"1")),
            *(("4.png", b"four"), ("4.cls", b"1")),
        ],
    )
    _, parts = webdataset.open_shards(f"{tmp_path}/{{train,val}}.tar", {})
    train = parts["train"]
    assert train.size == 4 and (train.read(0), train.read(3)) == ((b"one", 0), (b"four", 1))
    with pytest.raises(BadImage, match="has no label"):
        train.read(1)
    with pytest.raises(BadImage, match="has no image"):
        train.read(2)
    assert train.name(1) == f"{place}: 2.jpg" and train.name(2) == f"{place}, example 2"
    with pytest.raises(BadImage, match="has the label 5; there are 2 classes"):
        parts["validation"].read(0)


def test_damaged_and_missing_files_are_named(copy, tmp_path):
    path = copy / "set-train-0001.tar"
    whole = path.read_bytes()
    for length in (len(whole) // 3, len(whole) // 1024 * 512):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"0001.tar is .*truncated"):
            webdataset.open_shards(str(copy), {})
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError, match=r"set-train-0001.tar is not a tar file"):
        webdataset.open_shards(str(copy), {})
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 3 files .* are missing, the first is .*1"
    ):
        webdataset.open_shards(f"{copy}/set-train-{{0000..0002}}.tar", {})
    with pytest.raises(FileNotFoundError, match="there are no files"):
        webdataset.open_shards(str(tmp_path / "x*.tar"), {})
    twice = write(tmp_path / "twice.tar", [("1.jpg", b"a"), ("1.jpg", b"b")])
    with pytest.raises(ValueError, match=r"has two files '1\.jpg'"):
        webdataset.open_shards(twice, {})
    empty = write(tmp_path / "empty.tar", [("notes.md", b"a")])
    with pytest.raises(ValueError, match=r"empty\.tar has no examples"):
        webdataset.open_shards(empty, {})
    wrong = write(tmp_path / "wrong.tar", [("1.jpg", b"a"), ("1.json", b"{")])
    with pytest.raises(ValueError, match=r"wrong.tar: the label of '/1' "):
        webdataset.open_shards(wrong, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("x{8..11}y", ["x8y", "x9y", "x10y", "x11y"]),
        ("{a,b{0..1}}-{c,}", ["a-c", "a-", "b0-c", "b0-", "b1-c", "b1-"]),
        ("{a}{", ["{a}{"]),
        ("", [""]),
    ],
)
def test_braces_expand_as_in_bash(text, expected):
    assert webdataset.expand_braces(text) == expected


@pytest.mark.parametrize("text", ["{0..99999999999}", "{0..999}{0..999}{0..9}", "{" * 51])
def test_braces_for_too_many_files(text):
    with pytest.raises(ValueError, match=r"files; at most 1,000,000|up to 50 braces"):
        webdataset.expand_braces(text)
