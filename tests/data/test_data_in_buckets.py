"""Data in a bucket against the same files in local folders, on a server of this machine.

The examples are the same, each file is copied once, and a damaged copy is never used.
"""

import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import photos
import pytest
from bucket_server import amazon, bucket, environment  # noqa: F401
from other_formats import write_parquet, write_tars
from tfds_sets import as_tfrecord, write

from jaxcnn import _buckets, _cache, _files
from jaxcnn.data import catalog, crops, prepare
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.loader import streaming
from jaxcnn.data.readers import archive

ROOT = Path(__file__).parents[2]
IDS = ("n01440764", "n01443537", "n02085620")
COUNTS = {"train": dict(zip(IDS, (3, 2, 4))), "val": dict(zip(IDS, (1, 1, 2)))}
PLACES = itertools.count()
# How each kind is written, if P is the directory of the set.
SOURCES = {
    "folder": "folder:P/folder",
    "imagenet": "imagenet:P/folder",
    "imagenet_flat": "imagenet:P/kaggle",
    "archive": "archive:P/archive",
    "hf": "hf:P/hf",
    "wds": "wds:P/wds",
    "wds_braces": "wds:P/wds/set-{train,val}-{0000..0002}.tar",
    "wds_pattern": "wds:P/*/set-*.tar",
}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Photos in a folder, an archive, Parquet files and tar files."""
    root = tmp_path_factory.mktemp("sets")
    folder = photos.write_folder(root / "folder", COUNTS, 32, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "SHARD_SIZE", 4)
        list(prepare.write_archive(f"folder:{folder}", root / "archive"))
    write_flat(folder, root / "kaggle")
    write_parquet(folder, root / "hf")
    write_tars(folder, root / "wds", lambda name, number: ("cls", str(number).encode()))
    return root


def write_flat(folder, root):
    """As Kaggle distributes ImageNet: validation images without folders, labels in a table."""
    base = root / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(folder / "train", base / "train")
    (base / "val").mkdir()
    rows = ["ImageId,PredictionString"]
    for file in sorted((folder / "val").glob("*/*")):
        name = f"{file.parent.name}_{file.name}"
        shutil.copy(file, base / "val" / name)
        rows.append(f"{Path(name).stem},{file.parent.name} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(rows))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The directory of copies."""
    monkeypatch.setenv("JAXCNN_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_buckets, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(_cache, "_made", set())
    _cache.use()
    return tmp_path / "cache"


@pytest.fixture
def faulty(bucket):  # noqa: F811
    """A function that lets the first downloads fail."""

    def fail(fault, times):
        left = itertools.chain([fault] * times, itertools.repeat(None))
        bucket.fault = lambda method, path: next(left) if "alt=media" in path else None

    yield fail
    bucket.fault = lambda method, path: None


def upload(folder, scheme="gs"):
    """The URL of a new copy of a folder."""
    there = _files.any_path(f"{scheme}://bucket/data{next(PLACES)}")
    for path in _files.files_below(folder):
        (there / path.relative_to(folder)).upload(path)
    return str(there)


def downloads(proxy):
    """The names of all objects that were downloaded, in order."""
    found = [r for r in proxy.requests if "alt=media" in r]
    return [re.search(r"/o/([^?]*)", r)[1].replace("%2F", "/") for r in found]


def contents(source, data_dir=None):
    """{split: (class names, examples)}."""
    names, parts = catalog.open_parts(source, data_dir)
    return {s: (names, [part.read(i) for i in range(part.size)]) for s, part in parts.items()}


def copies(folder):
    return sorted(p for p in folder.glob("??/*") if p.suffix not in (".lock", ".draft"))


@pytest.mark.parametrize("kind", SOURCES)
def test_the_examples_are_the_local_ones_and_copied_once(kind, local, bucket, cache):  # noqa: F811
    source = SOURCES[kind]
    folder = source.partition("/")[2].partition("/")[0].replace("*", "wds")
    there = upload(local / folder)
    here, away = (
        source.replace("P/*", f"{p}*").replace(f"P/{folder}", p)
        for p in (str(local / folder), there)
    )
    before = len(downloads(bucket))
    expected = contents(here)
    assert contents(away) == expected
    found = downloads(bucket)[before:]
    assert sorted(found) == sorted(set(found)) and len(found) == len(copies(cache))
    catalog._open_once.cache_clear()
    _cache.data_path(there)  # what this process knows is forgotten
    assert contents(away) == expected and len(downloads(bucket)) == before + len(found)
    one, other = (catalog.open_encoded(s, "test[1:]") for s in (here, away))
    assert one.digest == other.digest
    assert other.name(0) == one.name(0).replace(str(local / folder), there)
    assert not list(cache.rglob("*.lock")) and not list(cache.rglob("*.draft"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """{format: directory with a photo set and a set of small images, prepared by TFDS}."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    label = tfds.features.ClassLabel(names=["ant", "bee"])
    for name, shape in (("photos", (None, None, 3)), ("cifar10", (32, 32, 3))):
        image = tfds.features.Image(shape=shape, encoding_format="png")
        examples = {
            part: [{"image": io.BytesIO(png(i + seed)), "label": i % 2} for i in range(size)]
            for part, seed, size in (("train", 0, 9), ("test", 20, 4))
        }
        features = {"image": image, "label": label}
        folder = write(root / "array_record", name, features, examples, version="1.0.0")
        as_tfrecord(folder, root / "tfrecord" / name / "1.0.0")
    return {form: root / form for form in ("array_record", "tfrecord")}


def png(seed):
    from PIL import Image

    return photos.encode(Image.fromarray(photos.pixels(seed, 32, 32)), "png")


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_sets_of_tfds(form, prepared, bucket, cache):  # noqa: F811
    there = upload(prepared[form])
    expected = contents("tfds:photos", prepared[form])
    _, parts = catalog.open_parts("tfds:photos", there)
    before = len(downloads(bucket))
    if form == "array_record":  # its files need no index, and are copied one by one
        assert parts["train"].read(0) == expected["train"][1][0]
        assert len(downloads(bucket)) - before == 1
    assert contents("tfds:photos", there) == expected
    assert contents("tfds:photos", f"{there}/photos/1.0.0") == expected
    assert catalog.is_streamed("tfds:photos", there) and not catalog.is_streamed(
        "tfds:cifar10", there
    )
    for split in ("train", "test[1:]"):
        one, other = (
            catalog.load("tfds:cifar10", split, data_dir=d) for d in (prepared[form], there)
        )
        np.testing.assert_array_equal(one.images, other.images)
        assert one.digest == other.digest and one.class_names == other.class_names
    found = downloads(bucket)
    assert len(found) - len(set(found)) == 0
    with pytest.raises(FileNotFoundError, match=f"tfds:mnist is not in {there}/mnist"):
        catalog.load("tfds:mnist", "train", data_dir=there)


def test_files_of_mnist(bucket, tmp_path):  # noqa: F811
    for stem, size in (("train", 5), ("t10k", 3)):
        images = np.arange(size * 4, dtype=np.uint8)
        head = b"\0\0\x08\x03" + np.array([size, 2, 2], ">u4").tobytes()
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = b"\0\0\x08\x01" + np.array([size], ">u4").tobytes()
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(head + bytes(range(size)))
    there = upload(tmp_path)
    one, other = (catalog.load("files:mnist", "all", data_dir=d) for d in (tmp_path, there))
    np.testing.assert_array_equal(one.images, other.images)
    assert one.digest == other.digest


@pytest.mark.parametrize("fault", ["cut", "flip", "503", "lost"])
def test_a_copy_that_went_wrong_is_made_again(fault, local, faulty, cache):
    there = upload(local / "archive")
    faulty(fault, times=2)
    assert contents(f"archive:{there}") == contents(f"archive:{local / 'archive'}")
    for copy in copies(cache):
        assert copy.read_bytes() == (local / "archive" / copy.name[17:]).read_bytes()


def test_a_copy_that_stays_wrong_is_named_and_not_used(local, faulty, cache):
    there = upload(local / "archive")
    source = f"archive:{there}"
    train = catalog.open_encoded(source, "train")
    faulty("flip", times=10**6)
    shard = f"{there}/train.array_record-00000-of-00003"
    problem = f"^{shard} cannot be copied: crc32c [0-9a-f]{{8}} instead of [0-9a-f]{{8}}, in each"
    with pytest.raises(_cache.CopyError, match=problem):
        train.read(0)
    bad = BadRecords(len(train))
    batches = streaming.Training(train, 0, 4, 16, crops.training_crop("inception", 16), bad)
    with pytest.raises(_cache.CopyError, match="cannot be copied"):
        streaming.make_batch(batches, 0)
    assert not len(bad)  # it is no bad record, in whose place another one is used
    with pytest.raises(_cache.CopyError, match="cannot be copied"):
        streaming.make_batch(streaming.Evaluation(train, 4, 16, 16), 0)
    assert {copy.name[17:] for copy in copies(cache)} == {"info.json"}
    faulty(None, times=0)
    assert train.read(0) == catalog.open_encoded(f"archive:{local / 'archive'}", "train").read(0)


def test_a_file_that_is_replaced_meanwhile_is_named_and_not_used(local, bucket):  # noqa: F811
    there = upload(local / "archive")
    train = catalog.open_encoded(f"archive:{there}", "train")
    shards = [f"train.array_record-0000{i}-of-00003" for i in range(2)]
    _files.any_path(f"{there}/{shards[0]}").upload(local / "archive" / shards[1])
    with pytest.raises(_cache.CopyError, match=f"{shards[0]} was replaced while the dataset was"):
        train.read(0)
    _files.any_path(f"{there}/train.array_record-00002-of-00003").unlink()
    with pytest.raises(_cache.CopyError, match=r"00002-of-00003 cannot be copied: .*not exist"):
        train.read(8)
    with pytest.raises(FileNotFoundError, match="00002-of-00003 is missing, a file of the archive"):
        catalog.open_encoded(f"archive:{there}", "train")
    _files.any_path(f"{there}/train.array_record-00002-of-00003").upload(
        local / "archive" / "train.array_record-00002-of-00003"
    )
    again = catalog.open_encoded(f"archive:{there}", "train")
    assert again.read(0) == again.read(4)
    _files.any_path(f"{there}/{shards[0]}").upload(local / "archive" / shards[0])
    again = catalog.open_encoded(f"archive:{there}", "train")
    assert again.read(0) == catalog.open_encoded(f"archive:{local / 'archive'}", "train").read(0)


def test_the_oldest_copies_make_room(local, cache, monkeypatch, capfd):
    monkeypatch.setattr(_cache, "_IN_USE", 0.0)
    monkeypatch.setattr(_cache, "_TOUCH", 0.0)
    there = upload(local / "archive")
    sizes = {p.name: p.stat().st_size for p in (local / "archive").iterdir()}
    shards = [f"train.array_record-0000{i}-of-00003" for i in range(3)]
    limit = sizes["info.json"] + sizes[shards[0]] + max(sizes[s] for s in shards[1:])
    _cache.use(gib=limit / 2**30)
    train = catalog.open_encoded(f"archive:{there}", "train")
    expected = contents(f"archive:{local / 'archive'}")["train"][1]

    def read(i):
        time.sleep(0.01)  # the clock of the file system goes in steps
        assert train.read(i) == expected[i]
        assert sum(copy.stat().st_size for copy in copies(cache)) <= limit
        return {copy.name[17:] for copy in copies(cache)} - {"info.json"}

    assert read(0) == {shards[0]} and read(4) == set(shards[:2])
    assert read(8) == set(shards[1:])  # info.json, then the first
    assert "again and again" not in capfd.readouterr().err
    assert read(4) == set(shards[1:]) and read(0) == {shards[0], shards[1]}
    assert "note: data.cache_gib is too small for the files in use" in capfd.readouterr().err
    held = [
        os.readlink(f"/proc/self/fd/{n}")
        for n in os.listdir("/proc/self/fd")
        if n.isdigit() and os.path.islink(f"/proc/self/fd/{n}")
    ]
    assert not [name for name in held if str(cache) in name and "(deleted)" in name]
    _cache.use(gib=10 / 2**30)
    with pytest.raises(_cache.CopyError, match=r"has .* GiB, more than data.cache_gib=.* allows"):
        train.read(8)


def test_many_that_need_a_file_at_once_copy_it_once(local, bucket):  # noqa: F811
    there = _files.any_path(upload(local / "wds")) / "set-train-0000.tar"
    before, found = len(downloads(bucket)), []

    def read():
        _cache._copies.clear()  # as in another process
        found.append(_cache.CachedPath(there).read_bytes())

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(local / "wds" / "set-train-0000.tar").read_bytes()] * 6
    assert len(downloads(bucket)) - before == 1


READ = """
import sys
from jaxcnn.data import catalog
_, parts = catalog.open_parts(sys.argv[1])
print(sum(len(part.read(i)[0]) for part in parts.values() for i in range(part.size)))
"""


@pytest.mark.slow
def test_processes_share_copies_and_one_is_killed(local, bucket, cache):  # noqa: F811
    there = upload(local / "archive")
    expected = sum(
        len(d) for _, rows in contents(f"archive:{local / 'archive'}").values() for d, _ in rows
    )
    arrived = threading.Event()

    def hang(method, path):
        if "alt=media" in path and "array_record" in path and not arrived.is_set():
            arrived.set()
            return "hang"
        return None

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", READ, f"archive:{there}"],
            env={**os.environ, **environment(bucket), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    bucket.fault = hang
    first = start()
    assert arrived.wait(60)
    others = [start() for _ in range(2)]
    time.sleep(1)
    first.kill()
    first.communicate()
    bucket.hanging.set()
    bucket.fault = lambda method, path: None
    try:
        assert [p.communicate(timeout=100)[0] for p in others] == [f"{expected}\n"] * 2
    finally:
        bucket.hanging.clear()
    found = [name for name in downloads(bucket) if name.startswith(there[len("gs://bucket/") :])]
    assert len(found) == len(set(found)) + 1  # the one of the process that was killed
    assert len(copies(cache)) == len(set(found))
    assert start().communicate()[0] == f"{expected}\n"
    assert len(found) == len(
        [name for name in downloads(bucket) if name.startswith(there[len("gs://bucket/") :])]
    )


@pytest.mark.slow
def test_amazon(local, amazon, cache, monkeypatch):  # noqa: F811
    there = upload(local, "s3")
    for kind in SOURCES:
        here, away = (SOURCES[kind].replace("P/", f"{p}/") for p in (local, there))
        catalog._open_once.cache_clear()
        assert contents(away) == contents(here)
    before = len(amazon.requests)
    catalog._open_once.cache_clear()
    assert contents(f"archive:{there}/archive") == contents(f"archive:{local}/archive")
    assert not [r for r in amazon.requests[before:] if "list-type" not in r and "/archive/" in r]
    left = itertools.chain(["flip"] * 2, itertools.repeat(None))
    again = upload(local / "archive", "s3")
    amazon.fault = lambda method, path: (
        next(left) if method == "GET" and "array_record" in path else None
    )
    assert contents(f"archive:{again}") == contents(f"archive:{local / 'archive'}")
    again = upload(local / "archive", "s3")
    monkeypatch.setattr(_buckets, "PATIENCE", 0.3)  # the client itself notices, and tries again
    amazon.fault = lambda method, path: (
        "flip" if method == "GET" and "array_record" in path else None
    )
    with pytest.raises(
        _cache.CopyError, match=r"array_record-.* cannot be copied: s3://bucket has not"
    ):
        contents(f"archive:{again}")
    amazon.fault = lambda method, path: None


def test_mistakes_are_one_line(bucket, local, monkeypatch, tmp_path):  # noqa: F811
    with pytest.raises(FileNotFoundError, match="there is no folder gs://nobucket/set"):
        catalog.open_parts("folder:gs://nobucket/set")
    with pytest.raises(FileNotFoundError, match="there is no archive gs://bucket/none"):
        catalog.open_parts("archive:none", "gs://bucket")
    with pytest.raises(FileNotFoundError, match=r"are missing, the first is gs://bucket/n-1\.tar"):
        catalog.open_parts("wds:gs://bucket/n-{1..2}.tar")
    with pytest.raises(FileNotFoundError, match="hf:my/set is not in gs://bucket/none"):
        catalog.open_parts("hf:my/set", "gs://bucket/none")
    there = upload(local / "archive")
    _cache.use("gs://bucket/cache")
    with pytest.raises(ValueError, match="gs://bucket/cache is a URL; only local paths"):
        catalog.open_parts(f"archive:{there}")
    (tmp_path / "file").write_text("")
    _cache.use(str(tmp_path / "file"))
    with pytest.raises(_cache.CopyError, match=f"{there}/info.json cannot be copied: .*/file"):
        catalog.open_parts(f"archive:{there}")
    monkeypatch.setenv("JAXCNN_DATA_CACHE_GIB", "much")
    _cache.use()
    with pytest.raises(ValueError, match="JAXCNN_DATA_CACHE_GIB is 'much'; it must be a number"):
        catalog.open_parts(f"archive:{there}")
    monkeypatch.delenv("JAXCNN_DATA_CACHE")
    monkeypatch.setattr(_cache, "cache_folder", lambda: None)
    with pytest.raises(ValueError, match=r"set data\.cache=DIR or JAXCNN_DATA_CACHE"):
        catalog.open_parts(f"archive:{there}")
