"""The application of `jaxcnn serve`: a page, predictions, explanations and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxcnn._checks import optional_package, require
from jaxcnn._objects import without_folder
from jaxcnn.data.decode import MAX_BYTES, BadImage
from jaxcnn.deploy.artifacts import source_name
from jaxcnn.deploy.batching import Batcher
from jaxcnn.deploy.classifier import Classifier
from jaxcnn.evaluation.evaluate import Entry
from jaxcnn.evaluation.predict import as_row

MOST = {"batch": 4096, "queue": 100_000, "max_bytes": MAX_BYTES}
_DECODERS = 2  # threads that decode images, each at most one at a time
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(entry: Entry, *, batch: int = 16, queue: int = 64, max_bytes: int = 20_000_000) -> Any:
    """Makes the ASGI application that serves a network; run it with uvicorn.

    The network is compiled at once. `GET /` is a page, `POST /predict` and `POST /explain` take an
    image, `GET /healthz` answers when the server runs, and `GET /metrics` is for Prometheus. Errors
    are JSON, {"error": "..."}: of status 400 (the image or a number), 404, 405, 408 (the image did
    not arrive in time), 413 (it is too large), 415 (the type of the content), 429 or 500. An app
    that is mounted in another one needs its lifespan to be run by that one.

    Args:
      entry: the network, see `jaxcnn.evaluation.open_entry`.
      batch: maximum number of images in a batch.
      queue: maximum number of requests in progress; further ones get status 429.
      max_bytes: maximum size of an image file.

    Returns:
      The `starlette.applications.Starlette`.

    Raises:
      ValueError: a number is not positive or too large, or the extra `serve` is not installed.
    """
    check_limits(batch, queue, max_bytes)
    for package in ("starlette", "python_multipart", "prometheus_client"):
        optional_package(package, "serve")
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    service = _Service(entry, batch, queue, max_bytes)

    async def refuse(request: Any, error: Any) -> Any:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def fail(request: Any, error: Exception) -> Any:
        return JSONResponse({"error": "internal error"}, 500)  # uvicorn logs the traceback

    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/predict", service.counted("/predict", service.predict), methods=["POST"]),
            Route("/explain", service.counted("/explain", service.explain), methods=["POST"]),
            Route("/healthz", service.healthz),
            Route("/metrics", service.show_metrics),
        ],
        lifespan=service.lifespan,
        exception_handlers={HTTPException: refuse, Exception: fail},
    )


def check_limits(batch: int, queue: int, max_bytes: int) -> None:
    """Checks the numbers that `make_app` takes. Raises ValueError."""
    for name, value in (("batch", batch), ("queue", queue), ("max_bytes", max_bytes)):
        require(1 <= value <= MOST[name], name, value, f"1 to {MOST[name]:,}")


class _Service:
    """What the requests share: the network, the batches and the metrics."""

    def __init__(self, entry: Entry, batch: int, queue: int, max_bytes: int):
        import prometheus_client as prometheus

        self._classifier = Classifier(entry, batch)
        self._queue, self._max_bytes = queue, max_bytes
        self._batch = batch
        self._about: dict[str, Any] = {
            "model": without_folder(entry.model),
            "source": source_name(entry),
            "classes": entry.classes,
        }
        self._in_progress = 0
        self._registry = registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "jaxcnn_requests", "Requests by status.", ["path", "status"], registry=registry
        )
        self._seconds = prometheus.Histogram(
            "jaxcnn_request_seconds", "Duration of a request.", ["path"], registry=registry
        )
        self._sizes = prometheus.Histogram(
            "jaxcnn_batch_size", "Images predicted at once.", registry=registry,
            buckets=[2**i for i in range(batch.bit_length() + 1)],
        )  # fmt: skip
        gauge = prometheus.Gauge("jaxcnn_in_progress", "Requests in progress.", registry=registry)
        gauge.set_function(lambda: self._in_progress)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Processes batches until the server stops."""
        self._device = ThreadPoolExecutor(1, "device")
        self._decoders = ThreadPoolExecutor(_DECODERS, "decoder")
        self._batcher = Batcher(self._run, self._batch, self._device)
        worker = asyncio.create_task(self._batcher.work())
        yield
        worker.cancel()
        for executor in (self._device, self._decoders):
            executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, images: list[Any]) -> Any:
        self._sizes.observe(len(images))
        return self._classifier.probabilities(images)

    def counted(
        self, path: str, handler: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any], Awaitable[Any]]:
        """A handler within the limit of requests in progress, whose requests are counted."""
        from starlette.exceptions import HTTPException

        async def handle(request: Any) -> Any:
            status = 500
            with self._seconds.labels(path).time():
                try:
                    with self._admitted():
                        response = await handler(request)
                    status = response.status_code
                    return response
                except HTTPException as error:
                    status = error.status_code
                    raise
                finally:
                    self._requests.labels(path, status).inc()

        return handle

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        from starlette.exceptions import HTTPException

        if self._in_progress >= self._queue:
            message = f"{self._queue} requests are in progress; try again later"
            raise HTTPException(429, message, {"Retry-After": "1"})
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1

    async def _image(self, request: Any) -> Any:
        """The preprocessed image of a request, f32[size,size,C]."""
        from starlette.exceptions import HTTPException

        from jaxcnn.deploy.uploads import read_image

        data = await read_image(request, self._max_bytes)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._decoders, self._classifier.read, data)
        except BadImage as error:
            raise HTTPException(400, f"the image {error}") from None

    async def predict(self, request: Any) -> Any:
        """`POST /predict?top=5`: the most probable classes."""
        from starlette.responses import JSONResponse

        count = _number(request, "top", 1, self._about["classes"], min(5, self._about["classes"]))
        row = await self._batcher.submit(await self._image(request))
        found = self._classifier.top(row, count)
        return JSONResponse({"model": self._about["model"], "top": [as_row(one) for one in found]})

    async def explain(self, request: Any) -> Any:
        """`POST /explain?class=0`: a PNG file that shows the evidence for a class."""
        from starlette.exceptions import HTTPException
        from starlette.responses import Response

        if self._classifier.endpoint is None:
            raise HTTPException(404, "this network has no endpoint with feature maps to explain")
        index = _number(request, "class", 0, self._about["classes"] - 1, -1)
        image = await self._image(request)
        if index < 0:
            index = int((await self._batcher.submit(image)).argmax())
        loop, classifier = asyncio.get_running_loop(), self._classifier
        cam = await loop.run_in_executor(self._device, classifier.explain, image, index)
        png = await loop.run_in_executor(self._decoders, classifier.draw, image, cam)
        return Response(png, media_type="image/png")

    async def page(self, request: Any) -> Any:
        """`GET /`."""
        from starlette.responses import HTMLResponse

        text = importlib.resources.files("jaxcnn.deploy").joinpath("page.html").read_text("utf-8")
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(text, headers=headers)

    async def healthz(self, request: Any) -> Any:
        """`GET /healthz`."""
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok", **self._about})

    async def show_metrics(self, request: Any) -> Any:
        """`GET /metrics`."""
        import prometheus_client
        from starlette.responses import Response

        text = prometheus_client.generate_latest(self._registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _number(request: Any, name: str, low: int, high: int, default: int) -> int:
    """A number of the query, within limits."""
    from starlette.exceptions import HTTPException

    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise HTTPException(400, f"{name} is {text[:20]!r}; it must be from {low} to {high}")
    return int(text)
