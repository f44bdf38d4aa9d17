"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import photos
import pytest

from jaxcnn import _files
from jaxcnn._checks import message
from jaxcnn._files import atomic_write, read_at, write_text
from jaxcnn.data import prepare
from jaxcnn.reporting import figures
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


def failing(path):
    with pytest.raises(RuntimeError), _files.writable(path) as draft:
        draft.write_text("half")
        raise RuntimeError


def test_an_output_replaces_a_file_only_as_a_whole(tmp_path):
    """A file keeps its mode and its other names; a link stays a link."""
    path, link, second = (tmp_path / name for name in ("table.json", "newest.json", "second.json"))
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    for name in (path, link):
        failing(name)
        assert path.read_text() == "old"
    _files.write_output(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.link(path, second)
    failing(path)
    _files.write_output(path, "newer")
    assert second.read_text() == path.read_text() == "newer" and path.samefile(second)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, link.name, second.name}


def test_a_file_of_another_group_keeps_it(tmp_path):
    """Where the system lets this process give a file to a group."""
    path = tmp_path / "shared.csv"
    path.write_text("old")
    try:
        os.chown(path, -1, os.getegid() + 1234)
    except (OSError, AttributeError):
        pytest.skip("this user may not give a file to another group")
    path.chmod(0o660)
    _files.write_output(path, "new")
    facts = path.stat()
    assert (facts.st_gid, stat.S_IMODE(facts.st_mode)) == (os.getegid() + 1234, 0o660)
    assert path.read_text() == "new"
    with pytest.raises(OSError) as error, limited_files(2):
        _files.write_output(path, "longer")
    assert message(error.value) == f"{path}: File too large" and path.read_text() == "new"


def test_a_file_that_is_read_only_is_replaced_by_one(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("old")
    path.chmod(0o444)
    write_text(path, "new")
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o444


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "made").symlink_to("missing")
    _files.write_output(_files.output_path(tmp_path / "made"), "text")
    assert (tmp_path / "made").is_symlink() and (tmp_path / "missing").read_text() == "text"
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("no/file")
    for name, words in (("loop", "it is a link to itself"), ("astray", "there is no directory")):
        with pytest.raises(ValueError, match=f"{name}' cannot be written: {words}"):
            _files.output_path(tmp_path / name)


def test_a_name_as_long_as_the_system_allows(tmp_path):
    for name in ("n" * 251 + ".csv", "é" * 125 + ".csv"):
        for text in ("old", "new"):
            _files.write_output(tmp_path / name, text)
        failing(tmp_path / name)
        assert (tmp_path / name).read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_streams_receive_a_whole_file(tmp_path):
    """Also what a writer made that seeks, and a file that standard output was appended to."""
    os.mkfifo(tmp_path / "pipe.npz")
    end = os.open(tmp_path / "pipe.npz", os.O_RDONLY | os.O_NONBLOCK)
    files.write(tmp_path / "pipe.npz", {"kernel": np.arange(3, dtype=np.float32)})
    (tmp_path / "copy.npz").write_bytes(os.read(end, 1 << 16))
    os.close(end)
    assert files.read(tmp_path / "copy.npz")[0]["kernel"].tolist() == [0, 1, 2]
    log = tmp_path / "all.log"
    log.write_text("before\n")
    code = "from jaxcnn import _files; print('first'); _files.write_output('/dev/stdout', 'last')"
    with open(log, "a") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert log.read_text() == "before\nfirst\nlast"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize("suffix", [".pdf", ".png", ".svg"])
def test_a_figure_on_a_full_device_is_one_line(tmp_path, suffix):
    (tmp_path / f"full{suffix}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        figures.save(figures.make_figure(2, 2), tmp_path / f"full{suffix}")


def test_a_name_that_begins_with_a_tilde_but_names_no_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~no-such-user").write_text("x")
    assert (
        _files.any_path("~no-such-user").read_text()
        == _files.local_path("~no-such-user").read_text()
        == "x"
    )


def test_outputs_are_different_files(tmp_path):
    (tmp_path / "link.svg").symlink_to("x.svg")
    for one, other in (("x.svg", "x.svg"), ("x.svg", "link.svg")):
        with pytest.raises(ValueError, match=f"two outputs are '.*{other}'; give them different"):
            _files.check_distinct(tmp_path / "y.svg", tmp_path / one, tmp_path / other)
    for name in ("gs://b/x.svg", "~/x.svg"):
        with pytest.raises(ValueError, match="two outputs are"):
            _files.check_distinct(name, name)
    with pytest.raises(ValueError, match="two outputs are"):
        _files.check_distinct("~/x.svg", os.path.expanduser("~/x.svg"))
    _files.check_distinct(tmp_path / "x.svg", None, "/dev/null", "/dev/null", "gs://b/x.svg")


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
