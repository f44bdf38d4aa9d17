"""Parquet files of the Hugging Face hub against the same images in folders, and damaged ones."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import photos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from other_formats import examples, features, table, write_parquet
from PIL import Image

from jaxcnn import _files
from jaxcnn.data import catalog
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import hub, hub_download, hub_layout, parquet_pages

NAMES = ("ant", "bee", "cow")
COUNTS = {"train": {"ant": 9, "bee": 8, "cow": 6}, "val": {"ant": 2, "bee": 2, "cow": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", COUNTS, 100, 120)


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    return write_parquet(folder, tmp_path_factory.mktemp("parquet") / "set")


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the set, to be changed."""
    return shutil.copytree(written, tmp_path / "copy")


def contents(part):
    return [part.read(i) for i in range(len(part) if hasattr(part, "start") else part.size)]


def same(source, folder, data_dir=None):
    """Checks that a source has the examples of the folder, in its order."""
    for split in ("train", "train[20%:70%]", "test"):
        a, b = catalog.open_encoded(f"folder:{folder}", split), None
        b = catalog.open_encoded(source, split, data_dir)
        assert a.class_names == b.class_names == NAMES
        assert contents(a) == contents(b)
    return True


def test_the_examples_are_those_of_the_folder(folder, written):
    assert same(f"hf:{written}", folder) and catalog.is_streamed(f"hf:{written}")
    assert same("hf:my/set", folder, data_dir=written)
    assert same("hf:set", folder, data_dir=written.parent)
    train = catalog.open_encoded(f"hf:{written}", "train")
    assert train.name(8) == f"{written}/data/train-00001-of-00003.parquet, row 1"
    again, other = (catalog.open_encoded(f"hf:{written}", s) for s in ("train", "train[1:]"))
    assert train.digest == again.digest != other.digest


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none"},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"use_dictionary": False, "write_page_checksum": True},
        {"data_page_size": 100, "use_dictionary": False},
        {"rows": 1000, "shards": 1},
        {"compression": "gzip"},
        {"compression": "lz4"},
        {"use_dictionary": False, "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
    ids=str,
)
def test_files_written_in_other_ways(folder, tmp_path, options):
    assert same(f"hf:{write_parquet(folder, tmp_path / 'set', **options)}", folder)


def test_threads_read_at_random(folder, written):
    _, expected = examples(folder, "train")
    _, parts = hub.open_hub(str(written), None, {})
    order = np.random.default_rng(0).permutation(23).tolist() * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(parts["train"].read, order))
    assert found == [expected[i][:2] for i in order]


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_little_more_than_an_image_is_read(folder, tmp_path, monkeypatch, compression):
    """Photos of a row group of 100: the first access reads it, the others only their blocks."""
    random = np.random.default_rng(0)
    files = [random.bytes(n) for n in random.integers(1, 200_000, 60)]
    rows = [(data, 0, "") for data in (*files, b"", bytes(300_000), files[0][:9] * 9000)]
    pq.write_table(table(rows, NAMES), tmp_path / "train.parquet", compression=compression)
    train = hub.open_hub(str(tmp_path), None, {})[1]["train"]
    assert train.read(3)[0] == files[3]
    asked = []

    def read_at(path, start, length):
        asked.append(length)
        return _files.read_at(path, start, length)

    monkeypatch.setattr(parquet_pages, "read_at", read_at)
    for i, (data, *_) in enumerate(rows):
        assert train.read(i)[0] == data
        assert sum(asked) <= len(data) + (2 * 65600 if compression == "snappy" else 0)
        asked.clear()


# Layouts


def test_layout_of_the_cache_of_the_hub(folder, written, tmp_path):
    root = tmp_path / "datasets--my--set"
    snapshot = root / "snapshots" / "0123abc"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0123abc")
    for file in written.rglob("*.parquet"):
        shutil.copy(file, root / "blobs" / file.stem)
        link = snapshot / file.relative_to(written)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / "blobs" / file.stem)
    assert same(f"hf:{root}", folder) and same(f"hf:{snapshot}", folder)


def test_layout_of_the_cache_of_datasets(folder, written, tmp_path):
    """Without metadata in the files; names of classes and sizes are in dataset_info.json."""
    for file in written.rglob("*.parquet"):
        plain = pq.read_table(file).replace_schema_metadata(None)
        pq.write_table(plain, tmp_path / f"set-{file.name}")
    info = {
        "features": {"label": {"_type": "ClassLabel", "names": NAMES}},
        "splits": {"train": {"name": "train", "num_examples": 23}},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert same(f"hf:{tmp_path}", folder)
    info["splits"]["train"]["num_examples"] = 24
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="'train' has 23 examples; its description says 24"):
        hub.open_hub(str(tmp_path), None, {})


CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': ant
          '1': bee
          '2': cow
  splits:
  - name: train
    num_examples: 23
configs:
- config_name: all
  data_files:
  - split: train
    path: files/a*
  - split: validation
    path: files/b*.parquet
---
# A set
"""


def test_the_readme_defines_splits_and_classes(folder, written, tmp_path):
    (tmp_path / "files").mkdir()
    for file in written.rglob("*.parquet"):
        plain = pq.read_table(file).replace_schema_metadata(None)
        name = {"t": "a", "v": "b"}[file.name[0]] + file.name.split("-")[1]
        pq.write_table(plain, tmp_path / "files" / f"{name}.parquet")
    (tmp_path / "README.md").write_text(CARD)
    assert same(f"hf:{tmp_path}", folder)
    (tmp_path / "README.md").write_text(CARD.replace("num_examples: 23", "num_examples: 22"))
    with pytest.raises(ValueError, match="'train' has 23 examples; its description says 22"):
        hub.open_hub(str(tmp_path), None, {})


@pytest.mark.parametrize(
    ("names", "config", "expected"),
    [
        (["train-00000-of-00001.parquet"], None, {"train": [0]}),
        (["data/test.parquet", "data/train.parquet"], None, {"train": [1], "test": [0]}),
        (["valid/0000.parquet", "train/0000.parquet"], None, {"train": [1], "validation": [0]}),
        (["320px/train/0000.parquet", "160px/train/0000.parquet"], "160px", {"train": [1]}),
        (["plain_text/test-00000-of-00001-ab12.parquet"], None, {"test": [0]}),
        (["default/train/1.parquet", "other/train/1.parquet"], None, {"train": [0]}),
        (["data/unlabeled-00000-of-00001.parquet", "README.md"], None, {"unlabeled": [0]}),
        (["photos.parquet"], None, {"train": [0]}),
    ],
)
def test_names_of_files_define_splits(names, config, expected):
    _, found = hub_layout.split_files(names, {}, config, "hf:x")
    assert found == {split: [names[i] for i in rows] for split, rows in expected.items()}


def test_one_of_several_configurations_is_selected():
    names = ["320px/train/0000.parquet", "160px/train/0000.parquet"]
    with pytest.raises(ValueError, match="several configurations; write hf:x/160px, hf:x/320px"):
        hub_layout.split_files(names, {}, None, "hf:x")
    with pytest.raises(ValueError, match="no configuration '320'; did you mean '320px'"):
        hub_layout.split_files(names, {}, "320", "hf:x")
    card = {"configs": [{"config_name": c, "data_files": f"{c}/*/*"} for c in ("160px", "320px")]}
    card["configs"][1]["default"] = True
    assert hub_layout.split_files(names, card, None, "hf:x") == ("320px", {"train": names[:1]})
    with pytest.raises(ValueError, match="only a part of this dataset"):
        hub_layout.split_files(["default/partial-train/0000.parquet"], {}, None, "hf:x")


# Columns


@pytest.fixture
def write(folder, tmp_path):
    """Writes columns as one file of a training split; returns the source."""

    def make(columns, metadata=None):
        (tmp_path / "one").mkdir(exist_ok=True)
        made = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(made, tmp_path / "one" / "train.parquet", row_group_size=2)
        return str(tmp_path / "one")

    return make


@pytest.fixture(scope="module")
def rows(folder):
    return examples(folder, "train")[1]


def test_columns_are_found_by_type_and_name(write, rows):
    files, labels = [data for data, *_ in rows], [label for _, label, _ in rows]
    coarse = [label // 2 for label in labels]
    columns = {"id": labels[::-1], "img": files, "coarse_label": coarse, "fine_label": labels}
    place = write(columns)
    names, parts = hub.open_hub(place, None, {})
    assert names == ("0", "1", "2") and [parts["train"].read(i)[1] for i in range(23)] == labels
    source = catalog.with_columns(f"hf:{place}", label="coarse_label")
    test = catalog.open_encoded(source, "train")
    assert test.class_names == ("0", "1") and [test.read(i)[1] for i in range(23)] == coarse
    place = write({"a": files, "word": [NAMES[label] for label in labels]})
    with pytest.raises(ValueError, match=r"no column of labels; name one with data.label=COLUMN"):
        hub.open_hub(place, None, {})
    names, parts = hub.open_hub(place, None, {"label": "word"})
    assert names == NAMES and [parts["train"].read(i)[1] for i in range(23)] == labels


def test_the_configuration_names_columns(write, rows):
    from jaxcnn.training.config import TrackedConfig, files
    from jaxcnn.training.input import sets

    place = write({"image": [data for data, *_ in rows], "kind": [label for _, label, _ in rows]})
    fields = [f"data.source=hf:{place}", "data.label=kind", "data.test_split=train[:3]"]
    config = TrackedConfig(files.read_config("lenet_digits", [*fields, "data.image_size=32"]))
    train, test, stream = sets.open_sets(config)
    assert (len(train), len(test), stream.image_size) == (23, 3, 32)
    config = TrackedConfig(files.read_config("lenet_digits", ["data.label=kind"]))
    with pytest.raises(ValueError, match=r"data.label is 'kind', but 'digits' has no columns"):
        sets.open_sets(config)


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        ({"image": [[b"x"]], "label": [0]}, {}, r"no column of images.*'image' \(list<"),
        ({"image": [[b"x"]], "label": [0]}, {"image": "image"}, r"it must be binary or a struct"),
        ({"image": [{"a": {"bytes": b"x"}}], "label": [0]}, {}, "no column of images"),
        ({"left": [b"x"], "right": [b"y"], "label": [0]}, {}, "2 columns could be the image"),
        ({"image": [b"x"], "label": [[0, 1]]}, {}, r"no column of labels.*'label' \(list<"),
        ({"image": [b"x"], "label": [0]}, {"label": "lable"}, "'lable'; did you mean 'label'"),
        ({"image": [b"x"], "label": [0.5]}, {"label": "label"}, "is double; it must be integer or"),
        ({"image": [b"x"], "label": [-5]}, {}, "a label is -5; it must be 0 to"),
        ({"image": [b"x"], "label": [10**9]}, {}, "a label is 1000000000; it must be 0 to 999,999"),
        ({"image": [b"x"], "label": [-1]}, {}, "has no labels in column 'label'"),
    ],
)
def test_columns_that_do_not_fit(write, columns, wanted, message):
    with pytest.raises(ValueError, match=message):
        hub.open_hub(write(columns), None, wanted)


def test_rows_without_image_or_label_are_bad_records(write, rows):
    images = [{"bytes": None, "path": "a.jpg"}, None, *({"bytes": r[0], "path": ""} for r in rows)]
    labels = [0, 1, None, 7, *(label for _, label, _ in rows[2:])]
    _, parts = hub.open_hub(write({"image": images, "label": labels}, features(NAMES)), None, {})
    train = parts["train"]
    assert train.size == 25
    for i, message in enumerate(["no image", "no image", "label None", "label 7; there are 3"]):
        with pytest.raises(BadImage, match=message):
            train.read(i)
    assert train.read(4) == rows[2][:2]


def test_a_split_without_labels_is_left_out(copy):
    names, _ = hub.open_hub(str(copy), None, {})
    unlabeled = table([(b"x", -1, "1.jpg")] * 3, names)
    pq.write_table(unlabeled, copy / "data" / "test-00000-of-00001.parquet")
    _, parts = hub.open_hub(str(copy), None, {})
    assert list(parts) == ["train", "validation"]


def test_a_split_without_rows_is_left_out_with_a_note(copy, capsys):
    names, _ = hub.open_hub(str(copy), None, {})
    pq.write_table(table([], names), copy / "data" / "test-00000-of-00001.parquet")
    _, parts = hub.open_hub(str(copy), None, {})
    assert list(parts) == ["train", "validation"]
    assert "the files of 'test' have no rows; it is left out" in capsys.readouterr().err


# Damage


def test_a_damaged_row_group_is_named(copy, rows):
    """Of a page whose header is damaged all rows are; rows 7 to 14 are in the second file."""
    path = copy / "data" / "train-00001-of-00003.parquet"
    column = pq.read_metadata(path).row_group(1).column(0)
    start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
    whole = bytearray(path.read_bytes())
    whole[start : start + 10] = b"\xff" * 10
    path.write_bytes(whole)
    _, parts = hub.open_hub(str(copy), None, {})
    bad = {}
    for i in range(23):
        try:
            assert parts["train"].read(i) == rows[i][:2]
        except BadImage as error:
            bad[parts["train"].name(i)] = str(error)
    assert list(bad) == [f"{path}, row {i}" for i in range(4, 8)]
    assert all("is damaged" in reason for reason in bad.values())


def test_damaged_and_missing_files_are_named(copy):
    path = copy / "data" / "train-00001-of-00003.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{path.name} is not a Parquet file, or damaged"):
        hub.open_hub(str(copy), None, {})
    path.unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 3 files of 'train' are missing, the"):
        hub.open_hub(str(copy), None, {})
    other = copy / "data" / "train-00002-of-00003.parquet"
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), path)
    with pytest.raises(ValueError, match=f"{path.name} has no column 'image.bytes'; it has"):
        hub.open_hub(str(copy), None, {})
    assert other.is_file()


def test_a_folder_that_reads_like_a_name(written, monkeypatch):
    def fetch(*place):
        raise ValueError("hf:sets/photos is not in the cache")

    monkeypatch.setattr(hub_download, "fetch", fetch)
    monkeypatch.chdir(written.parent)
    with pytest.raises(ValueError, match=r"not in the cache; for the folder set, write hf:\./set"):
        hub.open_hub("set", None, {})
    with pytest.raises(ValueError, match=r"not in the cache$"):
        hub.open_hub("other", None, {})


def test_a_folder_of_another_dataset_is_not_the_named_one(written, tmp_path, monkeypatch):
    """`data_dir` is a place for downloads that already has ImageNet."""
    other = tmp_path / "imagenet-1k" / "data"
    other.parent.mkdir()
    shutil.copytree(written, other)
    asked = []

    def fetch(name, *_):
        asked.append(name)
        raise FileNotFoundError(name)

    monkeypatch.setattr(hub_download, "fetch", fetch)
    with pytest.raises(FileNotFoundError):
        catalog.open_parts("hf:uoft-cs/cifar100", data_dir=tmp_path)
    assert asked == ["uoft-cs/cifar100"]
    for place in (tmp_path / "imagenet-1k", tmp_path):
        assert hub.find_folder("my/imagenet-1k", place) == (tmp_path / "imagenet-1k", None)


def test_places_that_there_are_not(tmp_path, written):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        catalog.open_parts(f"hf:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match="has no Parquet files"):
        catalog.open_parts(f"hf:{tmp_path}")
    with pytest.raises(ValueError, match="'train' has 23 examples; it must have 1,281,167"):
        catalog.open_parts("hf:ILSVRC/imagenet-1k", data_dir=written)


# Small images


def test_small_images_are_kept_in_memory(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 20, 16, 3), np.uint8)
    labels = random.integers(0, 3, 50)

    def write(images, labels, split):
        files = [photos.encode(Image.fromarray(image), "PNG") for image in images]
        rows = [(data, int(label), "") for data, label in zip(files, labels)]
        pq.write_table(table(rows, NAMES), tmp_path / f"{split}.parquet", row_group_size=7)

    write(images[:40], labels[:40], "train")
    write(images[40:], labels[40:], "valid")
    source = f"hf:{tmp_path}"
    assert not catalog.is_streamed(source)
    train, test = (catalog.load(source, split) for split in ("train[25%:]", "test"))
    assert train.class_names == NAMES and train.labels.dtype == np.int32
    assert np.array_equal(train.images, images[10:40]) and np.array_equal(test.images, images[40:])
    assert np.array_equal(train.labels, labels[10:40]) and np.array_equal(test.labels, labels[40:])
    np.testing.assert_allclose(train.mean, (images[:40] / 255).mean((0, 1, 2)))
    gray, mixed_folder, other = (tmp_path / name for name in ("gray", "mixed", "other"))
    for place in (gray, mixed_folder, other):
        place.mkdir()
    write(images[:5, ..., 0], labels[:5], "gray/train")
    found = catalog.load(f"hf:{gray}", "train")
    assert np.array_equal(found.images, images[:5, ..., :1])
    mixed = [images[0], images[1, ..., 0], *images[2:6]]
    write(mixed, [0] * 6, "mixed/train")
    found = catalog.load(f"hf:{mixed_folder}", "train")
    assert np.array_equal(found.images[1], np.repeat(images[1, ..., :1], 3, -1))
    assert np.array_equal(found.images[2:], images[2:6])
    write([*images[:2], images[0, :10], *images[2:6]], [0] * 7, "other/train")
    assert not catalog.is_streamed(f"hf:{other}")
    with pytest.raises(ValueError, match=r"train.parquet, row 2 is 10 x 16, RGB; the first image"):
        catalog.load(f"hf:{other}", "train")
