"""Archives: the same set as ArrayRecord files, written in parts, checked when read."""

import io
import json
import os
import struct
import zlib

import msgpack
import numpy as np
import photos
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.data import decode, prepare
from jaxcnn.data.catalog import open_encoded, open_parts
from jaxcnn.data.decode import BadImage
from jaxcnn.data.readers import archive as archives

COUNTS = {"train": {"ant": 5, "bee": 4}, "val": {"ant": 1, "bee": 2}}
FILES = ["info.json", *(f"train.array_record-0000{i}-of-00003" for i in range(3))]
FILES += ["val.array_record-00000-of-00001"]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(archives, "SHARD_SIZE", 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", COUNTS)


def write(root, out, **options):
    return list(prepare.write_archive(f"folder:{root}", out, **options))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def archive(root, tmp_path):
    out = tmp_path / "made" / "set"
    assert [p.done for p in write(root, out)] == list(range(13))
    return out


def test_it_is_the_same_set(root, archive):
    checksums = [f"{file}.crc32" for file in FILES[1:]]
    assert sorted(contents(archive.parent / "set")) == sorted([*FILES, *checksums])
    assert [path.name for path in archive.parent.iterdir()] == ["set"]
    for split, size in (("train", 9), ("val", 3), ("test", 3), ("train[3:7]", 4)):
        there, here = (open_encoded(s, split) for s in (f"folder:{root}", f"archive:{archive}"))
        assert len(here) == size and here.class_names == ("ant", "bee")
        for i in range(size):
            assert here.read(i) == there.read(i)
            assert here.name(i) == f"{archive}: {there.name(i)}"


def test_names_that_are_not_utf8(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    root = photos.write_folder(tmp_path / "set", {"train": {"ant": 2, "bee": 1}, "val": {"bee": 1}})
    (root / "train" / "ant" / "000.jpg").rename(root / "train" / "ant" / f"{odd}.jpg")
    for part in ("train", "val"):
        (root / part / "bee").rename(root / part / odd)
    write(root, tmp_path / "odd.archive")
    a, b = (open_encoded(s, "train") for s in (f"folder:{root}", f"archive:{tmp_path}/odd.archive"))
    assert a.class_names == b.class_names == ("ant", odd)
    assert [a.read(i) for i in range(len(a))] == [b.read(i) for i in range(len(b))]
    assert any(f"{odd}.jpg" in b.name(i) for i in range(len(b)))
    with pytest.raises(ValueError, match="is not UTF-8"):
        write(root, tmp_path / odd)


def test_other_programs_can_read_it(root, archive):
    records = ArrayRecordReader(str(archive / FILES[2]))
    assert records.num_records() == 4
    there = open_encoded(f"folder:{root}", "train")
    image, label = there.read(5)
    example = msgpack.unpackb(records.read([1])[0])
    assert example == {"label": label, "name": there.name(5), "image": image}


@pytest.mark.parametrize("tear", [None, "half a file", "a lost file"])
def test_a_killed_preparation_goes_on(root, archive, tmp_path, tear):
    out = tmp_path / "set"
    running = prepare.write_archive(f"folder:{root}", out)
    assert [next(running).done for _ in range(10)] == list(range(10))
    running.close()
    draft = tmp_path / "set.draft"
    with pytest.raises(FileNotFoundError, match=r"no archive .*; it was begun: run the same"):
        open_encoded(f"archive:{out}", "train")
    if tear == "half a file":
        (draft / FILES[2]).write_bytes((draft / FILES[2]).read_bytes()[:-50])
    elif tear == "a lost file":
        (draft / FILES[1]).unlink()
    with pytest.raises(ValueError, match="was started with another side, quality; delete it"):
        write(root, out, side=32, quality=90)
    # The third file was not finished.
    assert write(root, out)[0].done == (4 if tear else 8)
    assert contents(out) == contents(archive) and not draft.exists()
    with pytest.raises(ValueError, match="already exists"):
        write(root, out)


def test_a_draft_that_cannot_be_read_is_refused(root, tmp_path):
    (tmp_path / "set.draft").mkdir()
    for content in ('{"source"', "[]", "3"):
        (tmp_path / "set.draft" / "info.json").write_text(content)
        with pytest.raises(ValueError, match=r"set\.draft was started with another .*; delete it"):
            write(root, tmp_path / "set")


def test_what_is_no_whole_archive_is_one_line(archive, tmp_path, capsys):
    def message():
        assert main(["prepare", f"archive:{archive}", str(tmp_path / "b")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("jaxcnn: error: ") and error.count("\n") == 1
        return error

    whole = contents(archive)
    for content in (b"[1]", b"{}", b'{"class_names": ["ant"]', b"\xff"):
        (archive / "info.json").write_bytes(content)
        assert f"{archive} is not an archive of `jaxcnn prepare`" in message()
    (archive / "info.json").write_bytes(whole["info.json"])
    for content in (whole[FILES[1]][:-50], b"", b"nonsense" * 20000):
        (archive / FILES[1]).write_bytes(content)
        assert f"{archive / FILES[1]} ({len(content)} bytes) is damaged" in message()
    (archive / FILES[1]).write_bytes(whole[FILES[-1]])
    assert f"{archive / FILES[1]} holds 3 examples; 4 expected" in message()
    (archive / FILES[1]).unlink()
    assert f"{archive / FILES[1]} is missing, a file of the archive {archive}" in message()


def test_a_damaged_record_is_noticed(root, archive, tmp_path):
    image, _ = open_encoded(f"folder:{root}", "train").read(2)
    path = archive / FILES[1]
    content = bytearray(path.read_bytes())
    content[content.index(image) + 300] ^= 1
    path.write_bytes(content)
    train = open_encoded(f"archive:{archive}", "train")
    with pytest.raises(BadImage, match="is damaged"):
        train.read(2)
    assert train.name(2) == f"{path}, record 2"
    assert [train.read(i)[1] for i in (0, 1, 3, 4)] == [0, 0, 0, 0]  # no other record is lost
    with pytest.raises(ValueError, match=r"-00000-of-00003, record 2 is damaged"):
        list(prepare.write_archive(f"archive:{archive}", tmp_path / "b"))


def write_old(root, path):
    """Writes the archive of earlier versions: one file, see `old_archive`."""
    names, parts = open_parts(f"folder:{root}")
    examples = [(part, i) for part in parts.values() for i in range(part.size)]
    files = [part.read(i) for part, i in examples]
    record = np.dtype([("length", "<u4"), ("crc", "<u4"), ("label", "<i4")])
    about = {"class_names": names, "parts": {name: part.size for name, part in parts.items()}}
    text = "\n".join(part.name(i) for part, i in examples)
    index = io.BytesIO()
    np.savez(
        index,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        records=np.array([(len(d), zlib.crc32(d), label) for d, label in files], record),
        names=np.frombuffer(zlib.compress(text.encode()), np.uint8),
    )
    data, content = b"jaxcnn1\n" + b"".join(d for d, _ in files), index.getvalue()
    end = struct.pack("<QQI8s", len(data), len(content), zlib.crc32(content), b"jaxcnn1\n")
    path.write_bytes(data + content + end)


def test_an_archive_of_an_earlier_version_is_converted(root, tmp_path, capsys):
    old, new = tmp_path / "old.archive", tmp_path / "new"
    write_old(root, old)
    with pytest.raises(ValueError, match=rf"convert it by `jaxcnn prepare archive:{old} NEW`"):
        open_encoded(f"archive:{old}", "train")
    assert main(["prepare", f"archive:{old}", str(new)]) == 0
    for split in ("train", "val"):
        there, here = (open_encoded(s, split) for s in (f"folder:{root}", f"archive:{new}"))
        assert here.class_names == there.class_names and len(here) == len(there)
        for i in range(len(here)):
            assert here.read(i) == there.read(i)
            assert here.name(i) == f"{new}: {old}: {there.name(i)}"


def test_a_damaged_archive_of_an_earlier_version_is_one_line(root, tmp_path, capsys):
    old = tmp_path / "old.archive"
    write_old(root, old)
    whole = old.read_bytes()
    start, length = struct.unpack("<QQ", whole[-28:-12])

    def message(content):
        old.write_bytes(content)
        assert main(["prepare", f"archive:{old}", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"jaxcnn: error: {old}") and error.count("\n") == 1
        return error

    for end in (len(whole) - 1, start, 20):
        assert f"is truncated: {end:,} bytes" in message(whole[:end])
    for place in (start + length // 2, len(whole) - 14):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        assert "is damaged: the index does not pass its check" in message(damaged)
    assert "is damaged" in message(whole[:100] + whole[101:])
    damaged = bytearray(whole)
    damaged[1000] ^= 1
    assert ".jpg is damaged (wrong checksum)" in message(damaged)
    assert "is not an archive of `jaxcnn prepare`" in message(b"PK" + whole[2:])


def test_an_image_too_large_for_jpeg_is_copied(tmp_path):
    folder = tmp_path / "set" / "train" / "ant"
    folder.mkdir(parents=True)
    wide = photos.encode(Image.new("RGB", (65_600, 2)), "PNG")
    (folder / "wide.png").write_bytes(wide)
    (bad,) = (p.bad for p in write(tmp_path / "set", tmp_path / "out", quality=60) if p.bad)
    assert bad.endswith("wide.png is 65600x2, too large for JPEG")
    (part,) = open_parts(f"archive:{tmp_path / 'out'}")[1].values()
    assert part.read(0)[0] == wide


def test_resized_and_encoded_anew(tmp_path):
    root = photos.write_folder(tmp_path / "set", {"train": {"ant": 3}}, 48, 64)
    small = photos.pixels(9, 20, 30)
    folder = root / "train" / "ant"
    (folder / "small.jpg").write_bytes(photos.jpeg(small))
    (folder / "wrong.jpg").write_bytes(b"GIF89a nonsense")
    gray = Image.fromarray(photos.pixels(10, 90, 60)).convert("L")
    (folder / "gray.jpg").write_bytes(photos.encode(gray, "PNG"))
    found = {}
    for name, options in {
        "side": {"side": 24},
        "both": {"side": 24, "quality": 60},
        "quality": {"quality": 60},
    }.items():
        out = tmp_path / name
        bad = [p.bad for p in write(root, out, **options) if p.bad]
        assert len(bad) == 1 and bad[0].startswith(f"{folder}/wrong.jpg is not an image")
        (part,) = open_parts(f"archive:{out}")[1].values()
        found[name] = {part.name(i).rpartition("/")[2]: part.read(i)[0] for i in range(part.size)}
    assert decode.image_size(found["side"]["000.jpg"]) == (24, 32)
    assert decode.image_size(found["side"]["gray.jpg"]) == (36, 24)
    assert found["side"]["small.jpg"] == (folder / "small.jpg").read_bytes()
    assert all(files["wrong.jpg"] == b"GIF89a nonsense" for files in found.values())
    assert decode.image_size(found["quality"]["000.jpg"]) == (48, 64)
    assert decode.image_size(found["both"]["small.jpg"]) == (20, 30)
    assert len(found["both"]["000.jpg"]) < len(found["side"]["000.jpg"])
    pixels = decode.decode(found["quality"]["small.jpg"]).astype(int)
    assert np.abs(pixels - small).mean() < 12
    # A resized photo is the photo: its mean colors stay.
    whole = decode.decode((folder / "000.jpg").read_bytes())
    half = decode.decode(found["side"]["000.jpg"])
    np.testing.assert_allclose(half.mean((0, 1)), whole.mean((0, 1)), atol=2)


def test_the_command(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "folder" / "set"
    assert main(["prepare", f"folder:{root}", str(out)]) == 0
    size = sum(path.stat().st_size for path in out.iterdir()) / 2**20
    assert capsys.readouterr().out == f"{out}: 12 images, {size:.1f} MiB\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments, text in {
        (f"folder:{root}",): "OUT is missing; only a TFDS dataset",
        ("tfds:cifar10", "--data-dir", str(tmp_path)): "install TensorFlow (pip install 'jaxcnn[",
        ("tfds:imagenet2012", "--data-dir", str(tmp_path)): "and download ILSVRC2012_img_train.tar "
        f"and ILSVRC2012_img_val.tar from image-net.org into {tmp_path}/downloads/manual;",
        ("tfds:imagenet2012", "--side", "3"): "--side is for an archive",
        (f"folder:{root}", str(tmp_path / "x"), "--quality", "0"): "quality is 0; it must be 1 to",
        (f"folder:{root}", str(tmp_path / "x"), "--side", "0"): "side is 0; it must be 1 or more",
        ("digits", str(tmp_path / "x")): "'digits' is not a dataset of image files",
        ("folder", str(tmp_path / "x")): "'folder' is not a dataset of image files; write folder:",
    }.items():
        assert main(["prepare", *arguments]) == 2
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_two_processes_do_not_write_one_archive(root, tmp_path, capsys):
    out = tmp_path / "set.jaxcnn"
    writing = prepare.write_archive(f"folder:{root}", out)
    next(writing)
    next(writing)
    assert main(["prepare", f"folder:{root}", str(out)]) == 2
    assert "is being written by another process" in capsys.readouterr().err
    for _ in writing:  # undisturbed
        pass
    assert open_parts(f"archive:{out}")[1]["train"].size == 9
