"""Image folders and their tar files, and what is refused before anything is read."""

import tarfile

import photos
import pytest

from jaxcnn.data.catalog import open_encoded

COUNTS = {"train": {"ant": 3, "bee": 2}, "val": {"ant": 1, "bee": 2}}


@pytest.fixture
def root(tmp_path):
    return photos.write_folder(tmp_path / "set", COUNTS, 16, 16)


def contents(dataset):
    return [dataset.read(i) for i in range(len(dataset))]


def test_examples_are_sorted_and_labelled(root):
    (root / "train" / "ant" / ".hidden.jpg").write_bytes(b"")
    (root / "train" / "ant" / "notes.txt").write_bytes(b"")
    train = open_encoded(f"folder:{root}", "train")
    assert train.class_names == ("ant", "bee") and len(train) == 5
    assert [label for _, label in contents(train)] == [0, 0, 0, 1, 1]
    assert train.read(3)[0] == (root / "train" / "bee" / "000.jpg").read_bytes()
    assert train.name(4) == f"{root}/train/bee/001.jpg"
    test = open_encoded("folder:set", "test[1:]", data_dir=root.parent)
    assert [label for _, label in contents(test)] == [1, 1]
    assert test.name(0) == f"{root}/val/bee/000.jpg"


def test_a_tar_is_the_same_set(root, tmp_path):
    other = tmp_path / "tars"
    other.mkdir()
    for part in COUNTS:
        with tarfile.open(other / f"{part}.tar", "w") as tar:
            tar.add(root / part, arcname=".")
    for split in ("train", "val"):
        a, b = (open_encoded(f"folder:{p}", split) for p in (root, other))
        assert contents(a) == contents(b) and a.class_names == b.class_names


def test_what_does_not_fit_is_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_encoded(f"folder:{tmp_path / 'none'}", "train")
    with pytest.raises(FileNotFoundError, match=r"has no folder 'train'.*; it has ant, bee"):
        open_encoded(f"folder:{root / 'train'}", "train")
    with pytest.raises(ValueError, match="unknown split 'tran'; did you mean 'train'"):
        open_encoded(f"folder:{root}", "tran")
    with pytest.raises(ValueError, match="'foldr:x' is no set of image files; did you mean"):
        open_encoded("foldr:x", "train")
    (root / "val" / "wasp").mkdir()
    with pytest.raises(ValueError, match="a class 'wasp', which 'train' does not have"):
        open_encoded(f"folder:{root}", "train")
    (root / "train" / "wasp").mkdir()
    with pytest.raises(ValueError, match="train/wasp has no images"):
        open_encoded(f"folder:{root}", "train")
