"""Sets that TFDS has built, in both forms of files, without TensorFlow."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tfds_sets import NAMES, as_parquet, as_tfrecord, build, draw

from jaxcnn.data import catalog
from jaxcnn.data.readers import tfds, tfds_images

FORMS = ("array_record", "tfrecord")
PARTS = {"train": draw(41, 3, 0), "test": draw(13, 3, 1), "extra": draw(4, 3, 2)}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """{form: folder that has the set "cifar10" of three shards a split}."""
    root = tmp_path_factory.mktemp("tfds")
    folder = build(root / "array_record", "cifar10", PARTS)
    as_tfrecord(folder, root / "tfrecord" / "cifar10" / folder.name)
    return {form: root / form for form in FORMS}


@pytest.fixture
def broken(roots, tmp_path):
    """Makes a copy of the set to be damaged: its version's folder."""

    def copy(form):
        shutil.copytree(roots[form], tmp_path / form)
        return tmp_path / form / "cifar10" / "3.0.1"

    return copy


def shard(folder, part, number):
    (path,) = folder.glob(f"cifar10-{part}.*-0000{number}-of-00003")
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", PARTS)
def test_what_was_written_is_read(roots, form, part):
    dataset = catalog.load("tfds:cifar10", part, data_dir=roots[form])
    images, labels = PARTS[part]
    assert np.array_equal(dataset.images, images) and dataset.images.dtype == np.uint8
    assert np.array_equal(dataset.labels, labels) and dataset.labels.dtype == np.int32
    assert dataset.class_names == NAMES and dataset.num_classes == 5
    assert dataset.mean == (0.4914, 0.4822, 0.4465)


def test_parquet_files_are_read(roots, tmp_path):
    folder = as_parquet(roots["array_record"] / "cifar10" / "3.0.1", tmp_path / "cifar10" / "3.0.1")
    dataset = catalog.load("tfds:cifar10", "train[10:30]", data_dir=tmp_path)
    assert np.array_equal(dataset.images, PARTS["train"][0][10:30])
    assert np.array_equal(dataset.labels, PARTS["train"][1][10:30])
    _, parts = tfds_images.open_tfds_images("cifar10", tmp_path)
    same = tfds_images.open_tfds_images("cifar10", roots["array_record"])[1]
    assert all(parts["train"].read(i) == same["train"].read(i) for i in range(41))
    path = shard(folder, "train", 1)
    shutil.copy(shard(folder, "extra", 1), path)
    with pytest.raises(ValueError, match=f"{path.name} holds . examples; 1. expected"):
        catalog.load("tfds:cifar10", "train", data_dir=tmp_path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("split", "start", "stop"),
    [
        ("train[10:30]", 10, 30),
        ("train[39:]", 39, 41),
        ("train[:1]", 0, 1),
        ("train[13:14]", 13, 14),
    ],
)
def test_slices_reach_over_shards(roots, form, split, start, stop):
    dataset = catalog.load("tfds:cifar10", split, data_dir=roots[form])
    assert np.array_equal(dataset.images, PARTS["train"][0][start:stop])
    assert np.array_equal(dataset.labels, PARTS["train"][1][start:stop])


def test_all_is_train_and_test(roots):
    dataset = catalog.load("tfds:cifar10", "all", data_dir=roots["tfrecord"])
    both = [np.concatenate([PARTS[p][i] for p in ("train", "test")]) for i in (0, 1)]
    assert np.array_equal(dataset.images, both[0]) and np.array_equal(dataset.labels, both[1])


def test_a_version_folder_the_newest_version_and_the_environment(roots, tmp_path, monkeypatch):
    folder = roots["tfrecord"] / "cifar10" / "3.0.1"
    source = tfds.open_tfds("cifar10", folder)
    assert source.sizes == {"train": 41, "test": 13, "extra": 4}
    for version in ("3.0.1", "10.0.0", "9.0.0"):
        shutil.copytree(folder, tmp_path / "cifar10" / version)
    (tmp_path / "cifar10" / "99.0.0.incomplete").mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds.find_folder("cifar10").name == "10.0.0"
    assert tfds.open_tfds("cifar10").sizes == source.sizes


def test_statistics_are_computed_where_none_are_known(tmp_path):
    """A set of one channel, of a name without published statistics."""
    parts = {"train": draw(9, 1, 3), "test": draw(5, 1, 4)}
    build(tmp_path, "letters", parts, shards=1)
    test = catalog.load("tfds:letters", "test", data_dir=tmp_path)
    assert np.array_equal(test.images, parts["test"][0])
    pixels = parts["train"][0] / 255
    np.testing.assert_allclose((test.mean[0], test.std[0]), (pixels.mean(), pixels.std()))
    with pytest.raises(ValueError, match="unknown split 'extra'"):
        catalog.load("tfds:letters", "extra", data_dir=tmp_path)


def test_svhn_is_a_small_set(tmp_path):
    """Labels without names, a part besides train and test, statistics of the training split."""
    build(tmp_path, "svhn_cropped", PARTS, names=None, shards=1)
    assert "tfds:svhn_cropped" in catalog.SOURCES
    assert not catalog.is_streamed("tfds:svhn_cropped", tmp_path)
    extra = catalog.load("tfds:svhn_cropped", "extra", data_dir=tmp_path)
    assert np.array_equal(extra.images, PARTS["extra"][0]) and len(extra) == 4
    assert extra.class_names == ("0", "1", "2", "3", "4")
    np.testing.assert_allclose(extra.mean, PARTS["train"][0].reshape(-1, 3).mean(0) / 255)


def test_a_set_that_is_not_there_says_where_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        catalog.load("tfds:cifar10", "train", data_dir=tmp_path)
    text = str(caught.value)
    assert f"tfds:cifar10 is not in {tmp_path / 'cifar10'};" in text and "\n" not in text
    assert "jaxcnn[build]" in text and f"jaxcnn prepare tfds:cifar10 --data-dir {tmp_path};" in text
    assert "files:cifar10" in text
    with pytest.raises(FileNotFoundError, match="did you mean 'mnist'"):
        catalog.load("tfds:mnits", "train", data_dir=tmp_path)


def test_an_install_without_tfds_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for source in (catalog.open_source, catalog.open_parts):
        with pytest.raises(ValueError, match=r"is not installed: pip install 'jaxcnn\[tfds\]'$"):
            source("tfds:cifar10")


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_shard_is_named(broken, form):
    folder = broken(form)
    path = shard(folder, "train", 1)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name} is missing"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)
    assert len(catalog.load("tfds:cifar10", "train[:13]", data_dir=folder)) == 13


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_shard_is_named(broken, form, keep):
    folder = broken(form)
    path = shard(folder, "test", 2)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=path.name):
        catalog.load("tfds:cifar10", "test", data_dir=folder)


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_byte_is_noticed(broken, form):
    folder = broken(form)
    path = shard(folder, "train", 0)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name}.*damaged"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)


def test_a_shard_with_a_record_less_is_named(broken):
    """Whole records are missing at the end: only the count tells."""
    folder = broken("tfrecord")
    path = shard(folder, "train", 0)
    records = tfds.tfrecord.index_records(path)
    end = records.starts[-1] - 12
    path.write_bytes(path.read_bytes()[:end])
    wanted = len(records)
    with pytest.raises(ValueError, match=f"{path.name} holds {wanted - 1} .*; {wanted} expected"):
        catalog.load("tfds:cifar10", "train[:2]", data_dir=folder)


def test_other_formats_and_features_are_refused(broken, tmp_path):
    folder = broken("tfrecord")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(ValueError, match="holds riegeli files; array_record, tfrecord, parq"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)
    build(tmp_path, "photos", {"train": draw(3, 3, 5)}, shape=(None, None, 3), shards=1)
    with pytest.raises(ValueError, match=r"photos has images uint8\[None, None, 3\]; only"):
        catalog.load("tfds:photos", "train", data_dir=tmp_path)
    text = info.with_name("features.json").read_text().replace('"image": {\n', '"picture": {\n', 1)
    info.with_name("features.json").write_text(text)
    info.write_text(info.read_text().replace('"riegeli"', '"tfrecord"'))
    with pytest.raises(ValueError, match=r"has no feature 'image'; it has .*'picture'"):
        catalog.load("tfds:cifar10", "train", data_dir=folder)


def test_a_set_in_both_forms_is_read(broken, roots):
    """Main form TFRecord, array_record as alternative: the latter is preferred."""
    folder = broken("tfrecord")
    for path in (roots["array_record"] / "cifar10" / "3.0.1").glob("*.array_record-*"):
        shutil.copy(path, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["alternativeFileFormats"] = ["array_record"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for path in folder.glob("*.tfrecord-*"):
        path.unlink()
    dataset = catalog.load("tfds:cifar10", "test", data_dir=folder)
    assert np.array_equal(dataset.images, PARTS["test"][0])


def test_tensorflow_is_not_imported(roots):
    code = (
        "import sys\nfrom jaxcnn.data import catalog\n"
        "for root in sys.argv[1:]:\n"
        "    catalog.load('tfds:cifar10', 'train', data_dir=root)\n"
        "assert 'tensorflow_datasets' in sys.modules\n"
        "print('tensorflow' in sys.modules)\n"
    )
    out = subprocess.run(
        [sys.executable, "-W", "error:::jaxcnn", "-c", code, *map(str, roots.values())],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert out.stdout == "False\n"


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        ('"tensorflow_datasets.core.features.image_feature.Image"', '"evilmod.Evil"'),
        (
            '"tensorflow_datasets.core.features.class_label_feature.ClassLabel"',
            '"evilmod.sub.Evil"',
        ),
        (
            '"tensorflow_datasets.core.features.features_dict.FeaturesDict"',
            '"tensorflow_datasets_evilmod.Evil"',
        ),
        ('"image": {', '"image": {"jsonFeature": {"json": "{\\"type\\": \\"evilmod.Evil\\"}"},'),
        ('"image": {', '"image": {"type": "evilmod.Evil",'),
    ],
)
@pytest.mark.parametrize("opened", [tfds.open_tfds, tfds_images.open_tfds_images])
def test_no_class_but_tfds_own_is_imported(broken, tmp_path, monkeypatch, own, changed, opened):
    folder = broken("array_record")
    for name in ("evilmod", "tensorflow_datasets_evilmod"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    text = (folder / "features.json").read_text()
    assert own in text
    (folder / "features.json").write_text(text.replace(own, changed))
    with pytest.raises(ValueError, match=r"features\.json names '.*evilmod.*'"):
        opened("cifar10", folder.parents[1])
    assert not (tmp_path / "ran").exists()
