"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os

import numpy as np
import photos
import pytest

from jaxcnn import _files
from jaxcnn._checks import message
from jaxcnn._files import atomic_write, read_at, write_text
from jaxcnn.data import prepare
from jaxcnn.weights import files


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


def test_an_output_replaces_a_file_only_as_a_whole(tmp_path):
    """Unlike a device, which is written in place; a link to a file stays a link."""
    path, link = tmp_path / "table.json", tmp_path / "newest.json"
    path.write_text("old")
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(RuntimeError), _files.writable(name) as draft:
            draft.write_text("half")
            raise RuntimeError
        assert path.read_text() == "old"
    _files.write_output(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"table.json", "newest.json"}
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    _files.write_output(tmp_path / "pipe", "text")
    assert os.read(end, 9) == b"text"
    os.close(end)


def test_an_error_of_a_library_that_writes_is_one_of_the_system(tmp_path):
    for text, code in (
        ("I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("the header is too large", errno.EIO),
    ):
        with (
            pytest.raises(OSError) as error,
            atomic_write(tmp_path / "a.bin") as draft,
            _files.written_by(RuntimeError, draft),
        ):
            raise RuntimeError(text)
        assert error.value.errno == code
        assert message(error.value).startswith(f"{tmp_path / 'a.bin'}: ")


@contextlib.contextmanager
def limited_files(size):
    """As on a disk that is nearly full: no file of this process may grow beyond a size."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_is_named_and_the_old_one_stays(tmp_path):
    arrays = {"kernel": np.arange(4096, dtype=np.float32)}
    for name in ("a.safetensors", "a.npz"):
        files.write(tmp_path / name, {"kernel": np.zeros(2, np.float32)})
        with pytest.raises(OSError) as error, limited_files(4096):
            files.write(tmp_path / name, arrays)
        assert message(error.value) == f"{tmp_path / name}: File too large"
        assert files.read(tmp_path / name)[0]["kernel"].shape == (2,)
    photos.write_folder(tmp_path / "set", {"train": {"a": 2}, "val": {"a": 2}}, 64, 64)
    with pytest.raises(OSError) as error, limited_files(1024):
        list(prepare.write_archive(f"folder:{tmp_path / 'set'}", tmp_path / "out"))
    assert message(error.value).startswith(f"{tmp_path / 'out.draft'}")
    list(prepare.write_archive(f"folder:{tmp_path / 'set'}", tmp_path / "out"))
    lock = tmp_path / "lock"
    with pytest.raises(OSError) as error, limited_files(2):
        _files.lock(lock, "host 7")
    assert message(error.value) == f"{lock}: File too large"
    assert {p.name for p in tmp_path.iterdir()} == {"a.safetensors", "a.npz", "set", "out", "lock"}


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
