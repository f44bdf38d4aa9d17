"""Archives: the same set in one file, written in parts, checked when read."""

import struct

import numpy as np
import photos
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.data import decode, prepare
from jaxcnn.data.catalog import open_encoded, open_parts
from jaxcnn.data.decode import BadImage

COUNTS = {"train": {"ant": 5, "bee": 4}, "val": {"ant": 1, "bee": 2}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", COUNTS)


def write(root, out, **options):
    return list(prepare.write_archive(f"folder:{root}", out, **options))


@pytest.fixture(scope="module")
def archive(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("archive") / "set.archive"
    assert [p.done for p in write(root, out)] == list(range(13))
    return out


def test_it_is_the_same_set(root, archive):
    assert [p.name for p in archive.parent.iterdir()] == ["set.archive"]
    for split, size in (("train", 9), ("val", 3), ("test", 3), ("train[4:7]", 3)):
        there, here = (open_encoded(s, split) for s in (f"folder:{root}", f"archive:{archive}"))
        assert len(here) == size and here.class_names == ("ant", "bee")
        for i in range(size):
            assert here.read(i) == there.read(i)
            assert here.name(i) == f"{archive}: {there.name(i)}"


@pytest.mark.parametrize("tear", [None, "half a record", "half a file", "a wrong byte"])
def test_a_killed_preparation_goes_on(root, archive, tmp_path, tear):
    out = tmp_path / "set.archive"
    running = prepare.write_archive(f"folder:{root}", out)
    assert [next(running).done for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    running.close()
    draft, records = (tmp_path / f"set.archive{end}" for end in (".draft", ".draft.records"))
    with pytest.raises(FileNotFoundError, match=r"no archive .*; it was begun: run the same"):
        open_encoded(f"archive:{out}", "train")
    if tear == "half a record":
        records.write_bytes(records.read_bytes()[:-5])
    elif tear == "half a file":
        draft.write_bytes(draft.read_bytes()[:-50])
    elif tear == "a wrong byte":
        content = bytearray(draft.read_bytes())
        content[-50] ^= 1
        draft.write_bytes(content)
    with pytest.raises(ValueError, match="was begun with another side, quality; delete it"):
        write(root, out, side=32, quality=90)
    assert write(root, out)[0].done == (4 if tear else 5)
    assert out.read_bytes() == archive.read_bytes()
    with pytest.raises(ValueError, match="is there already"):
        write(root, out)


@pytest.mark.parametrize(
    ("change", "done"),
    [
        (lambda records: records + b"\0" * 30, 4),
        (lambda records: records[:20], 0),
        (lambda records: b"", 0),
        (lambda records: b"\0" * len(records), 0),
        (lambda records: b"[]\n" + records, 0),
    ],
)
def test_a_preparation_goes_on_after_a_power_cut(root, archive, tmp_path, change, done):
    """The list of what is done may end in zeros, or lack its first line."""
    out = tmp_path / "set.archive"
    running = prepare.write_archive(f"folder:{root}", out)
    assert [next(running).done for _ in range(5)][-1] == 4
    running.close()
    records = tmp_path / "set.archive.draft.records"
    records.write_bytes(change(records.read_bytes()))
    assert write(root, out)[0].done == done
    assert out.read_bytes() == archive.read_bytes()


def test_what_is_no_whole_archive_is_one_line(root, archive, tmp_path, capsys):
    whole = archive.read_bytes()
    start, length = struct.unpack("<QQ", whole[-28:-12])

    def message(content):
        path = tmp_path / "a.archive"
        path.write_bytes(content)
        assert main(["prepare", f"archive:{path}", str(tmp_path / "b.archive")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"jaxcnn: error: {path} is ") and error.count("\n") == 1
        return error

    assert "is no archive of `jaxcnn prepare`" in message(b"")
    assert "is no archive of `jaxcnn prepare`" in message(b"PK" + whole[2:])
    for end in (len(whole) - 1, start, 20):
        assert f"is truncated: {end:,} bytes" in message(whole[:end])
    for place in (start + length // 2, len(whole) - 14):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        assert "is damaged: the index does not pass its check" in message(damaged)
    assert "is damaged" in message(whole[:100] + whole[101:])


def test_a_damaged_record_is_noticed(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    path = tmp_path / "a.archive"
    content[1000] ^= 1
    path.write_bytes(content)
    train = open_encoded(f"archive:{path}", "train")
    with pytest.raises(BadImage, match=r"is damaged \(wrong checksum\)"):
        [train.read(i) for i in range(len(train))]
    with pytest.raises(ValueError, match=r"a.archive: .*\.jpg is damaged"):
        list(prepare.write_archive(f"archive:{path}", tmp_path / "b.archive"))


def test_resized_and_encoded_anew(tmp_path):
    root = photos.write_folder(tmp_path / "set", {"train": {"ant": 3}}, 48, 64)
    small = photos.pixels(9, 20, 30)
    folder = root / "train" / "ant"
    (folder / "small.jpg").write_bytes(photos.jpeg(small))
    (folder / "wrong.jpg").write_bytes(b"GIF89a nonsense")
    grey = Image.fromarray(photos.pixels(10, 90, 60)).convert("L")
    (folder / "grey.jpg").write_bytes(photos.encode(grey, "PNG"))
    found = {}
    for name, options in {
        "side": {"side": 24},
        "both": {"side": 24, "quality": 60},
        "quality": {"quality": 60},
    }.items():
        out = tmp_path / f"{name}.archive"
        bad = [p.bad for p in write(root, out, **options) if p.bad]
        assert len(bad) == 1 and bad[0].startswith(f"{folder}/wrong.jpg is no image")
        (part,) = open_parts(f"archive:{out}")[1].values()
        found[name] = {part.name(i).rpartition("/")[2]: part.read(i)[0] for i in range(part.size)}
    assert decode.image_size(found["side"]["000.jpg"]) == (24, 32)
    assert decode.image_size(found["side"]["grey.jpg"]) == (36, 24)
    assert found["side"]["small.jpg"] == (folder / "small.jpg").read_bytes()
    assert all(files["wrong.jpg"] == b"GIF89a nonsense" for files in found.values())
    assert decode.image_size(found["quality"]["000.jpg"]) == (48, 64)
    assert decode.image_size(found["both"]["small.jpg"]) == (20, 30)
    assert len(found["both"]["000.jpg"]) < len(found["side"]["000.jpg"])
    pixels = decode.decode(found["quality"]["small.jpg"]).astype(int)
    assert np.abs(pixels - small).mean() < 12
    # A resized photo is the photo: its mean colours stay.
    whole = decode.decode((folder / "000.jpg").read_bytes())
    half = decode.decode(found["side"]["000.jpg"])
    np.testing.assert_allclose(half.mean((0, 1)), whole.mean((0, 1)), atol=2)


def test_the_command(root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "folder" / "set.archive"
    assert main(["prepare", f"folder:{root}", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 12 images, {out.stat().st_size / 2**20:.1f} MiB\n"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments, text in {
        (f"folder:{root}",): "OUT is not given; only a set of TFDS",
        ("tfds:cifar10", "--data-dir", str(tmp_path)): "install TensorFlow (pip install 'jaxcnn[",
        ("tfds:imagenet2012", "--data-dir", str(tmp_path)): "and download ILSVRC2012_img_train.tar "
        f"and ILSVRC2012_img_val.tar from image-net.org into {tmp_path}/downloads/manual;",
        ("tfds:imagenet2012", "--side", "3"): "--side is for an archive",
        (f"folder:{root}", str(tmp_path / "x"), "--quality", "0"): "quality is 0; it must be 1 to",
        (f"folder:{root}", str(tmp_path / "x"), "--side", "0"): "side is 0; it must be 1 or more",
        ("digits", str(tmp_path / "x")): "'digits' is no set of image files",
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
