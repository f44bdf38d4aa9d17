"""Files that are written as a whole or not at all."""

import pytest

from jaxcnn._files import atomic_write, read_at, write_text


def test_a_file_that_fails_half_way_leaves_the_old_one_and_no_draft(tmp_path):
    path = tmp_path / "weights.npz"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as draft:
        draft.write_text("half")
        assert draft.suffix == ".npz" and path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new é")
    assert path.read_text("utf-8") == "new é" and list(tmp_path.iterdir()) == [path]


def test_part_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_at(tmp_path / "a", 3, 4) == b"3456" and read_at(tmp_path / "a", 8, 4) == b"89"
