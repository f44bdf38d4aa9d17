"""ImageNet as Kaggle and image-net.org distribute it, and its test sets, against moved files."""

import shutil

import numpy as np
import photos
import pytest

from jaxcnn.data import catalog
from jaxcnn.data.readers import imagenet

IDS = ("n01440764", "n01443537", "n02085620")
COUNTS = {
    "train": dict(zip(IDS, (3, 2, 4))),
    "val": dict(zip(IDS, (2, 1, 3))),
}
XML = """<annotation><size><width>40</width><height>32</height></size><object><name>{}</name>
<bndbox><xmin>4</xmin><ymin>8</ymin><xmax>20</xmax><ymax>16</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The images in folders of their classes, validation images with unique names, and boxes."""
    root = photos.write_folder(tmp_path_factory.mktemp("moved") / "set", COUNTS, 32, 40)
    numbers = np.random.default_rng(0).permutation(6) + 1
    for number, file in zip(numbers, sorted(root.glob("val/*/*.jpg"))):
        file.rename(file.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    for part in COUNTS:
        for file in root.glob(f"{part}/*/*"):
            xml = root / "Annotations" / part / file.parent.name / f"{file.stem}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(XML.format(file.parent.name))
    return root


def val_labels(moved):
    """[(name, WordNet id)] of the validation images, by name."""
    files = sorted(moved.glob("val/*/*"), key=lambda file: file.name)
    return [(file.stem, file.parent.name) for file in files]


def lay_out(moved, base):
    """train/<id>/* and a flat val/*."""
    shutil.copytree(moved / "train", base / "train")
    (base / "val").mkdir()
    for file in moved.glob("val/*/*"):
        shutil.copy(file, base / "val" / file.name)


@pytest.fixture
def kaggle(moved, tmp_path):
    root = tmp_path / "kaggle"
    lay_out(moved, root / "ILSVRC" / "Data" / "CLS-LOC")
    notes = root / "ILSVRC" / "Annotations" / "CLS-LOC"
    shutil.copytree(moved / "Annotations" / "train", notes / "train")
    (notes / "val").mkdir()
    for file in (moved / "Annotations" / "val").glob("*/*"):
        shutil.copy(file, notes / "val" / file.name)
    rows = [f"{name},{wordnet_id} 4 8 20 16 " for name, wordnet_id in val_labels(moved)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows[::-1]]))
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{i} a name, another\n" for i in IDS))
    return root


@pytest.fixture
def official(moved, tmp_path):
    """The development kit numbers classes in an order of its own, and has their parents, too."""
    from scipy.io import savemat

    root = tmp_path / "official"
    lay_out(moved, root)
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    rows = [(2, IDS[0], "a", 0), (3, IDS[1], "b", 0), (1, IDS[2], "c", 0), (4, "n00001740", "d", 3)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, kinds)})
    numbers = {wordnet_id: number for number, wordnet_id, *_ in rows}
    truth = "".join(f"{numbers[wordnet_id]}\n" for _, wordnet_id in val_labels(moved))
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return root


def same(source, moved, boxes=True):
    for split in ("train", "test", "test[50%:]"):
        a, b = (catalog.open_encoded(s, split) for s in (f"folder:{moved}", source))
        assert a.class_names == b.class_names == IDS and a.digest == b.digest
        assert [a.read(i) for i in range(len(a))] == [b.read(i) for i in range(len(b))]
        assert b.has_boxes == boxes
        for i in range(len(a)) if boxes else ():
            np.testing.assert_array_equal(a.boxes(i), b.boxes(i))
            np.testing.assert_allclose(b.boxes(i)[0], [0.25, 0.1, 0.5, 0.5])
            assert not b.boxes(i)[1:].any()
    return True


def test_kaggle_s_layout_is_the_same_set(kaggle, moved):
    for place in (kaggle, kaggle / "ILSVRC", kaggle / "ILSVRC" / "Data" / "CLS-LOC"):
        assert same(f"imagenet:{place}", moved)
    test = catalog.open_encoded(f"imagenet:{kaggle}", "val")
    assert test.name(0).startswith(f"{kaggle}/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_")


def test_the_official_layout_is_the_same_set(official, moved):
    assert same(f"imagenet:{official}", moved, boxes=False)
    (official / "train").rename(official / "ILSVRC2012_img_train")
    (official / "val").rename(official / "ILSVRC2012_img_val")
    assert same(f"imagenet:{official}", moved, boxes=False)
    shutil.rmtree(official / "ILSVRC2012_img_train")
    assert catalog.open_encoded(f"imagenet:{official}", "test").class_names == IDS


def test_folders_of_classes_in_val_are_fine(moved):
    assert same(f"imagenet:{moved}", moved)


def test_files_that_a_spreadsheet_has_written(kaggle, moved):
    """They begin with a byte-order mark."""
    for name in ("LOC_val_solution.csv", "LOC_synset_mapping.txt"):
        (kaggle / name).write_text("\ufeff" + (kaggle / name).read_text("utf-8"), "utf-8")
    assert same(f"imagenet:{kaggle}", moved)


def test_classes_that_the_list_does_not_have(kaggle):
    mapping = kaggle / "LOC_synset_mapping.txt"
    mapping.write_text("".join(f"{i} a name\n" for i in IDS[1:]))
    with pytest.raises(ValueError, match=f"has the class '{IDS[0]}', not in .*LOC_synset_mapping"):
        imagenet.open_imagenet(kaggle)


def test_labels_that_are_missing_or_wrong(kaggle, official):
    solution = kaggle / "LOC_val_solution.csv"
    rows = solution.read_text().splitlines()
    solution.write_text("\n".join(rows[:-1]))
    with pytest.raises(ValueError, match=r"LOC_val_solution.csv has no label for ILSVRC2012_val_0"):
        imagenet.open_imagenet(kaggle)
    solution.write_text("\n".join(["ImageId,Label", *rows[1:]]))
    with pytest.raises(ValueError, match="has no ImageId and PredictionString in each row"):
        imagenet.open_imagenet(kaggle)
    solution.unlink()
    with pytest.raises(
        FileNotFoundError, match="val has no folders of classes, and neither LOC_val"
    ):
        imagenet.open_imagenet(kaggle)
    truth = official / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    lines = truth.read_text().split()
    truth.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="has 5 labels for 6 images"):
        imagenet.open_imagenet(official)
    truth.write_text("\n".join(["4", *lines[1:]]))
    with pytest.raises(ValueError, match=r"has a line that is not a class of meta\.mat: 4"):
        imagenet.open_imagenet(official)
    (truth.parent / "meta.mat").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"meta\.mat is not that of the development kit"):
        imagenet.open_imagenet(official)


def test_a_set_of_all_classes_has_imagenet_s_size(tmp_path):
    for name in imagenet.wordnet_ids():
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "1.JPEG").write_bytes(b"")
    with pytest.raises(ValueError, match="'val' has 1,000 examples; it must have 50,000"):
        imagenet.open_imagenet(tmp_path)


def test_folders_of_a_part_of_the_classes(moved, tmp_path):
    shutil.copytree(moved / "val", tmp_path / "imagenet-r")
    test = catalog.open_encoded(f"imagenet:{tmp_path / 'imagenet-r'}", "test")
    assert test.class_names == IDS and [test.read(i)[1] for i in range(6)] == [0, 0, 1, 2, 2, 2]
    numbered = tmp_path / "imagenetv2"
    for number, name in ((0, IDS[0]), (10, IDS[1]), (9, IDS[2])):
        shutil.copytree(moved / "val" / name, numbered / str(number))
    test = catalog.open_encoded(f"imagenet:{numbered}", "test")
    ids = imagenet.wordnet_ids()
    assert test.class_names == (ids[0], ids[9], ids[10])
    assert [test.read(i)[1] for i in range(6)] == [0, 0, 1, 1, 1, 2]
    with pytest.raises(FileNotFoundError, match=r"has no folder 'train'.*; write imagenet:PATH"):
        catalog.open_parts(f"folder:{tmp_path / 'imagenet-r'}")
    with pytest.raises(ValueError, match="not named by WordNet ids such as n01440764: it has imag"):
        imagenet.open_imagenet(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        imagenet.open_imagenet(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n01440764", "n01440764"),
        ("n01440764 tench", "n01440764"),
        ("n01440764, tench", "n01440764"),
        ("n014407645", None),
        ("tench n01440764", None),
        ("n0144076", None),
    ],
)
def test_wordnet_ids_of_names(name, expected):
    assert imagenet.wordnet_id(name) == expected
    assert len(imagenet.wordnet_ids()) == 1000 and imagenet.wordnet_ids()[0] == "n01440764"
