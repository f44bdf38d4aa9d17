"""Data in buckets: files are copied to a local directory when they are first needed.

`data_path` is to data what `_files.any_path` is to other files. The path that it returns for a URL
lists and describes what is in the bucket; opening it makes a local copy and opens that.

    DIR/3f/3f9c2a61e07b54d8-train.tar       copies, named by a hash of URL, size and checksum
    DIR/3f/...tar.1048576.812-7f01.draft    being written; its size will be 1048576
    DIR/3f/...tar.lock                      held by the process that writes it
    DIR/evictions                           its time is that of the last deletion
    DIR/index                               indexes of the records in files, see `index_folder`

A copy is renamed to its name after its size and checksum have been compared with those that the
store states, so that a copy is whole wherever it exists, and belongs to one version of the object.
The time of a copy is that of its last use; the oldest ones are deleted first.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import glob
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import google_crc32c

from jaxcnn._buckets import BucketPath, Stat
from jaxcnn._checks import note_once, one_line
from jaxcnn._files import any_path, cache_folder, is_local, local_path, try_lock

GIB = 2**30
_ATTEMPTS = 3  # copies of a file until its checksum is right
_THREADS = 8  # files that `fetch` copies at the same time
_IN_USE = 5.0  # seconds after its use in which a copy is not deleted
_TOUCH = 2.0  # seconds between two updates of the time of a copy
_ABANDONED = 3600.0  # seconds without a change after which a draft is deleted
_BLOCK = 2**20
_DIR, _GIB = "JAXCNN_DATA_CACHE", "JAXCNN_DATA_CACHE_GIB"


class CopyError(OSError):
    """A file in a bucket cannot be copied; no other example may take the place of one in it."""


class _Settings(NamedTuple):
    folder: str | None = None
    gib: float | None = None


class _Version(NamedTuple):
    """A version of an object: its size in bytes, and its checksum or what else changes with it."""

    size: int  # -1 if a web server does not state it
    kind: str  # "crc32c", "md5", "sha256" or ""
    value: str


_settings = _Settings()
_listings: dict[BucketPath, dict[str, dict[str, Any]]] = {}  # folder: {name: facts of fsspec}
_trees: dict[BucketPath, list[tuple[BucketPath, Stat]]] = {}  # folder: all files below it
_copies: dict[BucketPath, tuple[Path, float]] = {}  # its copy, and when the time was updated
_made: set[Path] = set()  # copies that this process has made


def use(folder: str | None = None, gib: float | None = None) -> None:
    """Sets where copies are stored, for this process.

    Args:
      folder: directory; None for $JAXCNN_DATA_CACHE, or "data" in the user's cache directory.
      gib: size in GiB that the copies may have together; None for $JAXCNN_DATA_CACHE_GIB, or no
        limit.
    """
    global _settings
    _settings = _Settings(folder, gib)


def data_path(path: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """A path of data that a user wrote: a local one, or a `CachedPath` for a URL.

    What is known about the files of a URL is read again from the store.

    Args:
      path: as it was written.
      folder: directory that a relative path belongs to.

    Raises:
      ValueError: the URL cannot be used, or the directory or the size of copies is invalid.
    """
    found = any_path(path)
    if is_local(found) and folder and not found.is_absolute():
        found = any_path(folder) / found
    if is_local(found):
        return found
    _folder(), _limit()  # checks them
    root = CachedPath(found)
    known: dict[BucketPath, Any]
    for known in (_listings, _trees, _copies):
        for one in list(known):
            if one == root.parent or one.parts[: len(root.parts)] == root.parts:
                known.pop(one, None)
    return cast(Path, root)


def fetch(paths: Iterable[Path]) -> None:
    """Copies files, several at the same time; does nothing for local ones.

    Raises:
      CopyError: a file cannot be copied.
    """
    cached = [path for path in paths if isinstance(path, CachedPath)]
    if cached:
        with ThreadPoolExecutor(_THREADS, "jaxcnn-copy") as pool:
            list(pool.map(os.fspath, cached))


def evictions(path: Path) -> int:
    """A number that changes when copies are deleted; 0 for a local path.

    Programs that keep copies open should close them then, since open files take space.
    """
    if not isinstance(path, CachedPath):
        return 0
    with contextlib.suppress(OSError):
        return os.stat(_folder() / "evictions").st_mtime_ns
    return 0


def stamp(path: Path) -> tuple[int, int]:
    """The size of a file, and a number that changes with its content; the file is not read."""
    if isinstance(path, CachedPath):
        version = _version(path, path.info())
        digest = hashlib.sha256(f"{version.kind} {version.value}".encode()).digest()
        return version.size, int.from_bytes(digest[:7], "little")
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def index_folder(path: Path) -> Path | None:
    """A local directory for indexes of the files in a bucket; None for a local path."""
    return _folder() / "index" if isinstance(path, CachedPath) else None


class CachedPath(BucketPath):
    """The path of a file of data in a bucket, or of a folder.

    As an `os.PathLike`, as which `open` and other functions use it, it is the path of the local
    copy, which is made then. As a text it is the URL. Listings are kept, see `data_path`.
    """

    def __fspath__(self) -> str:
        return os.fspath(_copy_of(self))

    def info(self) -> dict[str, Any] | None:
        """Returns the facts of fsspec about an object or a folder; None if there is none."""
        if len(self.parts) < 3:
            return None
        if self.scheme in ("http", "https"):  # without listings
            if self not in _listings:
                facts = super().info()
                _listings[self] = {} if facts is None else {"": facts}
            return _listings[self].get("")
        if len(self.parts) == 3:
            return {"type": "directory"} if self._list() else None
        return CachedPath(self.parent)._list().get(self.name)

    def iterdir(self) -> Iterator[CachedPath]:
        """Yields the objects and folders of a folder; none if it does not exist."""
        return (self / name for name in self._list())

    def files(self) -> list[tuple[BucketPath, Stat]]:
        """Returns all objects below the path with their sizes and times, sorted."""
        if self not in _trees:
            _trees[self] = super().files()
        return _trees[self]

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """Reads an object, or its bytes from `start` to `end`, from the copy."""
        with open(self, "rb") as file:
            file.seek(start or 0)
            return file.read(-1 if end is None else end - (start or 0))

    def _list(self) -> dict[str, dict[str, Any]]:
        """{name: facts} of what is in a folder."""
        if self not in _listings:
            found: list[dict[str, Any]] = []
            with contextlib.suppress(FileNotFoundError):
                found = self._request(lambda store: store.ls(str(self), detail=True))
            own = "/".join(self.parts[2:])  # an object, or one that stands for the folder
            _listings[self] = {
                facts["name"].rstrip("/").rpartition("/")[2]: facts
                for facts in found
                if facts["name"].rstrip("/") != own
            }
        return _listings[self]


def _folder() -> Path:
    folder = _settings.folder or os.environ.get(_DIR)
    if folder:
        return local_path(folder)
    home = cache_folder()
    if home is None:
        raise ValueError(
            f"data.cache is not set, and this account has no cache directory; set data.cache=DIR "
            f"or {_DIR}"
        )
    return home / "data"


def _limit() -> float | None:
    """The number of bytes that all copies may have together."""
    gib = _settings.gib
    if gib is None and (text := os.environ.get(_GIB)):
        try:
            gib = float(text)
        except ValueError:
            gib = -1.0
        if gib <= 0:
            raise ValueError(f"{_GIB} is {text!r}; it must be a number above 0")
    return None if gib is None else gib * GIB


def _version(path: BucketPath, facts: dict[str, Any] | None) -> _Version:
    if facts is None:
        raise FileNotFoundError(f"{path} does not exist")
    if facts.get("type") == "directory":
        raise IsADirectoryError(f"{path} is a folder")
    size = -1 if facts.get("size") is None else int(facts["size"])
    tag = str(facts.get("ETag") or facts.get("etag") or "").strip('"')
    lfs = facts.get("lfs")  # of the Hugging Face hub
    if facts.get("crc32c"):
        return _Version(size, "crc32c", base64.b64decode(facts["crc32c"]).hex())
    if facts.get("md5Hash"):
        return _Version(size, "md5", base64.b64decode(facts["md5Hash"]).hex())
    if lfs:
        return _Version(size, "sha256", str(lfs["sha256"]))
    if path.scheme == "s3" and len(tag) == 32:  # of an object that was not uploaded in parts
        return _Version(size, "md5", tag)
    changed = (tag, facts.get("blob_id"), facts.get("generation"), facts.get("LastModified"))
    return _Version(size, "", next((str(one) for one in changed if one), ""))


def _copy_of(path: CachedPath) -> Path:
    """The local copy of a file, which is made if necessary."""
    now = time.time()
    copy, touched = _copies.get(path, (None, 0.0))
    if copy is not None and 0 <= now - touched < _TOUCH and copy.exists():
        return copy
    version = _version(path, path.info())
    if copy is None:
        name = hashlib.sha256(f"{path} {version}".encode()).hexdigest()[:16]
        copy = _folder() / name[:2] / f"{name}-{os.fsdecode(os.fsencode(path.name)[-100:])}"
    try:
        os.utime(copy)
    except (FileNotFoundError, NotADirectoryError):
        try:
            _make(path, version, copy)
        except CopyError:
            raise
        except OSError as error:
            raise _explained(error, path, version) from error
    except OSError as error:  # perhaps a directory of somebody else, which may be read
        if not os.access(copy, os.R_OK):
            raise _explained(error, path, version) from error
    _copies[path] = (copy, now)
    return copy


def _explained(error: OSError, path: CachedPath, version: _Version) -> CopyError:
    if errno.ENOSPC in (error.errno, getattr(error.__cause__, "errno", None)):
        return CopyError(
            f"no space for {path} ({_gib(version.size)}) in {_folder()}; free some, set "
            "data.cache=DIR to another directory, or limit all copies with data.cache_gib"
        )
    return CopyError(f"{path} cannot be copied: {one_line(error)}")


def _make(path: CachedPath, version: _Version, copy: Path) -> None:
    folder = _folder()
    copy.parent.mkdir(parents=True, exist_ok=True)
    note_once(f"files of {path.bucket} are copied to {folder} when they are first needed")
    with _alone(copy.with_name(f"{copy.name}.lock")):
        if copy.exists():  # another process has made it
            return
        if copy in _made:
            note_once(
                f"data.cache_gib is too small for the files in use of {path.bucket}: they are "
                "copied again and again"
            )
        for old in copy.parent.glob(f"{glob.escape(copy.name)}.*.draft"):  # of killed processes
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _ABANDONED:
                    old.unlink()
        task = f"{os.getpid()}-{threading.get_ident():x}"
        draft = copy.with_name(f"{copy.name}.{version.size}.{task}.draft")
        try:
            _make_room(folder, path, draft, max(version.size, 0))
            for _ in range(_ATTEMPTS):
                path.download(draft)
                problem = _compare(path, draft, version)
                if problem is None:
                    os.replace(draft, copy)
                    _made.add(copy)
                    return
                if _version(path, BucketPath(path).info()) != version:
                    raise CopyError(
                        f"{path} was replaced while the dataset was in use; start again"
                    )
            raise CopyError(f"{path} cannot be copied: {problem}, in each of {_ATTEMPTS} attempts")
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()


def _compare(path: BucketPath, draft: Path, version: _Version) -> str | None:
    """What is wrong with a copy; None if it is the version of the object."""
    size = draft.stat().st_size
    if size != version.size and version.size >= 0:
        return f"{size:,} of {version.size:,} bytes"
    if not version.kind:
        return None
    value = _checksum(draft, version.kind)
    if value == version.value or (path.scheme == "s3" and _is_encrypted(path)):
        return None
    return f"{version.kind} {value} instead of {version.value}"


def _checksum(path: Path, kind: str) -> str:
    digest = google_crc32c.Checksum() if kind == "crc32c" else hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest().hex()


def _is_encrypted(path: BucketPath) -> bool:
    """Whether the ETag of an object is no checksum, as with keys of AWS's key management."""
    where = {"Bucket": path.parts[2], "Key": "/".join(path.parts[3:])}
    answer = path._request(lambda store: store.call_s3("head_object", **where))
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process or thread has the lock, which is deleted at the end."""
    while True:
        with open(path, "a", encoding="utf-8") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                while not try_lock(file):
                    time.sleep(0.05)
            if _is_at(file.fileno(), path):  # the last holder has not deleted it meanwhile
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        path.unlink()
                return


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _make_room(folder: Path, path: BucketPath, draft: Path, size: int) -> None:
    """Deletes the oldest copies until a new one fits, and makes its draft."""
    limit = _limit()
    if limit is None:
        draft.touch()
        return
    if size > limit:
        raise CopyError(f"{path} has {_gib(size)}, more than data.cache_gib={limit / GIB:g} allows")
    with _alone(folder / "room.lock"):
        copies, total = _survey(folder)
        for used, length, copy in sorted(copies):
            if total + size <= limit or 0 <= time.time() - used < _IN_USE:
                break
            copy.unlink(missing_ok=True)
            total -= length
            (folder / "evictions").touch()
        draft.touch()


def _survey(folder: Path) -> tuple[list[tuple[float, int, Path]], int]:
    """[(last use, size, path of a copy)], and the bytes of all copies and drafts together."""
    copies, total = [], 0
    for below in folder.glob("[0-9a-f][0-9a-f]"):
        for entry in os.scandir(below):
            with contextlib.suppress(OSError):
                stat = entry.stat()
                if entry.name.endswith(".draft"):
                    if time.time() - stat.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
                    else:
                        total += int(entry.name.split(".")[-3])
                elif not entry.name.endswith(".lock"):
                    copies.append((stat.st_mtime, stat.st_size, Path(entry.path)))
                    total += stat.st_size
    return copies, total


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"
