"""A server of buckets on this machine, behind a proxy that can misbehave.

The server is the one of gcp-storage-emulator. The proxy adds what it lacks, that an object is only
written if there is none (`ifGenerationMatch=0`), and the faults of `Proxy.fault`.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

BUCKET = "bucket"
_ERROR = "<Error><Code>{}</Code><Message>the server has a bad day</Message></Error>"


class Proxy(http.server.ThreadingHTTPServer):
    """Forwards requests to a server on this machine.

    `fault` is a function of (method, path with query) of each request to the name of a fault:
    a status such as "503"; "hang", no answer for as long as `hanging`; "cut", half of the body;
    "flip", another first byte; "away", a connection that is closed; "lost", done, but the answer
    does not arrive; or None.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, preconditions: bool = True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.preconditions = port, preconditions
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.hanging = threading.Event()
        self.requests: list[str] = []
        self.creating = threading.Lock()
        self.connections = threading.Semaphore(2)  # the server's queue is short
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *args) -> None:
        """Clients that go away are no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        fault = self.server.fault(self.command, self.path)
        if fault == "away":
            self.connection.close()
        elif fault == "hang":
            self.server.hanging.wait(60)
            self.connection.close()
        elif fault is not None and fault.isdigit():
            self.answer(int(fault), {}, _ERROR.format(fault).encode())
        else:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            create = self.server.preconditions and query.get("ifGenerationMatch") == ["0"]
            with self.server.creating if create else contextlib.nullcontext():
                if create and self.exists(query, body):
                    self.answer(412, {}, b"{}")
                    return
                path, headers = self.path, dict(self.headers)
                # That of gs:// strips a last carriage return from parts, and takes no empty media.
                if self.server.preconditions and body.removesuffix(b"\n--==0==--").endswith(b"\r"):
                    path, headers, body = self.as_media(path, body)
                answer = self.forward(self.command, path, headers, body)
            if fault == "lost":
                self.connection.close()
            elif fault == "flip":
                status, headers, content = answer
                self.answer(status, headers, bytes([content[0] ^ 1]) + content[1:])
            else:
                self.answer(*answer, cut=fault == "cut")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_request

    def as_media(self, path: str, body: bytes) -> tuple[str, dict[str, str], bytes]:
        """An upload in two parts as one of the content alone."""
        head, _, rest = body.partition(b"\n\n")[2].partition(b"\n--==0==\n")
        content = rest.partition(b"\n\n")[2].removesuffix(b"\n--==0==--")
        name = urllib.parse.quote(json.loads(head)["name"], safe="")
        path = path.replace("uploadType=multipart", f"uploadType=media&name={name}")
        return path, {"Content-Type": "application/octet-stream"}, content

    def exists(self, query: dict[str, list[str]], body: bytes) -> bool:
        name = query["name"][0] if "name" in query else body.split(b'"name": "')[1].split(b'"')[0]
        folder = urllib.parse.urlsplit(self.path).path.replace("/upload", "", 1)
        path = f"{folder}/{urllib.parse.quote(name, safe='')}"
        return self.forward("GET", path, {}, b"")[0] == 200

    def forward(self, method: str, path: str, headers: dict, body: bytes):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
        with self.server.connections, contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *args) -> None:
        pass


@contextlib.contextmanager
def google() -> Iterator[Proxy]:
    """A server of gs:// with the bucket `BUCKET`; `environment` names it to clients."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    proxy = Proxy(server._api._httpd.server_address[1])
    try:
        yield proxy
    finally:
        proxy.shutdown()
        server.stop()


@pytest.fixture(scope="module")
def bucket():
    """The proxy of a server of gs:// that this process uses, with the bucket `BUCKET`."""
    for package in ("gcp_storage_emulator", "gcsfs"):
        pytest.importorskip(package, reason=f"buckets are tested with the package {package}")
    with google() as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(proxy).items():
            patch.setenv(name, value)
        yield proxy


@pytest.fixture(scope="module")
def amazon():
    """The proxy of a server of s3:// that this process uses, with the bucket `BUCKET`."""
    pytest.importorskip("s3fs", reason="s3:// is tested with the package s3fs")
    server = pytest.importorskip("moto.server", reason="s3:// is tested with moto[server]")
    import boto3

    from jaxcnn import _buckets

    moto = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    proxy = Proxy(moto.get_host_and_port()[1], preconditions=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **{"AWS_ENDPOINT_URL": proxy.url, "AWS_DEFAULT_REGION": "us-east-1"},
            **{"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"},
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        _buckets._open_store.cache_clear()
        yield proxy
    proxy.shutdown()
    moto.stop()


def environment(proxy: Proxy) -> dict[str, str]:
    """The variables that lead clients of gs:// to the proxy."""
    return {"STORAGE_EMULATOR_HOST": proxy.url}
