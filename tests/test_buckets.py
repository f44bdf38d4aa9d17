"""Files in buckets behave like local ones, also when the server has a bad day.

The server is a real one on this machine, behind a proxy that makes the faults.
"""

import contextlib
import functools
import http.server
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from bucket_server import amazon, bucket  # noqa: F401

from jaxcnn import _buckets, _cache, _files, _lease
from jaxcnn._files import any_path

ROOT = Path(__file__).parents[1]
SLOW = pytest.mark.slow
PLACES = itertools.count()


@pytest.fixture
def place(bucket):  # noqa: F811
    """An unused folder in the bucket."""
    return any_path(f"gs://bucket/place{next(PLACES)}")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(_buckets, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(_buckets, "_LONGEST_WAIT", 0.1)


@pytest.fixture
def faulty(bucket):  # noqa: F811
    """A function that lets the first requests of a kind fail."""

    def fail(fault, times=3, method=""):
        left = itertools.chain([fault] * times, itertools.repeat(None))
        bucket.fault = lambda m, path: next(left) if m.startswith(method) else None

    yield fail
    bucket.fault = lambda method, path: None


@pytest.mark.parametrize("kind", ["local", "gs"])
def test_a_folder_in_a_bucket_is_like_a_local_one(kind, place, tmp_path):
    check_folder(place if kind == "gs" else tmp_path)


def check_folder(root):
    bits = bytes(range(256)) * 5000 + b"\r\n--==0\r."
    assert not (root / "a").exists() and _files.files_below(root / "a") == []
    for name in ("a/b/one.txt", "a/two.txt", "a/member_0/config.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        _files.write_text(root / name, "täxt\n")
    (root / "bits").write_bytes(bits)
    assert (root / "bits").read_bytes() == bits and (root / "bits").stat().st_size == len(bits)
    assert abs((root / "bits").stat().st_mtime - time.time()) < 60
    assert _files.read_at(root / "bits", 254, 4) == bits[254:258]
    assert _files.read_at(root / "bits", len(bits) - 2, 10) == bits[-2:]
    assert (root / "a").is_dir() and not (root / "a").is_file()
    assert (root / "bits").is_file() and not (root / "bits").is_dir()
    assert {p.name for p in (root / "a").iterdir()} == {"b", "two.txt", "member_0"}
    below = [p.relative_to(root).as_posix() for p in _files.files_below(root / "a")]
    assert below == ["a/b/one.txt", "a/member_0/config.json", "a/two.txt"]
    assert list((root / "a").glob("member_*/config.json")) == [root / "a/member_0/config.json"]
    _files.append(root / "a/rows", '{"x": 1}\n')
    _files.append(root / "a/rows", '{"x": 2}\n{"x"')
    assert _files.read_json_lines(root / "a/rows") == [{"x": 1}, {"x": 2}]
    with contextlib.suppress(RuntimeError), _files.atomic_write(root / "bits") as draft:
        draft.write_bytes(b"half")
        raise RuntimeError
    assert (root / "bits").read_bytes() == bits
    with _files.atomic_write(root / "bits") as draft:
        draft.write_bytes(b"whole")
    with _files.readable(root / "bits") as local:
        assert local.read_bytes() == b"whole" and local.name == "bits"
    _files.move_folder(root / "a/b", root / "moved/b")
    assert (root / "moved/b/one.txt").read_text("utf-8") == "täxt\n"
    assert not (root / "a/b").exists()
    _files.delete_folder(root / "a")
    assert not (root / "a").exists()
    (root / "a").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "a").read_bytes()


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(place):
    other = hold(place / ".lock")
    with pytest.raises(_files.InUse, match=r"^host 7$"):
        _files.lock(place / ".lock", "host 8")
    other.kill()
    other.communicate()
    _files.lock(place / ".lock", "host 8").close()


@pytest.mark.slow
def test_amazon(amazon, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setattr(_buckets, "_FIRST_WAIT", 0.01)
    check_folder(any_path("s3://bucket/folder"))
    place = any_path("s3://bucket/place")
    assert (place / "x").create(b"mine") and not (place / "x").create(b"other")
    for fault in ("503", "429", "away", "cut", "lost"):
        left = itertools.chain([fault] * 6, itertools.repeat(None))
        amazon.fault = lambda method, path, left=left: next(left)
        (place / "y").write_bytes(b"bits" * 1000)
        left = itertools.chain([fault] * 6, itertools.repeat(None))
        amazon.fault = lambda method, path, left=left: next(left)
        assert (place / "y").read_bytes() == b"bits" * 1000
        amazon.fault = lambda method, path: None
        assert "note: s3://bucket does not answer (" in capfd.readouterr().err, fault
    other = hold(place / ".lock")
    with pytest.raises(_files.InUse, match=r"^host 7$"):
        _files.lock(place / ".lock", "host 8")
    other.kill()
    other.communicate()
    _files.lock(place / ".lock", "host 8").close()
    amazon.fault = lambda method, path: "403"
    with pytest.raises(PermissionError, match=r"no permission to access s3://.*s3:ListBucket"):
        (place / "x").read_bytes()
    amazon.fault = lambda method, path: None
    with pytest.raises(
        FileNotFoundError, match=r"the bucket s3://other does not exist; .*aws s3 mb"
    ):
        any_path("s3://other/x").write_text("x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _buckets._open_store.cache_clear()
    with pytest.raises(PermissionError, match=r"no credentials for s3://.*aws configure"):
        place.exists()
    _buckets._open_store.cache_clear()


def test_files_are_read_from_a_web_server(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "a b.bin").write_bytes(bytes(range(256)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = any_path(f"http://127.0.0.1:{server.server_address[1]}/a b.bin")
        assert path.is_file() and not (path.parent / "none").exists()
        with _files.readable(path) as local:
            assert local.read_bytes() == bytes(range(256))
        with pytest.raises(FileNotFoundError, match=r"none does not exist"):
            (path.parent / "none").read_bytes()
        with pytest.raises(ValueError, match=r"http:// is read-only"):
            path.write_bytes(b"")
        server.shutdown()


def test_paths_are_told_apart():
    assert any_path("gs://b/c/d.json").parent == any_path("gs://b/c")
    assert str(any_path("gs://b/c") / "d.json") == "gs://b/c/d.json"
    assert any_path("gs:/b/c") == any_path("gs://b//c/") == any_path(any_path("GS://b/c"))
    assert any_path("s3://b/c.d").suffix == ".d" and str(any_path("s3://b")) == "s3://b"
    assert any_path("a:b/c") == Path("a:b/c") and _files.is_local("a:b/c")
    assert not _files.is_local("https://host/x") and not _files.is_local(any_path("gs://b"))
    with pytest.raises(
        ValueError, match="is not a valid path; a path is local or begins with one of gs://"
    ):
        any_path("ftp://host/x")
    with pytest.raises(ValueError, match="has no bucket"):
        any_path("gs://")
    with pytest.raises(ValueError, match="hf:// is read-only"):
        any_path("hf://datasets/a/b").write_text("x")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for scheme, module, extra in (("gs", "gcsfs.core", "gcs"), ("s3", "s3fs", "s3")):
        monkeypatch.setitem(sys.modules, module, None)
        _buckets._open_store.cache_clear()
        how = rf"^{scheme}:// needs the package .*: pip install 'jaxcnn\[{extra}\]'$"
        with pytest.raises(ValueError, match=how):
            any_path(f"{scheme}://bucket/x").exists()


def test_a_spool_sends_what_has_changed(place, bucket):  # noqa: F811
    spool = _files.Spool(place)
    (spool.folder / "sub").mkdir()
    (spool.folder / "sub/a").write_text("1")
    (spool.folder / "b").write_text("1")
    spool.publish()
    (spool.folder / "b").write_text("12")
    sent = len(bucket.requests)
    spool.publish()
    assert len([r for r in bucket.requests[sent:] if r.startswith("POST")]) == 1
    assert (place / "b").read_text() == "12" and (place / "sub/a").read_text() == "1"
    folder = spool.folder
    spool.close()
    assert not folder.exists()


def test_scratch_of_killed_processes_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hold = "from jaxcnn import _files; s = _files.Spool(None); print(s.folder, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold],
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    left = Path(process.stdout.readline().strip())
    with _files.scratch() as own:
        assert left.is_dir() and own.is_dir()
        process.kill()
        process.communicate()
        with _files.scratch():
            assert not left.exists() and own.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_scratch_that_another_process_deletes_before_it_is_locked(tmp_path, monkeypatch):
    """A process that starts at the same time can mistake a new folder for an abandoned one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lock, faults = _files.try_lock, iter(["held", "deleted"])

    def late(file):
        fault = next(faults, None)
        if fault == "deleted":
            shutil.rmtree(Path(file.name).parent)
        return fault != "held" and lock(file)

    monkeypatch.setattr(_files, "_delete_old_scratch", lambda: None)
    monkeypatch.setattr(_files, "try_lock", late)
    with _files.scratch() as own:
        (own / "a").write_text("1")
    assert not own.exists() and next(faults, None) is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "fault", ["503", "cut", "lost", *(pytest.param(f, marks=SLOW) for f in ("429", "500", "away"))]
)
def test_faults_are_outlasted_and_told_once(fault, place, faulty, capfd):
    bits = bytes(range(256)) * 100
    actions = [
        lambda: (place / "x").write_bytes(bits),
        lambda: (place / "x").read_bytes(),
        lambda: (place / "x").exists(),
        lambda: (place / "y").exists(),
        lambda: [p.name for p in place.iterdir()],
        lambda: [p.name for p in _files.files_below(place)],
        lambda: (place / "z").create(b"mine"),
        lambda: (place / "z").create(b"other"),
        lambda: _files.read_at(place / "x", 3, 5),
    ]
    wanted = [None, bits, True, False, ["x"], ["x"], True, False, bits[3:8]]
    for action, value in zip(actions, wanted):
        faulty(fault)
        assert action() == value
    faulty(fault)
    with _files.readable(place / "x") as local:
        assert local.read_bytes() == bits
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) >= 2 and set(lines[1::2]) == {"note: gs://bucket answers again"}
    assert all("note: gs://bucket does not answer (" in line for line in lines[::2])
    assert len(lines) <= 2 * (len(actions) + 1)  # once for each time that it was away


@pytest.mark.usefixtures("quick")
def test_a_hanging_server(place, faulty, bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr(_buckets, "SILENCE", 0.3)
    _buckets._open_store.cache_clear()
    try:
        faulty("hang", times=2)
        (place / "x").write_bytes(b"through")
        assert (place / "x").read_bytes() == b"through"
    finally:
        bucket.hanging.set()
        _buckets._open_store.cache_clear()


@pytest.mark.usefixtures("quick")
def test_patience_ends_in_one_line(place, faulty, bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr(_buckets, "PATIENCE", 0.3)
    faulty("503", times=10**6)
    with pytest.raises(
        OSError, match=r"^gs://bucket has not answered for \d+ s \(HTTP status 503\)"
    ):
        (place / "x").write_bytes(b"")
    asked = len(bucket.requests)
    with pytest.raises(OSError, match="has not answered"):
        (place / "x").exists()
    assert len(bucket.requests) <= asked + 2  # no second wait for a bucket that was given up
    faulty(None)
    assert not (place / "x").exists()


def test_what_cannot_be_waited_for_is_said_at_once(place, faulty):
    faulty("401", times=10)
    with pytest.raises(PermissionError, match=r"no credentials for gs://.*gcloud auth application"):
        place.exists()
    faulty("403", times=10)
    for action in (place.exists, lambda: place.write_bytes(b""), place.read_bytes):
        with pytest.raises(
            PermissionError, match=r"no permission to access gs://.*Storage Object User"
        ):
            action()
    faulty(None)
    with pytest.raises(
        FileNotFoundError, match=r"the bucket gs://other does not exist; .*buckets create"
    ):
        any_path("gs://other/run").write_text("x")
    assert not any_path("gs://other/run").exists()


def test_of_many_that_create_an_object_one_succeeds(place):
    won = []
    threads = [
        threading.Thread(target=lambda i=i: won.append((place / "x").create(b"%d" % i)))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 5 + [True]


HOLD = """
import sys
from jaxcnn import _files
lock = _files.lock(_files.any_path(sys.argv[1]), "host 7")
print("held", flush=True)
input()
"""


def hold(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_in_a_bucket_is_held_by_one_process(place):
    path = place / ".lock"
    other = subprocess.Popen(["sleep", "100"])
    claim = {"holder": "host 7", "machine": _lease._machine(), "process": other.pid, "token": "t"}
    claim["started"] = _lease._started(other.pid)
    (place / ".lock.1").write_bytes(json.dumps(claim).encode())
    with pytest.raises(_files.InUse, match=r"^host 7$"):
        _files.lock(path, "host 8")
    assert _files.lock_holder(path) == "host 7"
    other.kill()
    other.communicate()
    assert _files.lock_holder(path) is None
    own = _files.lock(path, "host 8")  # at once: the process has ended on this machine
    assert _files.lock_holder(path) == "host 8"
    with pytest.raises(_files.InUse, match=r"^host 8$"):
        _files.lock(path, "host 9")
    own.check()
    own.close()
    assert _files.lock_holder(path) is None
    _files.lock(path, "host 9").close()
    assert len(list(place.iterdir())) <= 2


def test_other_names_beside_a_lease_are_no_claims(place):
    own = _files.lock(place / ".lock", "near 5")
    for name in ("2024", ".lock.\u00b2", ".lock.3.draft", "x.lock.7"):
        (place / name).write_bytes(b"{}")
    own._renew()
    own.check()
    own.close()
    assert _lease._newest(place / ".lock") == (1, None)


def test_a_claim_that_arrives_late_is_given_up(place, monkeypatch):
    """Between the look at the claims and the own one, others came, and one of them still lives."""
    create = _buckets.BucketPath.create
    claim = {"holder": "far 3", "machine": "elsewhere", "process": 3, "started": "1", "token": "t"}

    def slow(path, data):
        (place / ".lock.2").write_bytes(json.dumps(claim).encode())
        return create(path, data)

    monkeypatch.setattr(_buckets.BucketPath, "create", slow)
    with pytest.raises(_files.InUse, match=r"^far 3$"):
        _files.lock(place / ".lock", "near 5")


def test_credentials_that_cannot_be_refreshed_are_waited_for():
    from google.auth.exceptions import RefreshError, TransportError

    def chained(error):
        last = OSError("Invalid Credentials, 401")
        last.status = 401
        last.__cause__ = error
        return last

    for error in (TransportError("no route"), RefreshError("busy", retryable=True)):
        assert _buckets._trouble(error) and _buckets._trouble(chained(error))
    for error in (RefreshError("revoked"), ValueError("other")):
        assert _buckets._trouble(error) is None and _buckets._trouble(chained(error)) is None


def test_a_folder_that_contains_its_own_name(place):
    """And one with an object that stands for the folder itself, as web consoles make them."""
    (place / "runs/runs/x").write_bytes(b"1")
    assert [path.name for path in (place / "runs").iterdir()] == ["runs"]
    cached = _cache.CachedPath(place / "photos")
    (place / "photos/a.png").write_bytes(b"1")
    store = _buckets._store("gs")
    store.pipe_file(f"{place.bucket.partition('://')[2]}/{place.name}/photos/", b"")
    assert {path.name for path in cached.iterdir()} == {"a.png"}


def test_a_missing_file_to_upload_is_named(place, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist$"):
        (place / "x").upload(tmp_path / "none.txt")


def test_a_lease_of_another_machine_ends_when_it_is_not_renewed(place, monkeypatch, capfd):
    monkeypatch.setattr(_lease, "_POLL", 0.05)
    monkeypatch.setattr(_lease, "LEASE", 0.5)
    path = place / ".lock"
    claim = {"holder": "far 3", "machine": "elsewhere", "process": 3, "started": "1", "token": "t"}
    (place / ".lock.4").write_bytes(json.dumps(claim).encode())
    stop = threading.Event()

    def renew():
        for count in itertools.count():
            if stop.wait(0.1):
                return
            (place / ".lock.4").write_bytes(json.dumps({**claim, "renewals": count}).encode())

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(_files.InUse, match=r"^far 3$"):
        _files.lock(path, "near 5")
    stop.set()
    thread.join()
    assert _files.lock_holder(path) is None
    own = _files.lock(path, "near 5")
    assert "was in use by far 3; waiting up to" in capfd.readouterr().err
    # The other one took it back: this process had been asleep for longer than the lease.
    (place / ".lock.6").write_bytes(json.dumps(claim).encode())
    own._renewed -= 1
    with pytest.raises(OSError, match=r"place\d+ was taken over by far 3"):
        own.check()
    own.close()
    assert json.loads((place / ".lock.6").read_bytes()) == claim
