"""`jaxcnn data`: the kinds of sources, and what is found in one."""

import photos
import pyarrow.parquet as pq
import pytest
from other_formats import table

from jaxcnn.cli import main
from jaxcnn.data.catalog import with_columns
from jaxcnn.data.check import check_source
from jaxcnn.data.kinds import EXAMPLES, KINDS, split_columns

COUNTS = {"train": {"ant": 3, "bee": 2}, "val": {"ant": 1, "bee": 2}}


def test_the_command_lists_every_kind(capsys):
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{kind}:" in out for kind in (*KINDS, "files"))
    assert len(out.splitlines()) == len(EXAMPLES) + 4
    assert main(["data", "check"]) == 2
    assert "SOURCE is missing" in capsys.readouterr().err


def test_what_is_found_in_a_folder(tmp_path, capsys):
    root = photos.write_folder(tmp_path / "set", COUNTS, 16, 24)
    (root / "train" / "ant" / "000.jpg").write_bytes(photos.jpeg(photos.pixels(0, 20, 30)))
    assert main(["data", "check", f"folder:{root}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["2", "classes:", "ant,", "bee"]
    assert lines[-2][:3] == ["train", "5", "5"] and lines[-2][3:6] == ["16-20", "x", "24-30"]
    assert lines[-1][:3] == ["val", "3", "3"] and lines[-1][-1] == "0"
    (root / "train" / "bee" / "001.jpg").write_bytes(b"no image")
    assert main(["data", "check", "folder:set", "--data-dir", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert f"{root}/train/bee/001.jpg is not an image (8 bytes" in out


def test_what_is_found_in_memory():
    found = check_source("digits")
    assert found.in_memory and len(found.class_names) == 10
    assert [(s.name, s.size, s.tried) for s in found.splits] == [
        ("train", 1437, 100),
        ("test", 360, 100),
    ]
    assert set(found.splits[0].shapes) == {(32, 32)}


def test_a_wrong_label_is_unreadable(tmp_path):
    rows = [(photos.jpeg(photos.pixels(i, 16, 16)), i % 3, "") for i in range(7)]
    pq.write_table(table(rows, ("ant", "bee")), tmp_path / "train.parquet")
    found = check_source(f"hf:{tmp_path}")
    assert found.in_memory
    assert found.splits[0].unreadable == {
        f"{tmp_path}/train.parquet, row {i}": "has the label 2; there are 2 classes" for i in (2, 5)
    }


def test_columns_are_a_part_of_the_source():
    source = with_columns("wds:a,b/{0,1}.tar", "png", "cls")
    assert source == "wds:a,b/{0,1}.tar,image=png,label=cls"
    assert split_columns(source[4:]) == ("a,b/{0,1}.tar", {"image": "png", "label": "cls"})
    assert with_columns("folder:photos") == "folder:photos"
    with pytest.raises(ValueError, match=r"data.image is 'x', but 'folder:a' has no columns; sou"):
        with_columns("folder:a", "x")
