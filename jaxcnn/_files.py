"""Files on this machine or in a bucket: atomic writes, partial reads, and locks.

A path is what `any_path` returns: a `pathlib.Path`, or for gs://, s3://, hf:// and https:// a
`BucketPath`, which has the methods of `pathlib.Path` that this package uses. The functions below
accept both. In a bucket

* objects are written as a whole: `append` writes the whole object again;
* libraries that need a local file get one: `readable`, `writable`, and for folders `Spool`;
* the lock of a run is a lease, see `_lease`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, Any, cast

import platformdirs

from jaxcnn._checks import one_line

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:(//|/[^/])")
_SCHEMES = ("gs", "s3", "hf", "http", "https")
_SCRATCH = "jaxcnn-"  # prefix of temporary folders


def any_path(path: str | os.PathLike) -> Path:
    """Converts the text of a path, local (with `~` for the home folder) or in a bucket, to a path.

    Raises ValueError for a URL that cannot be used.
    """
    if isinstance(path, PurePath) and hasattr(type(path), "scheme"):
        return cast(Path, path)
    text = os.fspath(path)
    if not _URL.match(text):
        return Path(os.path.expanduser(path))
    scheme = text.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ValueError(
            f"{text} is not a valid path; a path is local or begins with one of {known}"
        )
    from jaxcnn._buckets import BucketPath

    return cast(Path, BucketPath.from_url(text))


def is_local(path: str | os.PathLike) -> bool:
    """Whether a path, as text or from `any_path`, is in this machine's file system."""
    if isinstance(path, PurePath):
        return not hasattr(type(path), "scheme")
    return not _URL.match(os.fspath(path))


def local_path(path: str | os.PathLike) -> Path:
    """Converts the text of a path that must be local, with `~` for the home folder.

    Raises ValueError for a URL such as gs://bucket/data.
    """
    if not is_local(path):
        raise ValueError(f"{path} is a URL; only local paths can be used here")
    return Path(os.path.expanduser(path))


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yields the path of a temporary file beside `path`, which replaces it when the block ends.

    Until then, readers see the old file. After an error the temporary file is deleted and the old
    file remains. For an object in a bucket, the temporary file is local.
    """
    path = any_path(path)
    if not is_local(path):
        with writable(path) as draft:
            yield draft
        return
    with _draft(path) as draft:
        yield draft
        _replace(draft, path)


def _replace(draft: Path, path: Path) -> None:
    if path.is_file():
        draft.chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(draft, path)


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, with its mode if it exists; deleted after an error."""
    name = path.name
    if len(os.fsencode(name)) > 150:  # a name of 255 bytes cannot become longer
        name = f"{os.fsdecode(os.fsencode(name)[:150])}.{zlib.crc32(os.fsencode(name)):08x}"
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"  # also on a file system of several machines
    draft = path.with_name(f".{name}.{unique}.draft{path.suffix[:20]}")
    try:
        with _named(path, draft):
            if path.is_file():  # nobody may read the draft who may not read the file
                mode = stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR
                draft.touch(mode)
                draft.chmod(mode)
            yield draft
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


@contextlib.contextmanager
def _named(path: Path, draft: Path | None = None) -> Iterator[None]:
    """Makes an OSError of writing name the file; without this a full disk is only a full disk."""
    try:
        yield
    except OSError as error:
        name = None if error.filename is None else os.fspath(error.filename)
        if error.strerror and name in (None, draft and os.fspath(draft)):
            error.filename, error.filename2 = os.fspath(path), None
        raise


@contextlib.contextmanager
def written_by(library_error: type[Exception], path: str | os.PathLike) -> Iterator[None]:
    """Turns the error of a library that writes a file, as of a full disk, into an OSError."""
    try:
        yield
    except library_error as error:
        known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
        code = next((c for c in known if os.strerror(c) in str(error)), errno.EIO)
        reason = str(error) if code == errno.EIO else os.strerror(code)
        raise OSError(code, reason, os.fspath(path)) from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, atomically."""
    path = any_path(path)
    if not is_local(path):
        path.write_text(text, "utf-8")
        return
    with atomic_write(path) as draft:
        draft.write_text(text, "utf-8")


def write_output(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8 that a user named, which may be a device such as /dev/stdout."""
    with writable(path) as local:
        local.write_text(text, "utf-8")


def append(path: str | os.PathLike, text: str) -> None:
    """Adds text to the end of a file; an object in a bucket is written again as a whole.

    Raises OSError if there is something else than a file, such as a pipe, which could block.
    """
    path = any_path(path)
    if not is_local(path):
        before = b""
        with contextlib.suppress(FileNotFoundError):
            before = path.read_bytes()
        path.write_bytes(before + text.encode("utf-8"))
        return
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a file", str(path))
    with _named(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)


@contextlib.contextmanager
def readable(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a local file with the content of `path`: itself, or a copy until the block ends."""
    path = any_path(path)
    if is_local(path):
        yield path
        return
    with scratch() as folder:
        copy = folder / path.name
        path.download(copy)  # type: ignore[attr-defined]
        yield copy


@contextlib.contextmanager
def writable(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a local file to write, which becomes the output `path` at the end.

    After an error an existing file remains as it was. A link stays a link, and an existing file
    keeps its mode, its owner, its group and its other names. A stream, such as /dev/stdout or a
    pipe, receives the content of the file.
    """
    path = any_path(path)
    if not is_local(path):
        with scratch() as folder:
            yield folder / path.name
            path.upload(folder / path.name)  # type: ignore[attr-defined]
    elif _standard_stream(path) or (path.exists() and not path.is_file()):
        with scratch() as folder, _named(path, folder / path.name):
            yield folder / path.name
            with _open_stream(path) as stream:
                stream.write((folder / path.name).read_bytes())
    elif (target := _target(path)).is_file() and not _replaceable(target):
        with scratch() as folder, _named(path, folder / path.name):
            yield folder / path.name
            _copy_into(folder / path.name, target)
    else:
        with _draft(target) as draft:
            yield draft
            try:
                _replace(draft, target)
            except OSError:  # as of a file that is mounted
                if not target.is_file():
                    raise
                _copy_into(draft, target)
                draft.unlink()


def _standard_stream(path: Path) -> Any:
    """The standard output or error that a path stands for, even if that is a file; else None."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return stream, number
    return None


def _open_stream(path: Path) -> IO[bytes]:
    if found := _standard_stream(path):  # opening it by its name would empty the file that it is
        stream, number = found
        stream.flush()
        return os.fdopen(os.dup(number), "wb")
    return open(path, "wb")


def _target(path: Path) -> Path:
    """The file that a link leads to. Raises ValueError if it leads back to itself."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise ValueError(f"'{path}' cannot be written: it is a link to itself")
    return target


def _replaceable(path: Path) -> bool:
    """Whether another file can take the place of a file without changing its owners or names."""
    facts = path.stat()
    mine = not hasattr(os, "geteuid") or (
        (facts.st_uid, facts.st_gid) == (os.geteuid(), os.getegid())
    )
    return mine and facts.st_nlink == 1 and os.access(path.parent, os.W_OK)


def _copy_into(draft: Path, path: Path) -> None:
    """Replaces the content of a file, if there is space for it."""
    with open(draft, "rb") as new, open(path, "r+b") as old:
        before, size = (os.fstat(file.fileno()).st_size for file in (old, new))
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(old.fileno(), 0, size)
            except OSError:
                old.truncate(before)
                raise
        shutil.copyfileobj(new, old)
        old.truncate(size)


def has_folder(path: str | os.PathLike) -> bool:
    """Whether the folder of a file to be written exists; always true in a bucket."""
    path = any_path(path)
    return not is_local(path) or path.parent.is_dir()


def output_path(path: str | os.PathLike) -> Path:
    """The path of a file to be written, checked before the work whose result it gets.

    Raises ValueError if it is a directory, or if its directory does not exist or is read-only.
    """
    name, path = os.fspath(path), any_path(path)
    target = _target(path) if is_local(path) else path
    if not has_folder(target):
        raise ValueError(f"{name!r} cannot be written: there is no directory {target.parent}")
    if is_local(path):
        if path.is_dir():
            raise ValueError(f"{name!r} cannot be written: it is a directory")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise ValueError(f"{name!r} cannot be written: it or its directory is read-only")
    return path


def check_not_input(target: str | os.PathLike, source: str | os.PathLike) -> None:
    """Raises ValueError if writing an output would replace the input."""
    paths = [any_path(path) for path in (target, source)]
    if all(is_local(path) and path.exists() for path in paths) and os.path.samefile(*paths):
        raise ValueError(f"OUT is {target}, which is the input; give it a different name")


def real_path(path: Path) -> str:
    """Returns the path of a file without links, or the URL of an object in a bucket."""
    return os.path.realpath(path) if is_local(path) else str(path)


def check_distinct(*outputs: str | os.PathLike | None) -> None:
    """Raises ValueError if two outputs are the same file; None stands for no output."""
    paths = [any_path(path) for path in outputs if path]
    files = [p for p in paths if not is_local(p) or p.is_file() or not p.exists()]
    found: set[str] = set()
    for path in files:
        if real_path(path) in found:
            raise ValueError(f"two outputs are '{path}'; give them different names")
        found.add(real_path(path))


def files_below(folder: Path) -> list[Path]:
    """Returns the files in a folder and its subfolders, sorted; links to folders count as files."""
    if not is_local(folder):
        return [path for path, _ in folder.files()]  # type: ignore[attr-defined]
    paths = sorted(folder.rglob("*"))
    return [path for path in paths if path.is_symlink() or not path.is_dir()]


def move_folder(folder: Path, target: Path) -> None:
    """Renames a folder. In a bucket its objects are copied and deleted one by one."""
    if is_local(folder):
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        return
    for path in files_below(folder):
        path.copy_to(target / path.relative_to(folder))  # type: ignore[attr-defined]
    delete_folder(folder)


def delete_folder(folder: Path) -> None:
    """Deletes a folder with all its files."""
    if is_local(folder):
        shutil.rmtree(folder)
        return
    for path in files_below(folder):
        path.unlink(missing_ok=True)


def delete_if_empty(folder: Path) -> None:
    """Deletes a folder and its subfolders where they are empty; does nothing in a bucket."""
    for below, _, _ in os.walk(folder, topdown=False) if is_local(folder) else ():
        if not os.listdir(below):
            os.rmdir(below)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yields a new temporary folder, which is deleted at the end."""
    spool = Spool(None)
    try:
        yield spool.folder
    finally:
        spool.close()


class Spool:
    """A local folder for files that libraries write or append to, and `publish` copies.

    For a local `place` it is the place itself, where everything is published already.

    Args:
      place: the folder for the files; None for none.

    Attributes:
      folder: the local folder.
    """

    def __init__(self, place: Path | None):
        self._place = place
        self._sent: dict[Path, tuple[int, int]] = {}
        self._lock: IO[str] | None = None
        if place is not None and is_local(place):
            self.folder = place
            return
        _delete_old_scratch()
        while not self._make_root():
            pass

    def _make_root(self) -> bool:
        """Makes and locks a new temporary folder.

        Returns False if another process deletes it as an old one before it is locked.
        """
        self._root = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{_user()}-"))
        self._lock = open(self._root / ".lock", "w", encoding="utf-8")  # noqa: SIM115
        locked = True
        with contextlib.suppress(OSError):  # a file system without locks
            locked = try_lock(self._lock)
        self.folder = self._root / "files"
        with contextlib.suppress(FileNotFoundError):
            self.folder.mkdir()
            if locked:
                return True
        self._lock.close()
        shutil.rmtree(self._root, ignore_errors=True)
        return False

    def publish(self) -> None:
        """Copies the files that are new or changed since the last call."""
        if self._lock is None or self._place is None:
            return
        for file in files_below(self.folder):
            stat = file.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            if self._sent.get(file) != stamp:
                target: Any = self._place / file.relative_to(self.folder)
                target.upload(file)
                self._sent[file] = stamp

    def close(self) -> None:
        """Deletes the folder if it is a temporary one."""
        if self._lock is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._lock.close()


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _delete_old_scratch() -> None:
    """Deletes the temporary folders of processes that were killed: their locks are free.

    Without locks (Windows) it deletes none, since they may be in use.
    """
    if importlib.util.find_spec("fcntl") is None:
        return
    for root in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}{_user()}-*"):
        with contextlib.suppress(OSError), open(root / ".lock", encoding="utf-8") as lock:
            if try_lock(lock):
                shutil.rmtree(root, ignore_errors=True)


def read_at(path: str | os.PathLike, start: int, length: int) -> bytes:
    """Reads `length` bytes of a file from `start` on, fewer at its end; thread-safe."""
    if not is_local(path):
        found: Any = any_path(path)
        return found.read_bytes(start, start + length)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


class InUse(Exception):
    """Another process holds a lock; the argument is the `holder` that it gave to `FileLock`."""


class FileLock:
    """A lock on a file, which the operating system releases when the process ends.

    Args:
      path: of the file, which is created if it does not exist.
      holder: describes this process to others; it is written to the file.
      seconds: how long to wait for a killed process to release its lock.

    Raises:
      InUse: another process holds the lock.
      OSError: the file cannot be created.
    """

    def __init__(self, path: Path, holder: str, seconds: float = 2.0):
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        deadline = time.monotonic() + seconds
        while not _free(self._file):
            if time.monotonic() > deadline:
                text = _holder(self._file)
                self._file.close()
                raise InUse(text)
            time.sleep(0.05)
        try:
            with _named(path):
                self._file.truncate(0)
                self._file.write(f"{holder}\n")
                self._file.flush()
        except BaseException:
            with contextlib.suppress(OSError):  # it would write what could not be written
                self._file.close()
            raise

    def check(self) -> None:
        """Does nothing: the lock cannot be lost."""

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()


def lock(path: Path, holder: str) -> Any:
    """Locks a file, or an object of a bucket, against other processes.

    Args:
      path: of the lock.
      holder: describes this process to others.

    Returns:
      The lock, to be closed. Its method `check` raises OSError if another process has taken over,
      which can happen in a bucket that this process has not reached for a minute.

    Raises:
      InUse: another process holds it.
      OSError: it cannot be written.
    """
    if is_local(path):
        return FileLock(path, holder)
    from jaxcnn import _lease

    try:
        return _lease.Lease(cast(Any, path), holder)
    except _lease.Claimed as error:
        raise InUse(str(error)) from None


def lock_holder(path: Path) -> str | None:
    """Returns the holder of a lock; None if it is free or, in a bucket, not known to be held."""
    if not is_local(path):
        from jaxcnn import _lease

        claim = _lease.holder(cast(Any, path))
        return _lease.describe(claim) if claim else None
    if not path.is_file():
        return None
    with open(path, encoding="utf-8") as file:
        return None if _free(file, shared=True) else _holder(file)


def _free(file: IO[str], *, shared: bool = False) -> bool:
    """Whether a file was free and is locked now; True if the file system has no locks."""
    try:
        return try_lock(file, shared=shared)
    except OSError:
        return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def try_lock(file: IO[str], *, shared: bool = False) -> bool:
    """Tries to lock an open file until it is closed or its process ends.

    Args:
      file: to be locked against other processes.
      shared: others may hold a shared lock at the same time.

    Returns:
      Whether it succeeded; True on systems without such locks.

    Raises:
      OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cache_folder() -> Path | None:
    """Returns this package's folder in the user's cache folder; None without a home folder."""
    try:
        return platformdirs.user_cache_path("jaxcnn", appauthor=False)
    except RuntimeError:  # an account without one
        return None


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file. Raises ValueError that names the file if it is not JSON."""
    try:
        return json.loads(any_path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {one_line(error)}") from error


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the objects of a JSON Lines file, one per line; [] if it does not exist.

    Damaged lines are skipped: after a kill or a power failure, a file that was being appended to
    may contain a truncated or empty line, or zeros.
    """
    path = any_path(path)
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line.strip(b"\0\r\t ")))
    return [value for value in found if isinstance(value, dict)]
