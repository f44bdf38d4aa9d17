"""Image folders and their tar files, and what is refused before anything is read."""

import tarfile

import photos
import pytest

from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.readers.folders import list_images

COUNTS = {"train": {"ant": 3, "bee": 2}, "val": {"ant": 1, "bee": 2}}


@pytest.fixture
def root(tmp_path):
    return photos.write_folder(tmp_path / "set", COUNTS, 16, 16)


def contents(dataset):
    return [dataset.read(i) for i in range(len(dataset))]


def test_examples_are_sorted_and_labeled(root):
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


def deepen(root):
    """Puts all images but the first of each class into folders below it."""
    for folder in root.glob("*/*"):
        (folder / "more" / "images").mkdir(parents=True)
        for file in sorted(folder.glob("*.jpg"))[1:]:
            file.rename(folder / "more" / "images" / file.name)


def test_images_in_folders_below_a_class_count(root, tmp_path):
    whole = {c: (root / "train" / c / "001.jpg").read_bytes() for c in ("ant", "bee")}
    deepen(root)
    train = open_encoded(f"folder:{root}", "train")
    assert [label for _, label in contents(train)] == [0, 0, 0, 1, 1]
    assert train.read(1)[0] == whole["ant"] and train.read(4)[0] == whole["bee"]
    assert train.name(1) == f"{root}/train/ant/more/images/001.jpg"


@pytest.mark.parametrize("arcname", [".", "{part}", "./{part}", ""])
def test_a_tar_of_nested_folders_is_the_same_set(root, tmp_path, arcname):
    """Made with `tar cf train.tar -C train .`, or `tar cf train.tar train`, or class by class."""
    deepen(root)
    other = tmp_path / "tars"
    other.mkdir()
    for part in COUNTS:
        with tarfile.open(other / f"{part}.tar", "w") as tar:
            name = arcname.format(part=part)
            for source in [root / part] if name else sorted((root / part).iterdir()):
                tar.add(source, arcname=name or source.name)
    for split in ("train", "val"):
        a, b = (open_encoded(f"folder:{p}", split) for p in (root, other))
        assert contents(a) == contents(b) and a.class_names == b.class_names == ("ant", "bee")


def test_hidden_files_and_what_is_no_file_are_left_out(root, tmp_path):
    ant = root / "train" / "ant"
    (ant / "._000.jpg").write_bytes(b"\0\5\26\7")
    (ant / ".ipynb_checkpoints").mkdir()
    (ant / ".ipynb_checkpoints" / "000.jpg").write_bytes(b"copy")
    (root / "train" / ".trash").mkdir()
    (root / "train" / ".trash" / "000.jpg").write_bytes(b"deleted")
    (ant / "folder.jpg").mkdir()
    (ant / "again").symlink_to(root / "train" / "ant")
    assert list_images(ant) == ["000.jpg", "001.jpg", "002.jpg"]
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for folder in sorted((root / "train").iterdir()):
            tar.add(folder, arcname=folder.name)
    a, b = (open_encoded(f"folder:{p}", "train") for p in (root, tmp_path))
    assert contents(a) == contents(b) and len(a) == 5


def test_photos_of_other_types_are_told_and_jfif_is_jpeg(root, capsys):
    folder = root / "train" / "ant"
    for name in ("a.HEIC", "b.heic", "c.avif", ".d.heic", "notes.txt"):
        (folder / name).write_bytes(b"")
    (folder / "000.jpg").rename(folder / "000.jfif")
    train = open_encoded(f"folder:{root}", "train")
    assert len(train) == 5 and train.name(0).endswith("000.jfif")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {root}/train has files that are left out (1 .avif, 2 .heic)")


def test_a_split_may_be_named_valid(root):
    (root / "val").rename(root / "valid")
    assert len(open_encoded(f"folder:{root}", "test")) == 3


def test_links_to_images_count_in_folders_and_tars(root, tmp_path):
    ant = root / "train" / "ant"
    (ant / "hard.jpg").hardlink_to(ant / "000.jpg")
    (ant / "soft.jpg").symlink_to("link.jpg")
    (ant / "link.jpg").symlink_to("../bee/001.jpg")
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(root / "train", arcname=".")
    a, b = (open_encoded(f"folder:{p}", "train") for p in (root, tmp_path))
    assert contents(a) == contents(b) and len(a) == 8


def test_a_linked_folder_is_listed_under_its_own_name(root):
    """Whatever the order in which the file system lists them."""
    ant = root / "train" / "ant"
    (ant / "x").mkdir()
    (ant / "x" / "1.jpg").hardlink_to(ant / "000.jpg")
    for name in ("a", "y"):
        (ant / name).symlink_to("x")
    assert list_images(ant) == ["000.jpg", "001.jpg", "002.jpg", "x/1.jpg"]


def test_a_broken_link_is_not_left_out(root, tmp_path):
    ant = root / "train" / "ant"
    (ant / "gone.jpg").symlink_to("nowhere.jpg")
    (ant / "self.jpg").symlink_to("self.jpg")
    assert list_images(ant) == ["000.jpg", "001.jpg", "002.jpg", "gone.jpg", "self.jpg"]
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(root / "train", arcname=".")
    with pytest.raises(ValueError, match=r"'ant/gone.jpg' is a link to 'ant/nowhere.jpg'"):
        open_encoded(f"folder:{tmp_path}", "train")
    (root / "train" / "wasp").symlink_to("moved_away")
    with pytest.raises(ValueError, match="train/wasp is a link to something that does not exist"):
        open_encoded(f"folder:{root}", "train")


def test_a_class_that_is_named_as_the_part_stays_one(tmp_path):
    photos.write_folder(tmp_path / "set", {"train": {"train": 2}}, 16, 16)
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(tmp_path / "set" / "train" / "train", arcname="train")
    for place in (tmp_path / "set", tmp_path):
        assert open_encoded(f"folder:{place}", "train").class_names == ("train",)


def test_what_does_not_fit_is_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_encoded(f"folder:{tmp_path / 'none'}", "train")
    with pytest.raises(FileNotFoundError, match=r"has no folder 'train'.*; it has ant, bee"):
        open_encoded(f"folder:{root / 'train'}", "train")
    with pytest.raises(ValueError, match="unknown split 'tran'; did you mean 'train'"):
        open_encoded(f"folder:{root}", "tran")
    with pytest.raises(ValueError, match="no module 'foldr'; did you mean 'folder'"):
        open_encoded("foldr:x", "train")
    (root / "val" / "wasp").mkdir()
    with pytest.raises(ValueError, match="a class 'wasp', which 'train' does not have"):
        open_encoded(f"folder:{root}", "train")
    (root / "train" / "wasp").mkdir()
    with pytest.raises(ValueError, match="train/wasp has no images"):
        open_encoded(f"folder:{root}", "train")
