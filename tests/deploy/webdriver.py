"""A real browser, driven by the W3C WebDriver protocol of ChromeDriver."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time

import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard names
_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class Page:
    """One window of a browser."""

    def __init__(self, port):
        self._port, self._session = port, ""
        options = {"goog:chromeOptions": {"args": _OPTIONS}}
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"/session/{answer['sessionId']}"

    def _send(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, self._session + path, body and json.dumps(body))
            value = json.loads(connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(value["message"])
        return value

    def open(self, url):
        self._send("POST", "/url", {"url": url})

    def resize(self, width, height):
        self._send("POST", "/window/rect", {"width": width, "height": height})

    def run(self, script, *arguments):
        """The result of a piece of JavaScript."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def choose_file(self, selector, path):
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        self._send("POST", f"/element/{found[_ELEMENT]}/value", {"text": str(path)})

    def wait_for(self, script, *arguments):
        """The first result of a piece of JavaScript that is not false, null or empty."""
        end = time.monotonic() + 60
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"{script} {arguments}: still {value!r}"
            time.sleep(0.05)
        return value

    def close(self):
        self._send("DELETE", "")


@contextlib.contextmanager
def browser():
    """A page; the test is skipped where there is no ChromeDriver."""
    program = shutil.which("chromedriver")
    if program is None:
        pytest.skip("there is no chromedriver")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while True:
            try:
                page = Page(port)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.05)
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(20)
