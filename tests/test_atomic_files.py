"""Files that are written as a whole or not at all."""

import os

import pytest

from jaxcnn import _files
from jaxcnn._checks import message
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_an_error_of_writing_names_the_file(tmp_path):
    with pytest.raises(OSError) as full:
        _files.write_output("/dev/full", "text")
    assert message(full.value) == "/dev/full: No space left on device"
    with pytest.raises(OSError) as missing:
        _files.write_text(tmp_path / "no" / "a.json", "text")
    assert message(missing.value) == f"{tmp_path}/no/a.json: No such file or directory"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a file"):
        _files.append(tmp_path / "pipe", "text")


def test_an_output_is_checked_before_the_work(tmp_path):
    assert _files.output_path(tmp_path / "a.json") == tmp_path / "a.json"
    with pytest.raises(ValueError, match="it is a directory"):
        _files.output_path(tmp_path)
    with pytest.raises(ValueError, match="there is no directory"):
        _files.output_path(tmp_path / "no" / "a.json")
