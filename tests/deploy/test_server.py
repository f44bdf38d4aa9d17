"""`jaxcnn serve`: a real server, with many clients at once and with bad requests."""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import pytest
from drawing import draw_variables
from photos import encode, jpeg, pixels
from PIL import Image
from webdriver import browser

import jaxcnn
from jaxcnn import weights
from jaxcnn.cli import main
from jaxcnn.evaluation import open_entry, predict_files

for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)

from jaxcnn.deploy import make_app  # noqa: E402
from jaxcnn.deploy.classifier import MAX_PIXELS, batch_sizes  # noqa: E402

IMAGES = 24
HOW = weights.Preprocessing(32, 0.9, "bilinear", (0.4,), (0.3,))
PNG = {"Content-Type": "image/png"}


@contextlib.contextmanager
def serving(app):
    """The port of a server in a thread."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, log_level="critical", access_log=False, server_header=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        port = bound.getsockname()[1]
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield port
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    variables = draw_variables(jaxcnn.create_model("lenet5"), (1, 32, 32, 1))
    weights.save(
        folder / "lenet.npz", "lenet5", variables, preprocessing=HOW, class_names="abcdefghij"
    )
    for i in range(IMAGES):
        (folder / f"{i}.png").write_bytes(encode(Image.fromarray(pixels(i, 40 + i, 50)), "PNG"))
    return folder


@pytest.fixture(scope="module")
def port(folder):
    app = make_app(open_entry(str(folder / "lenet.npz")), batch=6, queue=40, max_bytes=200_000)
    with serving(app) as port:
        yield port


@pytest.fixture(scope="module")
def wanted(folder):
    """The direct prediction for each image."""
    entry = open_entry(str(folder / "lenet.npz"))
    paths = [folder / f"{i}.png" for i in range(IMAGES)]
    found = predict_files(entry.make(), entry.variables, paths, HOW, entry.class_names, top=3)
    return list(found)


def ask(port, method, path, body=None, headers=None):
    """(status, content) of one request; the content of JSON is parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        is_json = answer.getheader("content-type", "") == "application/json"
        return answer.status, json.loads(data) if is_json else data


def form(data, name="file"):
    """A form with one file."""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    body = head.encode() + data + b"\r\n--x--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


def as_json(data):
    text = json.dumps({"image": base64.b64encode(data).decode()})
    return text, {"Content-Type": "application/json"}


WAYS = (form, as_json, lambda data: (data, PNG))


def check(answer, want):
    status, content = answer
    assert status == 200 and len(content["top"]) == len(want)
    for got, one in zip(content["top"], want):
        assert (got["index"], got["name"]) == (one.index, one.name)
        assert got["probability"] == pytest.approx(one.probability, abs=1e-5)


def metric(port, name):
    text = ask(port, "GET", "/metrics")[1].decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines())
    return {key: float(value) for key, value in lines if key.startswith(name)}


def ask_many(port, files, count, at_once):
    """Answers to `count` requests, in their order, with `at_once` clients."""

    def one(i):
        return ask(port, "POST", "/predict?top=3", *WAYS[i % 3](files[i % len(files)]))

    with concurrent.futures.ThreadPoolExecutor(at_once) as clients:
        return list(clients.map(one, range(count)))


def test_no_answer_is_lost_or_mixed_up(port, folder, wanted):
    files = [(folder / f"{i}.png").read_bytes() for i in range(IMAGES)]
    before = metric(port, "jaxcnn_batch_size_")
    answers = ask_many(port, files, 300, at_once=16)
    for i, answer in enumerate(answers):
        check(answer, wanted[i % IMAGES])
    sizes = metric(port, "jaxcnn_batch_size_")
    images = sizes["jaxcnn_batch_size_sum"] - before["jaxcnn_batch_size_sum"]
    batches = sizes["jaxcnn_batch_size_count"] - before["jaxcnn_batch_size_count"]
    assert images == 300 and batches < 300  # some came together
    assert metric(port, "jaxcnn_in_progress") == {"jaxcnn_in_progress": 0}
    done = metric(port, "jaxcnn_requests_total")
    assert done['jaxcnn_requests_total{path="/predict",status="200"}'] >= 300


def test_page_health_and_explanation(port, folder):
    status, page = ask(port, "GET", "/")
    assert status == 200 and b"<!doctype html>" in page
    status, health = ask(port, "GET", "/healthz")
    assert (status, health["status"], health["source"]) == (200, "ok", "lenet.npz")
    data = (folder / "0.png").read_bytes()
    chosen = ask(port, "POST", "/predict?top=1", *form(data))[1]["top"][0]["index"]
    pictures = [
        ask(port, "POST", path, data, PNG) for path in ("/explain", f"/explain?class={chosen}")
    ]
    assert pictures[0] == pictures[1]
    with Image.open(io.BytesIO(pictures[0][1])) as picture:
        assert (picture.size, picture.format, picture.mode) == ((32, 32), "PNG", "RGB")


def bomb(width, height):
    """A PNG of a few bytes that claims a size."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


GOOD = jpeg(pixels(0, 40, 50))
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"no image", PNG, 400, "is not an image"),
        (b"", PNG, 400, "is empty"),
        (GOOD[:-200], PNG, 400, "cannot be decoded"),
        (bomb(30_000, 30_000), PNG, 400, "too large"),
        (bomb(MAX_PIXELS // 5000, 5001), PNG, 400, f"at most {MAX_PIXELS:,}"),
        (bomb(1, 4000), PNG, 400, "is 1 x 4000"),
        ("--x\r\nContent-Disposition: form-data; name=\"\xe4\"\r\n\r\n1\r\n--x--\r\n".encode(),
         {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}, 400, "form"),
        (bytes(200_001), PNG, 413, "larger than 200,000 bytes"),
        (GOOD, {"Content-Type": "text/html"}, 415, "'text/html'"),
        (GOOD, {}, 415, "content type is ''"),
        (*form(GOOD)[:1], {"Content-Type": "multipart/form-data"}, 400, "form"),
        (b"--x--\r\n", form(b"")[1], 400, "the form has no file"),
        (form(bytes(210_000))[0], form(b"")[1], 413, "larger"),
        ("{", as_json(b"")[1], 400, "not JSON"),
        (DEEP, as_json(b"")[1], 400, '"image"'),
        ('{"a":' * 50 + "{", as_json(b"")[1], 400, "not JSON"),
        (GOOD + b"\xff\xda\x00\x0c" * 101, PNG, 400, "has more than 100 scans"),
        ("[1]", as_json(b"")[1], 400, '"image"'),
        ('{"image": "?"}', as_json(b"")[1], 400, "base64"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(port, folder, body, headers, status, words):
    found, content = ask(port, "POST", "/predict", body, headers)
    assert found == status and words in content["error"], content
    assert str(folder.parent) not in json.dumps(content) and "\n" not in content["error"]
    check_alive(port)


def check_alive(port):
    assert ask(port, "POST", "/predict", GOOD, PNG)[0] == 200
    assert metric(port, "jaxcnn_in_progress") == {"jaxcnn_in_progress": 0}


def test_bad_queries_and_paths(port):
    for path in ("/predict?top=0", "/predict?top=11", "/predict?top=x", "/explain?class=10"):
        status, content = ask(port, "POST", path, GOOD, PNG)
        assert status == 400 and "it must be from" in content["error"]
    assert ask(port, "GET", "/predict")[0] == 405
    assert ask(port, "GET", "/../etc/passwd")[0] == 404


def test_a_body_of_unknown_length_is_limited(port):
    """Chunked, so that only counting shows that it is too long."""
    status, content = ask(port, "POST", "/predict", iter([bytes(50_000)] * 10), PNG)
    assert status == 413 and "larger" in content["error"]
    check_alive(port)


def test_a_client_that_leaves_frees_its_place(port):
    for _ in range(50):  # more than the queue is long
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
                           b"Content-Length: 5000\r\n\r\nbegin")  # fmt: skip
    deadline = time.monotonic() + 20
    while metric(port, "jaxcnn_in_progress") != {"jaxcnn_in_progress": 0}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check_alive(port)


def test_more_requests_than_the_queue_holds_are_refused(port):
    """Clients that have sent half of their image hold all places."""
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head % len(GOOD) + GOOD[:100])
        while metric(port, "jaxcnn_in_progress") != {"jaxcnn_in_progress": 40}:
            time.sleep(0.02)
        status, content = ask(port, "POST", "/predict", GOOD, PNG)
        assert status == 429 and "40 requests are in progress" in content["error"]
        assert ask(port, "GET", "/healthz")[0] == 200
        client.sendall(GOOD[100:])  # the last one goes on, and is answered
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    deadline = time.monotonic() + 20
    while metric(port, "jaxcnn_in_progress") != {"jaxcnn_in_progress": 0}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check_alive(port)


def test_batch_sizes():
    assert [batch_sizes(n) for n in (1, 2, 4, 6, 16)] == [
        [1],
        [1, 2],
        [1, 4],
        [1, 4, 6],
        [1, 4, 16],
    ]


def test_numbers_are_checked(folder):
    entry = open_entry(str(folder / "lenet.npz"))
    with pytest.raises(ValueError, match="queue is 0; it must be 1 to 100,000"):
        make_app(entry, queue=0)


def test_a_port_that_is_taken(folder, port, capsys):
    assert main(["serve", str(folder / "lenet.npz"), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}: " in capsys.readouterr().err
    assert main(["serve", str(folder / "lenet.npz"), "--host", "é" * 70]) == 2
    assert "which cannot be a host" in capsys.readouterr().err


@contextlib.contextmanager
def command(what, *options):
    """(process, port) of `jaxcnn serve`, from its first line to Ctrl-C."""
    words = [sys.executable, "-m", "jaxcnn.cli", "serve", what, "--port=0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        line = process.stdout.readline().decode()
        try:
            yield process, int(re.fullmatch(r"serving \S+ on http://127.0.0.1:(\d+) .*\n", line)[1])
        finally:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"jaxcnn: interrupted\n")


@pytest.mark.slow
def test_the_command(folder, wanted):
    with command(str(folder / "lenet.npz")) as (_, port):
        data = (folder / "0.png").read_bytes()
        check(ask(port, "POST", "/predict?top=3", data, PNG), wanted[0])


@pytest.mark.slow
def test_load(folder):
    """10,000 requests by 1, 8 and 64 clients: each is answered rightly, and memory stays flat."""
    entry = open_entry("lenet5.digits")
    paths = [folder / f"{i}.png" for i in range(IMAGES)]
    files = [path.read_bytes() for path in paths]
    model, prepare = entry.make(), entry.preprocessing
    wanted = list(predict_files(model, entry.variables, paths, prepare, entry.class_names, top=3))
    with command("lenet5.digits", "--queue=128") as (process, port):
        memory = pathlib.Path(f"/proc/{process.pid}/statm")
        if not memory.exists():
            pytest.skip("this system does not tell the memory of a process")

        def mebibytes():
            return int(memory.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

        ask_many(port, files, 500, at_once=64)
        before = mebibytes()
        for count, at_once in ((1000, 1), (4000, 8), (5000, 64)):
            for i, answer in enumerate(ask_many(port, files, count, at_once)):
                check(answer, wanted[i % IMAGES])
            now = mebibytes()
            print(f"{count} requests, {at_once} at once: {before:.0f} to {now:.0f} MiB")
            assert now - before < 20
        answered = 'jaxcnn_requests_total{path="/predict",status="200"}'
        assert metric(port, "jaxcnn_requests_total") == {answered: 10_500}


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
document.body.dispatchEvent(new DragEvent("drop", options));
"""
ROWS = r"return [...document.querySelectorAll('#top tr')].map(row => row.innerText.split(/\s+/))"
EVIDENCE = """
const [seen, heat, text] = ["seen", "heat", "caption"].map(id => document.getElementById(id));
return !seen.hidden && heat.complete && heat.naturalWidth && text.textContent === arguments[0];
"""
RIGHT_EDGE = """
const edges = [...document.body.querySelectorAll("*")].map(e => e.getBoundingClientRect().right);
return Math.max(...edges);
"""


@pytest.mark.slow
def test_the_page_in_a_browser(port, folder, wanted):
    """A photo that is chosen, one that is dropped, a click on a class, and a file that is none."""
    with browser() as page:
        page.open(f"http://127.0.0.1:{port}/")
        about = page.wait_for("return document.getElementById('about').textContent")
        assert about.startswith("lenet5_modern with 10 classes, from lenet.npz.")
        for width, number in ((1280, 3), (390, 4)):
            page.resize(width, 900)
            if number == 3:
                page.choose_file("#file", folder / "3.png")
            else:
                data = base64.b64encode((folder / "4.png").read_bytes()).decode()
                page.run(DROP, data)
            page.wait_for(EVIDENCE, f"evidence for {wanted[number][0].name} (Grad-CAM)")
            rows = page.run(ROWS)
            assert len(rows) == 5
            for row, one in zip(rows, wanted[number]):
                percent = pytest.approx(100 * one.probability, abs=0.006)
                assert row[0] == one.name and float(row[-2]) == percent
            page.run("document.querySelectorAll('#top tr')[2].click()")
            page.wait_for(EVIDENCE, f"evidence for {rows[2][0]} (Grad-CAM)")
            assert page.run(RIGHT_EDGE) <= width
        page.run(DROP, "AAAA")
        text = page.wait_for("return document.getElementById('error').textContent")
        assert "image" in text and page.run(ROWS) == []
