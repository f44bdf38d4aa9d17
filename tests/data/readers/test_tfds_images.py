"""Photo sets that TFDS has built: ImageNet's layout in small, in both forms of files."""

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import photos
import pytest
from tfds_sets import as_tfrecord, write

from jaxcnn.data import catalog
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import record_index, tfds_images

FORMS = ("array_record", "tfrecord")
NAMES = ("n01440764", "n01443537", "n01484850")


def draw(size, seed, label=None):
    """Examples as ImageNet has them; JPEGs of various sizes."""
    rng = np.random.default_rng(seed)
    return [
        {
            "image": photos.jpeg(photos.pixels(100 * seed + i, *rng.integers(20, 60, 2))),
            "label": int(rng.integers(3)) if label is None else label,
            "file_name": f"{seed}_{i}.JPEG",
        }
        for i in range(size)
    ]


PARTS = {"train": draw(23, 1), "validation": draw(7, 2), "test": draw(3, 3, label=-1)}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """{form: folder that has a small "imagenet2012" of three shards a part}."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(NAMES)),
        "file_name": tfds.features.Text(),
    }
    files = {
        part: [example | {"image": io.BytesIO(example["image"])} for example in examples]
        for part, examples in PARTS.items()
    }
    root = tmp_path_factory.mktemp("tfds")
    folder = write(root / "array_record", "imagenet2012", features, files, version="5.1.0")
    as_tfrecord(folder, root / "tfrecord" / "imagenet2012" / folder.name)
    return {form: root / form for form in FORMS}


@pytest.fixture
def copy(roots, tmp_path):
    """Makes a copy of the set, to be damaged: its version's folder."""

    def make(form):
        shutil.copytree(roots[form] / "imagenet2012" / "5.1.0", tmp_path / form)
        return tmp_path / form

    return make


def shard(folder, part, number):
    (path,) = folder.glob(f"imagenet2012-{part}.*-0000{number}-of-00003")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_files_come_as_they_were_written(roots, form):
    names, parts = tfds_images.open_tfds_images("imagenet2012", roots[form])
    assert names == NAMES
    assert {name: part.size for name, part in parts.items()} == {"train": 23, "validation": 7}
    for name, part in parts.items():
        expected = [(e["image"], e["label"]) for e in PARTS[name]]
        assert [part.read(i) for i in range(part.size)] == expected
        with ThreadPoolExecutor(8) as pool:
            order = np.random.default_rng(0).permutation(part.size).tolist() * 4
            assert list(pool.map(part.read, order)) == [expected[i] for i in order]
    first = shard(roots[form] / "imagenet2012" / "5.1.0", "train", 1)
    numbers = [i for i in range(23) if f"{first}, record" in parts["train"].name(i)]
    assert parts["train"].name(numbers[0]) == f"{first}, record 0"
    assert catalog.is_streamed("tfds:imagenet2012", roots[form])


@pytest.mark.parametrize("form", FORMS)
def test_another_number_of_images_is_no_imagenet(roots, form):
    with pytest.raises(ValueError, match="'train' has 23 examples; it must have 1,281,167"):
        open_encoded("tfds:imagenet2012", "train", roots[form])


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_are_named(copy, form):
    folder = copy(form)
    path = shard(folder, "validation", 2)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(PARTS["validation"][5]["image"][300:340])] ^= 0x40
    path.write_bytes(damaged)
    _, parts = tfds_images.open_tfds_images("imagenet2012", folder)
    part = parts["validation"]
    bad = []
    for i in range(part.size):
        try:
            assert part.read(i)[0] == PARTS["validation"][i]["image"]
        except BadImage as error:
            bad.append(part.name(i))
            assert "is damaged" in str(error)
    # In an array_record file those that are packed with it are lost too.
    assert part.name(5) in bad and all(str(path) in name for name in bad)
    assert len(bad) == 1 or form == "array_record"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=path.name):
        _, parts = tfds_images.open_tfds_images("imagenet2012", folder)
        parts["validation"].read(6)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name} is missing: "):
        tfds_images.open_tfds_images("imagenet2012", folder)


def test_the_index_is_made_once(copy, monkeypatch, tmp_path):
    folder = copy("tfrecord")
    index = folder / "imagenet2012-train.index.npz"
    tfds_images.open_tfds_images("imagenet2012", folder)
    made = index.stat().st_mtime_ns
    monkeypatch.setattr(record_index.tfrecord, "index_records", None)  # must not be needed
    _, parts = tfds_images.open_tfds_images("imagenet2012", folder)
    assert parts["train"].read(20)[0] == PARTS["train"][20]["image"]
    assert index.stat().st_mtime_ns == made
    monkeypatch.undo()
    # A file that has changed makes it void; where it cannot be written, the cache takes it.
    a, b = (shard(folder, "train", i) for i in (0, 1))
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(one + other)
    with pytest.raises(ValueError, match=f"{a.name} holds .* expected"):
        tfds_images.open_tfds_images("imagenet2012", folder)
    a.write_bytes(one)
    os.utime(a, ns=(1, 1))
    index.unlink()
    index.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, parts = tfds_images.open_tfds_images("imagenet2012", folder)
    assert parts["train"].read(0)[0] == PARTS["train"][0]["image"]
    (kept,) = (tmp_path / "cache" / "jaxcnn").glob("imagenet2012-train-*.index.npz")
    assert not list(folder.rglob("*.draft*"))
    kept.write_bytes(kept.read_bytes()[:100])  # a broken index is made anew
    tfds_images.open_tfds_images("imagenet2012", folder)
    assert kept.stat().st_size > 100


def test_reassessed_labels(tmp_path):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=list(NAMES))
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "original_label": label,
        "real_label": tfds.features.Sequence(label),
        "file_name": tfds.features.Text(),
    }
    real = [(0,), (1, 2), (), (2, 0, 1)]
    examples = [
        {"image": io.BytesIO(e["image"]), "original_label": i % 3, "real_label": r, "file_name": ""}
        for i, (e, r) in enumerate(zip(PARTS["train"], real))
    ]
    write(tmp_path, "imagenet2012_real", features, {"validation": examples}, shards=2)
    test = open_encoded("tfds:imagenet2012_real", "test", tmp_path)
    assert [test.read(i)[1] for i in range(4)] == [0, 1, 2, 0]
    assert tfds_images.real_labels(tmp_path) == real
    with pytest.raises(ValueError, match="unknown split 'train'"):
        open_encoded("tfds:imagenet2012_real", "train", tmp_path)


def test_a_set_of_several_forms(roots, tmp_path):
    source = roots["tfrecord"] / "imagenet2012" / "5.1.0"
    shutil.copytree(source, tmp_path / "imagenette" / "160px-v2" / "1.0.0")
    assert tfds_images.open_tfds_images("imagenette", tmp_path)[0] == NAMES
    shutil.copytree(source, tmp_path / "imagenette" / "320px-v2" / "1.0.0")
    with pytest.raises(ValueError, match="is there as tfds:imagenette/160px-v2, tfds:imagenette/3"):
        tfds_images.open_tfds_images("imagenette", tmp_path)
    assert tfds_images.open_tfds_images("imagenette/320px-v2", tmp_path)[0] == NAMES
