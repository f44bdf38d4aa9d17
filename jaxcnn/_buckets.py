"""Files in buckets and on web servers: gs://, s3://, hf:// and https://, through fsspec.

Requests that fail because the server is busy or unreachable are retried with growing pauses, and
one notice informs the user. Other errors become one line that says what to do. Only `_files` and
`_lease` use this module.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import logging
import os
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from jaxcnn._checks import note, one_line

PATIENCE = 600.0  # seconds to wait for a server that does not answer
SILENCE = 30.0  # seconds without a byte after which a request has failed
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0  # seconds between attempts

_EXTRAS = {"gs": "gcs", "s3": "s3", "http": "https", "https": "https"}
_WRITABLE = ("gs", "s3")
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # HTTP statuses of temporary failures
_NETWORK = ("aiohttp", "botocore", "httpx", "httpcore", "requests", "urllib3")
_NO_CREDENTIALS = (
    *("DefaultCredentialsError", "RefreshError", "NoCredentialsError", "PartialCredentialsError"),
    *("ProfileNotFound", "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"),
)
_LOG_IN = {
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to "
    "the file of a key",
    "s3": "run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "hf": "run `hf auth login`, or set HF_TOKEN",
}
_RIGHTS = {
    "gs": "; the account needs the role Storage Object User (to read: Storage Object Viewer)",
    "s3": "; the account needs s3:ListBucket, s3:GetObject, and to write s3:PutObject and "
    "s3:DeleteObject",
    "hf": "; accept the conditions on the page of the repository, and log in with `hf auth login`",
}
_MAKE = {"gs": "`gcloud storage buckets create {}`", "s3": "`aws s3 mb {}`"}

T = TypeVar("T")

_state = threading.Lock()
_silent: set[str] = set()  # buckets that were reported as not answering
_given_up: set[str] = set()  # buckets that have not answered for PATIENCE


class Stat(NamedTuple):
    """Size in bytes and time of the last change in seconds, by the names of `os.stat_result`."""

    st_size: int
    st_mtime: float


class BucketPath(pathlib.PurePosixPath):
    """The path of an object such as gs://bucket/run/config.json, or of all objects below it.

    It has the methods of `pathlib.Path` that this package uses. Folders exist as long as there is
    an object in them. Inside it is the path /gs/bucket/run/config.json.
    """

    @classmethod
    def from_url(cls, url: str) -> BucketPath:
        """Returns the path of a URL. Raises ValueError if it has no bucket."""
        scheme, _, rest = url.partition(":")
        if not rest.strip("/"):
            raise ValueError(f"{url} has no bucket; it must be like {scheme}://bucket/folder")
        return cls(f"/{scheme.lower()}/{rest.lstrip('/')}")

    def __str__(self) -> str:
        if not self.is_absolute() or len(self.parts) < 2:
            return super().__str__()
        return f"{self.parts[1]}://{'/'.join(self.parts[2:])}"

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    @property
    def scheme(self) -> str:
        """Such as "gs"."""
        return self.parts[1]

    @property
    def bucket(self) -> str:
        """The URL of the bucket or the server."""
        return f"{self.scheme}://{self.parts[2]}"

    def absolute(self) -> BucketPath:
        """Returns the path itself."""
        return self

    expanduser = resolve = absolute

    def info(self) -> dict[str, Any] | None:
        """Returns fsspec's description of an object or a folder; None if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return self._request(lambda store: store.info(str(self)))
        return None

    def exists(self) -> bool:
        """Whether there is such an object, or objects below the path."""
        return self.info() is not None

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return (self.info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Whether there are objects below the path."""
        return (self.info() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        """False: there are no links in buckets."""
        return False

    def stat(self) -> Stat:
        """Returns size and time of an object; of a folder those of its newest object."""
        found = self.info()
        if found is None:
            raise FileNotFoundError(f"{self} does not exist")
        if found["type"] == "file":
            return _stat(found)
        return max((stat for _, stat in self.files()), key=lambda stat: stat.st_mtime)

    def iterdir(self) -> Iterator[BucketPath]:
        """Yields the objects and folders of a folder; none if it does not exist."""
        names: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            names = self._request(lambda store: store.ls(str(self), detail=False))
        own = "/".join(self.parts[2:])
        for name in names:
            if name.rstrip("/") != own:  # a folder may contain an object with its own name
                yield self / name.rstrip("/").rpartition("/")[2]

    def files(self) -> list[tuple[BucketPath, Stat]]:
        """Returns all objects below the path with their sizes and times, sorted."""
        found: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError):
            found = self._request(lambda store: store.find(str(self), detail=True))
        paths = {type(self)(f"/{self.scheme}/{name}"): facts for name, facts in found.items()}
        return [(path, _stat(paths[path])) for path in sorted(paths) if path != self]

    def rglob(self, pattern: str) -> Iterator[BucketPath]:
        """Yields all objects, and no folders, below the path whose names match."""
        return (path for path, _ in self.files() if fnmatch.fnmatch(path.name, pattern))

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Yields what is below the path, and matches the pattern part by part."""
        first, _, rest = pattern.partition("/")
        for path in sorted(self.iterdir()):
            if fnmatch.fnmatchcase(path.name, first):
                yield from path._below(rest) if rest else (path,)

    def _below(self, pattern: str) -> Iterator[BucketPath]:
        if any(sign in pattern for sign in "*?["):
            yield from self.glob(pattern)
        elif (self / pattern).exists():
            yield self / pattern

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """Reads an object, or its bytes from `start` to `end`."""

        def read(store: Any) -> bytes:
            return store.cat_file(str(self), start=start, end=end)

        return self._request(read)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Reads an object as text."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes) -> None:
        """Writes an object as a whole."""
        self._write(lambda store: store.pipe_file(str(self), data, **self._verified()))

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Writes an object as a whole."""
        self.write_bytes(text.encode(encoding))

    def touch(self) -> None:
        """Writes an empty object."""
        self.write_bytes(b"")

    def create(self, data: bytes) -> bool:
        """Writes an object unless it exists; returns whether its content is `data` afterwards."""
        try:
            options = {"mode": "create", **self._verified()}
            self._write(lambda store: store.pipe_file(str(self), data, **options))
        except FileExistsError:  # perhaps by this very request, whose answer was lost
            return self.read_bytes() == data
        return True

    def upload(self, local: pathlib.Path) -> None:
        """Writes an object with the content of a local file."""
        if not local.exists():
            raise FileNotFoundError(f"{local} does not exist")
        self._write(lambda store: store.put_file(str(local), str(self), **self._verified()))

    def download(self, local: pathlib.Path) -> None:
        """Copies an object to a local file."""

        def get(store: Any) -> None:
            store.get_file(str(self), str(local))
            size = store.info(str(self)).get("size")
            if size is not None and local.stat().st_size != size:
                raise ConnectionError(f"{local.stat().st_size} of {size} bytes")

        self._request(get)

    def copy_to(self, target: BucketPath) -> None:
        """Copies an object within a store."""
        self._write(lambda store: store.cp_file(str(self), str(target)))

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes an object."""
        try:
            self._request(lambda store: store.rm_file(str(self)))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder exists as soon as it contains an object."""

    def _verified(self) -> dict[str, str]:
        """Makes gcsfs verify uploads by their checksum; s3fs always does."""
        return {"consistency": "md5"} if self.scheme == "gs" else {}

    def _write(self, action: Callable[[Any], T]) -> T:
        if self.scheme not in _WRITABLE:
            raise ValueError(f"{self} cannot be written: {self.scheme}:// is read-only")
        try:
            return self._request(action)
        except FileNotFoundError as error:
            how = _MAKE[self.scheme].format(self.bucket)
            raise FileNotFoundError(
                f"the bucket {self.bucket} does not exist; correct the name, or create it: {how}"
            ) from error

    def _request(self, action: Callable[[Any], T]) -> T:
        """Calls `action` with fsspec's file system until the server answers."""
        store, bucket, wait, start = _store(self.scheme), self.bucket, _FIRST_WAIT, time.monotonic()
        while True:
            try:
                result = action(store)
            except Exception as error:
                trouble = _trouble(error)
                if trouble is None:
                    raise _explained(error, self) from error
                passed = time.monotonic() - start
                if passed > PATIENCE or bucket in _given_up:
                    _given_up.add(bucket)
                    raise OSError(
                        f"{bucket} has not answered for {passed:.0f} s ({trouble})"
                    ) from error
                if wait > _FIRST_WAIT:
                    _say_silent(bucket, trouble)
                time.sleep(wait * random.uniform(0.75, 1.25))
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                _say_back(bucket)
                return result


def _stat(facts: dict[str, Any]) -> Stat:
    time_: Any = facts.get("mtime") or facts.get("LastModified") or facts.get("updated") or 0
    if isinstance(time_, str):
        from datetime import datetime

        time_ = datetime.fromisoformat(time_)
    return Stat(facts.get("size") or 0, getattr(time_, "timestamp", lambda: float(time_))())


def _say_silent(bucket: str, trouble: str) -> None:
    with _state:
        new = bucket not in _silent
        _silent.add(bucket)
    if new:
        note(
            f"{bucket} does not answer ({trouble}); retrying for up to {PATIENCE / 60:.0f} minutes"
        )


def _say_back(bucket: str) -> None:
    with _state:
        was_silent = bucket in _silent
        _silent.discard(bucket)
        _given_up.discard(bucket)
    if was_silent:
        note(f"{bucket} answers again")


def _trouble(error: Exception) -> str | None:
    """Describes a temporary failure of the server or the network; None for other errors."""
    if _is_of_refresh(error):
        return "the credentials cannot be refreshed"
    if type(error).__name__ in _NO_CREDENTIALS:
        return None
    status = _status(error)
    if status is not None:
        return f"HTTP status {status}" if status in _BUSY else None
    package = type(error).__module__.partition(".")[0]
    passing = isinstance(error, (TimeoutError, ConnectionError)) or package in _NETWORK
    if passing or type(error).__name__ in ("ChecksumError", "JSONDecodeError"):
        return (one_line(error) or type(error).__name__)[:100]
    return None


def _is_of_refresh(error: BaseException | None) -> bool:
    """Whether Google's library could not reach the server for new credentials, which may pass."""
    while error is not None:
        if type(error).__module__.startswith("google.auth"):
            temporary = bool(getattr(error, "retryable", False))
            if temporary or type(error).__name__ == "TransportError":
                return True
        error = error.__cause__ or error.__context__
    return False


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error that a client library raised."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):  # of botocore, which s3fs replaces
        code = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        code = getattr(response, "status_code", None)
    for name in ("status", "code"):  # of aiohttp and of gcsfs
        if code is None:
            code = getattr(error, name, None)
    return int(str(code)) if str(code).isdigit() else None


def _explained(error: Exception, path: BucketPath) -> Exception:
    """The error as one line that says what to do."""
    status, scheme = _status(error), path.scheme
    text = one_line(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(f"{path} does not exist")
    if isinstance(error, FileExistsError):
        return FileExistsError(f"{path} already exists")
    if type(error).__name__ in _NO_CREDENTIALS or status == 401:
        how = _LOG_IN.get(scheme)
        return PermissionError(f"no credentials for {path}{(how and f': {how}') or ''}")
    if isinstance(error, PermissionError) or status == 403 or text.startswith("Forbidden"):
        return PermissionError(f"no permission to access {path}{_RIGHTS.get(scheme, '')}")
    return OSError(f"{path}: {text or type(error).__name__}")


def _store(scheme: str) -> Any:
    return _open_store(scheme, os.getpid())


@functools.lru_cache(maxsize=16)
def _open_store(scheme: str, process: int) -> Any:
    """Returns the file system of fsspec; its threads do not outlive a fork of the process."""
    del process
    try:
        return _OPENERS[scheme]()
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        how = f"pip install 'jaxcnn[{extra}]'" if extra else one_line(error)
        package = (error.name or "?").partition(".")[0]
        raise ValueError(f"{scheme}:// needs the package {package}: {how}") from error


def _open_gs() -> Any:
    # Its detection of other kinds of buckets needs rights that few accounts have.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import aiohttp
    from gcsfs.core import GCSFileSystem

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # relevant errors are raised

    class Once(GCSFileSystem):
        """Makes each request once: `BucketPath` retries for longer, with a notice."""

    for name in ("_request", "_get_file_request", "_get_file_concurrent"):
        method = getattr(GCSFileSystem, name)
        setattr(Once, name, getattr(method, "__wrapped__", method))
    limits = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return Once(
        use_listings_cache=False,
        requests_timeout=limits,
        skip_instance_cache=True,
    )


def _open_s3() -> Any:
    from aiobotocore.session import get_session
    from botocore import handlers
    from s3fs import S3FileSystem

    session = get_session()
    # With this header aiohttp waits for an answer before it sends the content, and does so forever.
    session.unregister("before-call.s3", handlers.add_expect_header)
    store = S3FileSystem(
        session=session,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "connect_timeout": SILENCE,
            "read_timeout": SILENCE,
            "retries": {"total_max_attempts": 1},
        },
    )
    store.retries = 1
    return store


def _open_hf() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)


def _open_web() -> Any:
    import aiohttp
    from fsspec.implementations.http import HTTPFileSystem

    limits = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
    return HTTPFileSystem(skip_instance_cache=True, client_kwargs={"timeout": limits})


_OPENERS: dict[str, Callable[[], Any]] = {
    "gs": _open_gs,
    "s3": _open_s3,
    "hf": _open_hf,
    "http": _open_web,
    "https": _open_web,
}
