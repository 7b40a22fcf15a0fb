"""A worker's Answer as an HTTP response, complete or streamed."""

from __future__ import annotations

import asyncio
import json
import logging

from aiohttp import hdrs, web

from bloomery.errors import RequestError, ServiceUnavailableError, StreamError
from bloomery.http_api import sanitise
from bloomery.http_api.complete import Complete
from bloomery.http_api.finish import NO_CONTENT_TYPE
from bloomery.workers.answer import Answer

logger = logging.getLogger(__name__)
# How long the last record of a broken stream may take to leave; a client that does not read does without it.
_LAST_WORD = 2.0
RETRY_AFTER = "2"  # seconds
_SENT = web.ResponseKey("sent", int)  # bytes of a stream's body


def of_error(error: RequestError) -> web.Response:
    """DJLServing's error document, with Retry-After where trying again is worth it."""
    headers = {"Retry-After": RETRY_AFTER} if isinstance(error, ServiceUnavailableError) else {}
    body = sanitise.error_body(error.status, error.type_name, str(error))
    return web.Response(status=error.status, body=body, content_type="application/json", headers=headers)


def document(content: object, status: int = 200) -> web.Response:
    """A JSON document of our own, written the way DJLServing writes them."""
    body = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    return web.Response(status=status, body=body, content_type="application/json")


def size(response: web.StreamResponse) -> int:
    """Bytes of its body, without headers and framing."""
    if isinstance(response, web.Response):
        return len(response.body) if isinstance(response.body, (bytes, bytearray)) else 0
    sent: int = response.get(_SENT, 0)
    return sent


async def send(request: web.Request, answer: Answer, write_timeout: float) -> web.StreamResponse:
    """Send ``answer``. A stream has left when this returns; a complete answer is returned for aiohttp to send."""
    head = head_of(answer)
    if answer.stream is None or head.explanation is not None or not head.has_body:
        return of_head(head, body_of(answer, head))
    return await _stream(request, answer, head, write_timeout)


def head_of(answer: Answer) -> sanitise.Head:
    """Status line and headers; the log tells what HTTP cannot carry."""
    head = sanitise.head(answer.code, answer.message, answer.properties)
    if head.dropped:
        logger.warning("headers that HTTP cannot carry were left out of the answer: %s", ", ".join(head.dropped))
    return head


def body_of(answer: Answer, head: sanitise.Head) -> bytes | None:
    """The body of a complete answer; one that is made up here gets its content type into ``head``."""
    if head.explanation is not None:
        return head.explanation
    if not head.has_body:
        return None
    content = bytes(answer.content[0][1]) if answer.content else None
    body = sanitise.completed_body(head.status, answer.message, content)
    if content is None and body is not None:
        head.headers.append((hdrs.CONTENT_TYPE, "application/json"))
    return body


def of_head(head: sanitise.Head, body: bytes | None) -> web.Response:
    """A complete response."""
    response = Complete(status=head.status, reason=head.reason, body=body)
    _fill_headers(response, head)
    return response


def _fill_headers(response: web.StreamResponse, head: sanitise.Head) -> None:
    for name, value in head.headers:
        response.headers[name] = value
    response[NO_CONTENT_TYPE] = hdrs.CONTENT_TYPE not in response.headers


async def _stream(
    request: web.Request, answer: Answer, head: sanitise.Head, write_timeout: float
) -> web.StreamResponse:
    assert answer.stream is not None
    response = web.StreamResponse(status=head.status, reason=head.reason)
    _fill_headers(response, head)
    await response.prepare(request)
    content_type = response.headers.get(hdrs.CONTENT_TYPE, "")
    after_newline = True
    response[_SENT] = 0
    try:
        async for piece in answer.stream:
            if piece:
                async with asyncio.timeout(write_timeout):
                    await response.write(piece)
                response[_SENT] += len(piece)
                after_newline = piece.endswith(b"\n")
        await response.write_eof()
    except StreamError as error:
        logger.warning("a stream broke off: %s", error)
        record = error.record or sanitise.stream_failure(content_type, error.status, str(error), after_newline)
        await _abort(request, response, record)
    except TimeoutError:
        logger.warning("a client took nothing of its stream for %g s; its connection is closed", write_timeout)
        await _abort(request, response, None)
    except ConnectionError:
        raise  # the client has left
    except Exception as error:
        logger.exception("a stream broke off inside the server")
        text = f"the server failed: {type(error).__name__}"
        await _abort(request, response, sanitise.stream_failure(content_type, 500, text, after_newline))
    return response


async def _abort(request: web.Request, response: web.StreamResponse, record: bytes | None) -> None:
    """End a stream so that the client notices: the connection closes without the last, empty chunk."""
    transport = request.transport
    try:
        if record is not None:
            async with asyncio.timeout(_LAST_WORD):
                await response.write(record)
    except (TimeoutError, ConnectionError):
        record = None
    if transport is not None:
        # close() still sends what is buffered; abort() would lose the record on its way.
        transport.close() if record is not None else transport.abort()
