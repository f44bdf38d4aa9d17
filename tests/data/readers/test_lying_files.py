"""Files that claim what is not so: one line that names the file, and no memory for the claim."""

import gzip
import json
import shutil
import struct
import tarfile

import numpy as np
import photos
import pytest

from jaxcnn._files import read_json
from jaxcnn.data import prepare
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import annotations, archive, folders, mnist, record_index


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"[" * 100_000, b"\xff\xfe\x00", b"\0" * 50, b"1" * 5000]
)
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(path)
    one_line(error, str(path), "is not JSON")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    root = photos.write_folder(folder / "set", {"train": {"ant": 3, "bee": 2}}, 12, 16)
    list(prepare.write_archive(f"folder:{root}", folder / "archive"))
    return folder / "archive"


def with_info(whole, path, change):
    """A copy of an archive whose description is another one."""
    shutil.copytree(whole, path)
    info = json.loads((path / archive.INFO).read_text())
    (path / archive.INFO).write_text(json.dumps(change(info)))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: [info], "is not an archive"),
        (lambda info: info | {"class_names": "ab"}, "is not an archive"),
        (lambda info: info | {"class_names": [1, 2]}, "is not an archive"),
        (lambda info: info | {"shards": [5]}, "is not an archive"),
        (
            lambda info: info | {"shards": {"train": 5}},
            "no list of numbers of examples",
        ),
        (lambda info: info | {"shards": {"train": ["5"]}}, "no list of numbers of examples"),
        (lambda info: info | {"shards": {"train": [5, 5]}}, "is missing"),
    ],
)
def test_an_archive_whose_description_lies(whole, tmp_path, change, words):
    path = with_info(whole, tmp_path / "a", change)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        archive.open_archive(path)
    one_line(error, str(path), words)


def test_an_archive_whose_classes_are_fewer_than_its_labels(whole, tmp_path):
    path = with_info(whole, tmp_path / "a", lambda info: info | {"class_names": ["ant"]})
    train = open_encoded(f"archive:{path}", "train")
    assert [train.read(i)[1] for i in range(3)] == [0, 0, 0]
    with pytest.raises(BadImage, match="has the label 1; there are 1 classes"):
        train.read(3)


def idx(path, shape, content, packed=False):
    header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
    path.write_bytes(gzip.compress(header + content) if packed else header + content)
    return path


@pytest.mark.parametrize(
    ("shape", "content", "packed", "words"),
    [
        (
            (4_000_000_000, 4_000_000_000, 28),
            b"abc",
            False,
            "has 19 bytes; 448000000000000000016 expected",
        ),
        ((4_000_000_000, 4_000_000_000, 28), b"abc", True, "448000000000000000016 bytes unpacked"),
        ((2**32 - 1, 2**31, 2), b"", False, "expected"),  # a product of 2**64, modulo that 0
        ((2, 2, 2), b"abc", True, "has 19 bytes unpacked; 24 expected"),
        ((1, 2, 2), b"a" * 10_000_000, True, "has 21 or more bytes unpacked; 20 expected"),
    ],
)
def test_an_idx_file_that_claims_another_shape(tmp_path, shape, content, packed, words):
    path = idx(tmp_path / f"images{'.gz' if packed else ''}", shape, content, packed)
    with pytest.raises(ValueError) as error:
        mnist.read_idx(path, 3)
    one_line(error, str(path), words)


def test_an_idx_file_of_one_value_is_read_packed(tmp_path):
    """Zeros are packed as densely as anything can be."""
    path = idx(tmp_path / "images.gz", (1000, 28, 28), bytes(784_000), packed=True)
    assert mnist.read_idx(path, 3).shape == (1000, 28, 28)


def as_tar(root, path):
    with tarfile.open(path, "w") as tar:
        for image in sorted(root.rglob("*.jpg")):
            tar.add(image, str(image.relative_to(root)))
    return path


@pytest.mark.parametrize("damage", ["cut", "noise", "negative size", "claimed size", "gzip"])
def test_a_damaged_tar_is_named(tmp_path, damage):
    root = photos.write_folder(tmp_path / "set", {"train": {"ant": 2, "bee": 2}}, 12, 16)
    (tmp_path / "tar").mkdir()
    path = as_tar(root / "train", tmp_path / "tar" / "train.tar")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:700]  # within the first file
    elif damage == "noise":
        content[:512] = b"\xa5" * 512
    elif damage == "gzip":
        content = gzip.compress(bytes(content))
    else:
        header = tarfile.TarInfo("ant/000.jpg")
        header.size = 10**10
        block = bytearray(header.tobuf())
        if damage == "negative size":
            block[124:136] = b"\xff" + (2**88 - 512).to_bytes(11, "big")
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        content[:512] = block
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        folders.open_folder(tmp_path / "tar")
    one_line(error, str(path))


def test_an_index_of_records_that_lies_is_made_anew(tmp_path, monkeypatch):
    from tensorboardX.record_writer import RecordWriter

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "set.tfrecord"
    writer = RecordWriter(str(path))
    for text in (b"one", b"three", b"seven"):
        writer.write(text)
    writer.close()
    ((starts, lengths),) = record_index.open_index([path], "set")
    kept = tmp_path / "set.index.npz"
    with np.load(kept) as arrays:
        right = dict(arrays)
    for change in (
        {"starts": right["starts"] - 1000},
        {"starts": right["starts"] + 1000},
        {"lengths": right["lengths"] + 2**62},
        {"lengths": right["lengths"][:-1]},
        {"starts": right["starts"].astype(float)},
        {"counts": np.array([7])},
        {"counts": np.array([1, 2])},
        {"counts": np.array([])},
        {"starts": np.zeros((3, 3), np.int64)},
    ):
        np.savez(kept, **{**right, **change})
        ((s, n),) = record_index.open_index([path], "set")
        assert s.tolist() == starts.tolist() and n.tolist() == lengths.tolist(), change
        assert record_index.read_record(path, int(s[1]), int(n[1])) == b"three"


COLUMNS = "filename,width,height,xmin,ymin,xmax,ymax\n"


@pytest.mark.parametrize(
    "content",
    [
        COLUMNS.encode() + b"train/ant/1.jpg,10,10,0,0,5,\xff\n",
        (COLUMNS + "train/ant/1.jpg,inf,10,0,0,5,5\n").encode(),
        (COLUMNS + "train/ant/1.jpg,10,10,0,0,inf,5\n").encode(),
        (COLUMNS + "train/ant/1.jpg,10,10\n").encode(),
        (COLUMNS + "a" * 200_000 + ",1\n").encode(),
    ],
)
def test_boxes_that_cannot_be_are_named(tmp_path, content):
    (tmp_path / "boxes.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        annotations.find_boxes(tmp_path)
    one_line(error, str(tmp_path / "boxes.csv"))


@pytest.mark.parametrize(
    "content", [b"", b"<a>", b"<?xml version='1.0' encoding='nonsense'?><a/>", b"\xff\xfe<"]
)
def test_an_annotation_that_is_no_xml_is_named(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        annotations.read_voc(path)
    one_line(error, str(path), "is not XML")
