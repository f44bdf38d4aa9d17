"""Reads the image of a request, within limits of size and time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

_SECONDS = 30  # for a client to send its image
_AROUND = 1000  # bytes of a form or of JSON besides the file
_BRACKETS = 100  # in JSON: lists and objects take time and memory
_DRAINED = 4  # times the limit is read before the answer
_RAW = ("image/", "application/octet-stream")


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Reads the image file of a request.

    The body is the file itself, a form with the file, or JSON: {"image": "base64"}.

    Args:
      request: to be read.
      max_bytes: of the file.

    Raises:
      HTTPException: of status 400, 408, 413 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    too_large = HTTPException(413, f"the image is larger than {max_bytes:,} bytes")
    try:
        async with asyncio.timeout(_SECONDS):
            if kind == "multipart/form-data":
                stream = _stream(request, max_bytes + _AROUND, too_large)
                data = await _from_form(request, stream, max_bytes)
            elif kind == "application/json":
                limit = max_bytes * 4 // 3 + _AROUND  # base64: four characters for three bytes
                body = await _body(_stream(request, limit, too_large))
                data = await asyncio.to_thread(_from_json, body)
            elif kind.startswith(_RAW):
                data = await _body(_stream(request, max_bytes, too_large))
            else:
                raise HTTPException(
                    415,
                    f"the content type is {kind[:60]!r}; it must be multipart/form-data, "
                    "application/json or that of an image",
                )
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive within {_SECONDS} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected") from None
    if len(data) > max_bytes:
        raise too_large
    return data


async def _stream(request: Request, limit: int, too_large: Exception) -> AsyncIterator[bytes]:
    """The body of a request, up to a limit.

    A body that is slightly too long is read to its end before it is rejected, since many clients
    do not read the answer while they are sending.
    """
    length, received = request.headers.get("content-length", ""), 0
    if length.isdigit() and int(length) > _DRAINED * limit:
        raise too_large
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            yield chunk
        elif received > _DRAINED * limit:
            break
    if received > limit:
        raise too_large


async def _body(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def _from_form(request: Request, stream: Any, max_bytes: int) -> bytes:
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=8)
    parser.spool_max_size = max_bytes  # in memory, as other bodies
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    except UnicodeError as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    except KeyError:
        raise HTTPException(400, "the form cannot be read: its header has no boundary") from None
    try:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise HTTPException(400, "the form has no file")


def _from_json(body: bytes) -> bytes:
    if body.count(b"[") + body.count(b"{") > _BRACKETS:
        raise HTTPException(400, 'the JSON is not an object with "image", a base64 string')
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    text = content.get("image") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise HTTPException(400, 'the JSON is not an object with "image", a base64 string')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, '"image" is not base64') from None
