"""Reads the body of a request: a picture, as raw bytes or as a form (multipart/form-data)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from perceptual.serve.refusals import Refused, gone
from perceptual.web import Receive

FIELDS = 40
"""Largest number of fields in a form."""
IDLE = 30.0
"""Seconds without data, after which a body is refused: its request has a place in the queue while it arrives."""
PER_MEGABYTE = 1.0
"""Seconds for a whole body, for each megabyte of the largest one, besides IDLE."""


async def read_body(request: Request, *, most: int, until: float) -> tuple[bytes, list[tuple[str, str]]]:
    """The bytes of the picture, and the options as (name, text): from the query, then from the fields of a form.

    most: largest number of bytes. until: a time of `time.monotonic`; later the request is refused.

    Raises:
        Refused: 400 without a picture or for a damaged form, 408 if the body is slow, 413 if it is too large.
    """
    try:
        data = await _read(request, most, min(until - time.monotonic(), IDLE + PER_MEGABYTE * most / 1e6))
    except TimeoutError as error:
        raise Refused(408, "timeout", "The picture did not arrive in time: send it again.") from error
    except ClientDisconnect as error:
        raise gone() from error
    options = list(request.query_params.multi_items())
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        data, fields = await _form(request, data)
        options += fields
    if not data:
        raise Refused(400, "body", "The request has no picture: send its file as the body, or in a form.")
    return data, options


def too_large(most: int) -> Refused:
    """The refusal of a body of more than `most` bytes."""
    return Refused(413, "too_large", f"The request is larger than {most / 1e6:g} MB: send a smaller file.")


async def left(request: Request) -> None:
    """Wait until the client closes its connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, most: int, seconds: float) -> bytes:
    """The body. TimeoutError after so many seconds, or IDLE seconds without data."""
    body, clock = bytearray(), asyncio.get_running_loop().time
    end = clock() + seconds
    async with asyncio.timeout(min(IDLE, seconds)) as limit:
        async for chunk in request.stream():
            if len(body) + len(chunk) > most:
                raise too_large(most)
            body += chunk
            limit.reschedule(min(end, clock() + IDLE))
    return bytes(body)


async def _form(request: Request, body: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """The one file of a form, and its other fields as (name, text)."""

    async def replay() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        form = await Request(request.scope, replay).form(max_files=1, max_fields=FIELDS, max_part_size=len(body))
    except HTTPException as error:
        raise Refused(400, "body", f"The form is damaged or too long ({error.detail}): send one file in it.") from error
    picture, fields = b"", list[tuple[str, str]]()
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            picture = await value.read()
        else:
            fields.append((name, value))
    await form.close()
    return picture, fields


async def drain(receive: Receive) -> None:
    """Read and forget the rest of a body, so that the client reads the refusal and not a broken connection.

    It stops after 2 seconds without a byte, and after 30 seconds in all.
    """
    until, more = time.monotonic() + 30, True
    while more and (rest := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), min(2, rest))
        except TimeoutError:
            return
        more = message.get("more_body", False)
