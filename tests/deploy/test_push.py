"""`jaxcnn push`: the files, the model card, and an upload to a stand-in for the hub."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import yaml
from hub_client import set_constant

import jaxcnn
from jaxcnn import training
from jaxcnn.cli import main
from jaxcnn.weights import loading

FILES = {
    *("README.md", "metrics.jsonl", "model.json", "model.safetensors", "training_config.json"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run."""
    config = training.default_config()
    config.train.length_steps, config.train.length_epochs, config.train.devices = 3, None, 1
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    for _ in training.train(config, workdir):
        pass
    return workdir


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's HTTP API that an upload of a model needs.

    The class attributes are what it has got: repositories, stored objects by their hash, commits
    and the tokens of all requests.
    """

    repositories, objects, commits, tokens = [], {}, [], set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        self.tokens.add(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.repositories.append(asked)
            self._answer({"url": f"{self._here()}/{asked['organization']}/{asked['name']}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self._here()}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self.commits.append((path, [json.loads(line) for line in body.splitlines()]))
            self._answer({"commitUrl": f"{self._here()}/user/digits/commit/1", "commitOid": "1"})
        else:
            self._answer({"error": f"no {path}"}, 404)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[self.path.rpartition("/")[2]] = body
        self._answer({})

    def _chunks(self):
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _here(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def _answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def stand_in():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def card_of(text):
    """(metadata, text) of a model card."""
    metadata, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.S).groups()
    return yaml.safe_load(metadata), body


def test_the_files_of_a_repository(trained, tmp_path, capsys):
    argv = ["push", str(trained), "hf:user/digits", "--folder", str(tmp_path), "--license", "mit"]
    (tmp_path / "README.md").write_text("mine")
    assert main(argv) == 2 and (tmp_path / "README.md").read_text() == "mine"
    assert "contains other files; it must be a new or empty folder" in capsys.readouterr().err
    (tmp_path / "README.md").unlink()
    assert main(argv) in (0, None)
    assert capsys.readouterr().out == f"wrote {tmp_path}\n"
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert main(argv) in (0, None)  # replaces its own files
    opened = loading.open_weights(tmp_path / "model.safetensors")
    assert opened.class_names == tuple("0123456789")
    jaxcnn.load_pretrained(tmp_path / "model.safetensors")

    about = json.loads((tmp_path / "model.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (error,) = {row["top1_error"] for row in rows if row["kind"] == "eval" and row["step"] == 3}
    assert about["accuracy"]["top1_error"] == error and about["source"]["step"] == 3

    metadata, body = card_of((tmp_path / "README.md").read_text())
    assert metadata["license"] == "mit" and metadata["library_name"] == "jaxcnn"
    assert metadata["pipeline_tag"] == "image-classification"
    (result,) = metadata["model-index"][0]["results"]
    accuracies = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert accuracies["top-1 accuracy"] == pytest.approx(100 * (1 - error), abs=1e-3)
    for heading in ("Task", "Data", "Metrics", "Use", "Training", "License"):
        assert f"\n## {heading}\n" in body
    for path in tmp_path.iterdir():  # nothing says where the run was
        assert str(trained.parent).encode() not in path.read_bytes()
    # The command of the card measures what the card says.
    (command,) = re.findall(r"^jaxcnn (evaluate model.safetensors .*)$", body, re.M)
    argv = command.replace("model.safetensors", str(tmp_path / "model.safetensors")).split()
    assert main([*argv, "--json", str(tmp_path / "e.json")]) in (0, None)
    assert f"| top-1 error | {100 * error:.2f} % |" in body
    assert f"{100 * error:.2f}" in capsys.readouterr().out


def push_here(run, address, monkeypatch, capsys):
    """What the command prints, in this process; the client read its environment before."""
    set_constant(monkeypatch, "ENDPOINT", address)
    set_constant(monkeypatch, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["push", str(run), "hf:user/digits"]) in (0, None)
    return capsys.readouterr()


def push_as_a_process(run, address, monkeypatch, capsys):
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": "hf_secret"}
    environment["HF_HUB_DISABLE_XET"] = "1"
    command = [sys.executable, "-m", "jaxcnn.cli", "push", str(run), "hf:user/digits"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "push", [push_here, pytest.param(push_as_a_process, marks=pytest.mark.slow)]
)
def test_an_upload(trained, monkeypatch, capsys, push):
    for kept in (Hub.repositories, Hub.objects, Hub.commits, Hub.tokens):
        kept.clear()
    with stand_in() as address:
        out, err = push(trained, address, monkeypatch, capsys)
    assert (out, err) == (f"uploaded {trained}: {address}/user/digits/commit/1\n", "")
    assert Hub.tokens == {"Bearer hf_secret"}
    assert [(r["organization"], r["name"]) for r in Hub.repositories] == [("user", "digits")]
    ((path, lines),) = Hub.commits
    assert path == "/api/models/user/digits/commit/main"
    header, *files = lines
    assert header["value"]["summary"] == "Upload model.safetensors and its model card"
    assert {file["value"]["path"] for file in files} == FILES
    (stored,) = [file["value"] for file in files if file["key"] == "lfsFile"]
    data = Hub.objects[stored["oid"]]
    assert (
        stored["path"] == "model.safetensors" and hashlib.sha256(data).hexdigest() == stored["oid"]
    )
    texts = {
        f["value"]["path"]: base64.b64decode(f["value"]["content"])
        for f in files
        if f["key"] == "file"
    }
    assert card_of(texts["README.md"].decode())[0]["license"] == "unknown"


def test_an_empty_folder_is_a_mistake_and_nothing_is_uploaded(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(trained), "hf:user/digits", "--folder", ""]) == 2
    assert "--folder is empty" in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["hf:name"], "the target is 'hf:name'; it must be hf:user/name"),
        (["hf:a/b", "--license", "a\nb"], "the license is 'a\\nb'; it must be an id such as"),
        (["user/name"], "the target is 'user/name'"),
        (["hf:../name"], "the target is 'hf:../name'; it must be hf:user/name"),
        (["hf:user/name"], "no Hugging Face token found"),
    ],
)
def test_mistakes_are_one_line(trained, monkeypatch, capsys, argv, words):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["push", str(trained), *argv]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main(["push", str(tmp_path), "hf:user/name"]) == 2
    assert "is not a run directory" in capsys.readouterr().err
