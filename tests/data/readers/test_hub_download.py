"""Downloads from a server that answers as the hub does: its lists, its files, and its refusals."""

import errno
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import photos
import pytest
from other_formats import examples, write_parquet

from jaxcnn.data.readers import hub_download

COUNTS = {"train": {"ant": 4, "bee": 3}, "val": {"ant": 1, "bee": 2}}
COMMITS = {"main": "0123abcd" * 5, "refs/convert/parquet": "4567abcd" * 5}
# Prints what happens when each source is opened; a run of its own, as the hub's client reads its
# settings once.
CODE = """
import json, sys
from jaxcnn.data import catalog
for source in sys.argv[1:]:
    try:
        names, parts = catalog.open_parts(source)
        found = {p: [[b.hex()[:200], k] for b, k in map(s.read, range(s.size))]
                 for p, s in parts.items()}
        print(json.dumps([names, found]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The answers of the hub to its client, for the repositories in `repos`."""

    protocol_version = "HTTP/1.1"
    repos: ClassVar[dict[str, dict[str, Path]]] = {}  # {"OWNER/NAME": {revision: folder}}
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0].removeprefix("/api").removeprefix("/datasets/")
        owner, name, *rest = path.split("/")
        repo = f"{owner}/{name}"
        self.asked.append(f"{self.command} {path}")
        if owner == "busy":
            return self.send(503, b"")
        if repo not in self.repos:
            return self.send(401, b"{}", **{"X-Error-Code": "RepoNotFound"})
        kind, revision = (*rest, "", "")[:2]
        revision = revision.replace("%2F", "/") or "main"
        revision = {commit: name for name, commit in COMMITS.items()}.get(revision, revision)
        folder = self.repos[repo].get(revision)
        if folder is None:
            return self.send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        if kind in ("", "revision"):
            files = [{"rfilename": file} for file in files_of(folder)]
            about = {"id": repo, "sha": COMMITS[revision], "siblings": files, "tags": []}
            return self.send(200, json.dumps(about).encode())
        if kind == "tree":
            tree = [
                {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40}
                for f in files_of(folder)
            ]
            return self.send(200, json.dumps(tree).encode())
        if owner == "gated":
            return self.send(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        content = (folder / "/".join(rest[2:])).read_bytes()
        tag = f'"{abs(hash(content)):040x}"'
        return self.send(200, content, ETag=tag, **{"X-Repo-Commit": COMMITS[revision]})

    def send(self, code, content, **headers):
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def files_of(folder):
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write_folder(tmp_path_factory.mktemp("photos") / "set", COUNTS, 32, 40)


@pytest.fixture(scope="module")
def hub(folder, tmp_path_factory):
    """(address, home of the client's cache) of a server with some repositories."""
    root = tmp_path_factory.mktemp("hub")
    written = write_parquet(folder, root / "set")
    (written / "README.md").write_text("---\npretty_name: A set\n---\n")
    (root / "script").mkdir()
    (root / "script" / "set.py").write_text("")
    converted = root / "converted"
    for size in ("320px", "160px"):
        for split in ("train", "validation"):
            (converted / size / split).mkdir(parents=True)
            for i, file in enumerate(sorted(written.glob(f"data/{split}-*"))):
                shutil.copy(file, converted / size / split / f"{i:04d}.parquet")
    Hub.repos = {
        "my/set": {"main": written},
        "gated/set": {"main": written},
        "my/script": {"main": root / "script", "refs/convert/parquet": converted},
        "my/text": {"main": root / "script"},
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root / "home"
    server.shutdown()
    thread.join()
    server.server_close()


def open_all(hub, *sources, **environment):
    """What opening each source returns or raises, and what was written to stderr."""
    settings = {"HF_ENDPOINT": hub[0], "HF_HOME": str(hub[1]), "NO_PROXY": "127.0.0.1"}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", CODE, *sources],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=hub[1].parent,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def test_sets_are_downloaded_and_found_again(hub, folder):
    expected = {
        {"val": "validation"}.get(part, part): [
            [data.hex()[:200], label] for data, label, _ in examples(folder, part)[1]
        ]
        for part in ("train", "val")
    }
    found, _ = open_all(
        hub,
        "hf:my/set",
        "hf:my/set,label=label",
        "hf:my/script/160px",
        "hf:my/script",
        "hf:gated/set",
        "hf:my/none",
        "hf:my/text",
        "hf:my/set@v9",
        "hf:busy/set",
    )
    assert found[0] == found[1] == found[2] == [["ant", "bee"], expected]
    several, gated, none, text, revision, busy = found[3:]
    assert "several configurations; write hf:my/script/160px, hf:my/script/320px" in several[1]
    assert f"hf:gated/set is gated: accept its terms at {hub[0]}/datasets/gated/set" in gated[1]
    assert gated[0] == "ValueError" and "log in with `hf auth login` (or set HF_TOKEN)" in gated[1]
    assert "the hub has no dataset 'my/none', or it is private: log in" in none[1]
    assert "hf:my/text has no Parquet files; it has set.py" in text[1]
    assert "hf:my/set has no revision 'v9'" in revision[1]
    assert "the hub refused (HfHubHTTPError): run `hf download busy/set" in busy[1]
    asked = [request for request in Hub.asked if "/resolve/" in request]
    assert not [request for request in asked if "320px" in request]  # only what was selected
    files = [request for request in asked if request.startswith("GET my/set/")]
    assert len(files) == len(set(files)) == 7  # each once

    (offline, none), notes = open_all(hub, "hf:my/set", "hf:my/other", HF_HUB_OFFLINE="1")
    assert offline == found[0]
    assert "HF_HUB_OFFLINE is set; hf:my/set is used as it is in" in notes
    assert "and HF_HUB_OFFLINE is set: run `hf download my/other" in none[1]
    (away,), notes = open_all(("http://127.0.0.1:9", hub[1]), "hf:my/set")
    assert away == found[0] and "the hub cannot be reached" in notes


def test_a_full_disk_is_not_the_hub_s_fault():
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/x")
    with (
        pytest.raises(OSError, match="No space left on device"),
        hub_download._explained("a/b", ""),
    ):
        raise full
    with pytest.raises(hub_download._Unreachable), hub_download._explained("a/b", ""):
        raise OSError("Connection reset")
