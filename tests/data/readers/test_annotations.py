"""Boxes of image folders and of TFDS's sets, and of photos on their way to the network."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import crops, prepare
from jaxcnn.data.bad_records import BadRecords
from jaxcnn.data.catalog import open_encoded
from jaxcnn.data.loader import streaming
from tests.data import tfds_sets

XML = """<annotation><size><width>60</width><height>40</height><depth>3</depth></size>{}
</annotation>"""
OBJECT = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def photo(box):
    """40x60 photo, bright in the box (left, top, right, bottom)."""
    image = np.zeros((40, 60, 3), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 255
    return image


@pytest.fixture
def folder(tmp_path):
    """A folder of photos `train|val/ant|bee/0.png`, each with one bright box."""
    own = {"ant": (12, 10, 36, 30), "bee": (20, 8, 50, 36)}
    for part in ("train", "val"):
        for name, box in own.items():
            path = tmp_path / part / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(photo(box)).save(path)
    return tmp_path, own


def shares(left, top, right, bottom):
    return np.array([top / 40, left / 60, bottom / 40, right / 60], np.float32)


def annotate(root, own):
    """As ILSVRC has them: by class in training, flat in validation; and another class's object."""
    for name, box in own.items():
        small = (*box[:2], box[0] + 2, box[1] + 2)
        text = XML.format("".join([OBJECT.format(name, *small), OBJECT.format(name, *box)]))
        other = XML.format(OBJECT.format("elk", 0, 0, 60, 40) + OBJECT.format(name, *box))
        for path, content in (
            (root / "Annotations" / "train" / name / "0.xml", text),
            (root / "Annotations" / "val" / name / "0.xml", other),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


def test_pascal_annotations(folder):
    root, own = folder
    annotate(root, own)
    train, val = (open_encoded(f"folder:{root}", part) for part in ("train", "test"))
    for i, name in enumerate(train.class_names):
        left, top, _, _ = own[name]
        small = shares(left, top, left + 2, top + 2)
        np.testing.assert_allclose(train.boxes(i)[:2], [shares(*own[name]), small], atol=1e-6)
        np.testing.assert_allclose(val.boxes(i)[:2], [shares(*own[name]), [0] * 4], atol=1e-6)
    flat = root / "Annotations" / "val" / "0.xml"
    (root / "Annotations" / "val" / "ant" / "0.xml").rename(flat)
    np.testing.assert_allclose(val.boxes(0)[0], shares(*own["ant"]), atol=1e-6)
    flat.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"0\.xml is not XML"):
        val.boxes(0)
    flat.write_text(XML.format(OBJECT.format("ant", 9, 9, 9, 20)))
    with pytest.raises(ValueError, match=r"0\.xml: box .* has no area"):
        val.boxes(0)


def test_table_of_boxes(folder):
    root, own = folder
    table = root / "boxes.csv"
    rows = [
        f"{part}/{name}/0.png,60,40,{','.join(map(str, box))}"
        for part in ("train", "val")
        for name, box in own.items()
    ]
    header = "filename,width,height,xmin,ymin,xmax,ymax\n"
    table.write_text(header + "\n".join(rows) + "\n")
    found = open_encoded(f"folder:{root}", "train[1:]")
    np.testing.assert_allclose(found.boxes(0)[0], shares(*own["bee"]), atol=1e-6)
    table.write_text(header.replace("xmax,", "") + rows[0])
    with pytest.raises(ValueError, match="has no column xmax"):
        open_encoded(f"folder:{root}", "train")
    table.write_text(header + rows[0].replace("60,40", "60,"))
    with pytest.raises(ValueError, match="line 2: a box has no number"):
        open_encoded(f"folder:{root}", "train")


def test_photos_arrive_with_their_boxes(folder):
    root, own = folder
    annotate(root, own)
    dataset = open_encoded(f"folder:{root}", "train")
    crop = crops.training_crop("inception", 32)
    training = streaming.Training(dataset, 0, 8, 32, crop, BadRecords(2))
    batch = streaming.make_batch(training, 0)
    assert batch["box"].shape == (8, 64, 4)
    seen = 0
    for image, box in zip(batch["image"], batch["box"][:, 0]):
        rows, columns = (np.flatnonzero((image[..., 0] > 127).any(axis)) for axis in (1, 0))
        if len(rows) and len(columns):
            bright = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / 32
            np.testing.assert_allclose(box.clip(0, 1), bright, atol=0.05)
            seen += 1
    assert seen >= 6
    bare = streaming.make_batch(
        streaming.Training(dataset.without_boxes(), 0, 8, 32, crop, BadRecords(2)), 0
    )
    assert "box" not in bare
    np.testing.assert_array_equal(bare["image"], batch["image"])


def test_an_evaluation_needs_every_box(folder):
    root, own = folder
    annotate(root, own)
    (root / "Annotations" / "val" / "bee" / "0.xml").unlink()
    evaluation = streaming.Evaluation(open_encoded(f"folder:{root}", "test"), 2, 32, 36)
    with pytest.raises(ValueError, match=r"0\.png has no box"):
        streaming.make_batch(evaluation, 0)
    annotate(root, own)
    batch = streaming.make_batch(evaluation, 0)
    wide = 36 * 60 // 40  # the width of the resized photo, of which the center 32 is seen
    left, top, right, bottom = own["bee"]
    lies = [top * 36 / 40 - 2, left * wide / 60 - 11, bottom * 36 / 40 - 2, right * wide / 60 - 11]
    np.testing.assert_allclose(batch["box"][1, 0] * 32, lies, atol=1e-4)


def test_tfds_objects(tmp_path):
    import tensorflow_datasets as tfds

    names = ["ant", "bee"]
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "objects": tfds.features.Sequence(
            {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=names)}
        ),
    }
    objects = [
        (tfds.features.BBox(0.25, 0.25, 0.5, 0.5), "ant"),
        (tfds.features.BBox(0.0, 0.25, 0.75, 1.0), "bee"),
        (tfds.features.BBox(0.0, 0.0, 0.125, 0.25), "bee"),
    ]
    example = {
        "image": tfds_sets.png(photo((0, 0, 8, 8))),
        "objects": [{"bbox": box, "label": name} for box, name in objects],
    }
    tfds_sets.write(tmp_path, "insects", features, {"train": [example]}, shards=1)
    found = open_encoded("tfds:insects", "train", tmp_path)
    assert found.class_names == ("ant", "bee")
    assert found.read(0)[1] == 1
    np.testing.assert_allclose(found.boxes(0)[:2], [[0, 0.25, 0.75, 1], [0, 0, 0.125, 0.25]])
    assert not found.boxes(0)[2:].any()


@pytest.mark.parametrize("kind", ["xml", "csv"])
def test_images_of_one_name_below_a_class_have_boxes_of_their_own(tmp_path, kind):
    own = {"left": (2, 4, 20, 30), "right": (30, 10, 58, 38)}
    rows = ["filename,width,height,xmin,ymin,xmax,ymax"]
    for place, box in own.items():
        image = tmp_path / "train" / "ant" / place / "0.png"
        note = tmp_path / "Annotations" / "train" / "ant" / place / "0.xml"
        image.parent.mkdir(parents=True)
        Image.fromarray(photo(box)).save(image)
        rows.append(f"train/ant/{place}/0.png,60,40,{','.join(map(str, box))}")
        if kind == "xml":
            note.parent.mkdir(parents=True)
            note.write_text(XML.format(OBJECT.format("ant", *box)))
    if kind == "csv":
        (tmp_path / "boxes.csv").write_text("\n".join(rows))
    train = open_encoded(f"folder:{tmp_path}", "train")
    for i, box in enumerate(own.values()):
        np.testing.assert_allclose(train.boxes(i)[0], shares(*box))


def test_a_damaged_annotation_is_a_bad_record(folder, tmp_path):
    """Training goes on with another example, as it does for a damaged image."""
    root, own = folder
    annotate(root, own)
    path = root / "Annotations" / "train" / "bee" / "0.xml"
    path.write_text(XML.format(OBJECT.format("bee", 20, 8, 20, 36)))
    dataset = open_encoded(f"folder:{root}", "train")
    bad = BadRecords(2, tmp_path / "bad.jsonl")
    crop = crops.training_crop("inception", 32)
    batch = streaming.make_batch(streaming.Training(dataset, 0, 8, 32, crop, bad), 0)
    assert batch["label"].tolist() == [0] * 8
    assert "0.png" in (tmp_path / "bad.jsonl").read_text()


def test_boxes_are_read_again_after_a_failure(folder):
    root, own = folder
    annotate(root, own)
    part = open_encoded(f"folder:{root}", "test")
    failures = [OSError(5, "Input/output error")]

    def boxes_of(index):
        if failures:
            raise failures.pop()
        return part.part.boxes(index)

    flaky = dataclasses.replace(part, part=dataclasses.replace(part.part, boxes=boxes_of))
    batches = [streaming.make_batch(streaming.Evaluation(p, 2, 32, 36), 0) for p in (flaky, part)]
    assert not failures
    np.testing.assert_array_equal(*(batch["box"] for batch in batches))


def test_an_archive_says_that_it_has_no_boxes(folder, tmp_path, capsys):
    root, own = folder
    annotate(root, own)
    list(prepare.write_archive(f"folder:{root}", tmp_path / "archive"))
    assert "has bounding boxes, which an archive does not keep" in capsys.readouterr().err


def test_a_table_with_a_byte_order_mark(folder):
    root, _ = folder
    header = "filename,width,height,xmin,ymin,xmax,ymax"
    (root / "boxes.csv").write_text(f"{header}\ntrain/ant/0.png,60,40,12,10,36,30\n", "utf-8-sig")
    boxes_of = open_encoded(f"folder:{root}", "train").boxes
    np.testing.assert_allclose(boxes_of(0)[0], shares(12, 10, 36, 30))
