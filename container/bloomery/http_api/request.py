"""An HTTP request as the worker protocol's Request."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from bloomery.errors import BadRequestError, PayloadTooLargeError
from bloomery.protocol import private
from bloomery.protocol.frames import MAX_ENTRIES, TRACKING_ID, ContentPart, Request, property_of

# A UUID's form, this process's own random part and a number: uuid4() asks the operating system for every request.
_PREFIX, _numbers = str(uuid.uuid4())[:24], itertools.count(1)
REQUEST_ID = web.RequestKey("request_id", str)
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
# Properties by which server and worker understand each other: a client that sends such a header would be believed.
_RESERVED = frozenset(
    [
        "batch_size",
        "device_id",
        "model_dir",
        "tensor_parallel_degree",
        "pipeline_parallel_degree",
        "cluster_size",
        "requestid",
        TRACKING_ID,
        "reset_rollingbatch",
    ]
)
_HANDLER = "handler"  # would choose which function of the handler runs
_NO_OTHER_HANDLER = "The handler can't be overridden in a request"
_LONG_FORM = 2**20  # bytes: taking one apart would hold up every other request
_DECODED = frozenset(("gzip", "deflate", "br", "zstd"))


def identify(request: web.BaseRequest, header: str) -> str:
    """The client's request id, by this header, when it is short and printable, else a new one."""
    stated = request.headers.get(header, "")
    if stated and len(stated) <= 128 and stated.isascii() and stated.isprintable():
        return stated
    return f"{_PREFIX}{next(_numbers):012x}"


async def read(request: web.Request, identifier: str, limit: int) -> Request:
    """Properties and content parts. Parts of the query come after the body's, so that ``?data=`` cannot hide it."""
    refuse_too_large(request.content_length, limit)
    properties = _properties(request)
    properties["requestId"] = identifier
    content = _plain_body(request, limit) or await _body(request, limit)
    content += [(key, value.encode("utf-8", "replace")) for key, value in request.query.items()]
    return Request(properties, content)


def accept_by_default(properties: dict[str, str], accept: str) -> None:
    """Give a request that would take anything the media type that the server's settings prefer."""
    names = [name for name in properties if name.lower() == "accept"]
    if all(properties[name].strip() in ("", "*/*") for name in names):
        properties[names[0] if names else "Accept"] = accept


def unreadable(error: web.RequestPayloadError) -> BadRequestError:
    """What a client hears whose body aiohttp could not unpack, or take the chunks of apart."""
    cause = str(error).partition("message:")[2].strip() or str(error)
    return BadRequestError(f"the body cannot be read: {cause}")


def refuse_too_large(size: int | None, limit: int) -> None:
    """Refuse a body by the length it announces, before any of it is read."""
    if size is not None and size > limit:
        raise PayloadTooLargeError(
            f"the request's body has {size} bytes; this server takes {limit} at most (SERVING_MAX_REQUEST_SIZE)"
        )


def _properties(request: web.Request) -> dict[str, str]:
    """Headers under the names the client gave them; of a repeated one the last wins, as in DJLServing."""
    by_lower: dict[str, tuple[str, str]] = {}
    for raw_name, raw_value in request.raw_headers:
        name, lower, passes = _header(raw_name)
        if passes:
            by_lower[lower] = name, raw_value.decode("latin-1")
        elif lower == CUSTOM_ATTRIBUTES:
            _add_attributes(by_lower, raw_value.decode("latin-1"))
        elif lower == _HANDLER:
            raise BadRequestError(_NO_OTHER_HANDLER)
    if "content-encoding" in by_lower and by_lower["content-encoding"][1].strip().lower() in _DECODED:
        del by_lower["content-encoding"]  # aiohttp has unpacked the body
        by_lower.pop("content-length", None)
    return dict(by_lower.values())


@lru_cache(512)
def _header(raw_name: bytes) -> tuple[str, str, bool]:
    """A header's name, the same in lower case, and whether the worker gets the header as it is."""
    name = raw_name.decode("latin-1")
    lower = name.lower()
    return name, lower, lower not in (CUSTOM_ATTRIBUTES, _HANDLER) and _passes(lower)


def _passes(lower: str) -> bool:
    return bool(lower) and lower not in _RESERVED and not lower.startswith(private.PREFIX)


def _add_attributes(by_lower: dict[str, tuple[str, str]], value: str) -> None:
    """The pairs of SageMaker's one header for a container's own."""
    for name, equals, text in (part.partition("=") for part in value.split(";")):
        lower = name.strip().lower()
        if equals and lower == _HANDLER:
            raise BadRequestError(_NO_OTHER_HANDLER)
        if equals and _passes(lower):
            by_lower[lower] = name.strip(), text.strip()


def _plain_body(request: web.Request, limit: int) -> list[ContentPart] | None:
    """The body if it is no form and here in whole, as that of nearly every small request is; else None."""
    if not request.content.is_eof() or "form" in request.headers.get(hdrs.CONTENT_TYPE, "").lower():
        return None
    body = request.content.read_nowait()
    if len(body) > limit:
        raise _too_large(limit)
    return [("data", body)]


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the request's body has more than the {limit} bytes that this server takes (SERVING_MAX_REQUEST_SIZE)"
    )


async def _body(request: web.Request, limit: int) -> list[ContentPart]:
    kind = request.content_type.lower()
    if kind == "multipart/form-data":
        return await _multipart(request, limit) or [("data", b"")]
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(limit) from error
    # curl -d says "form" when nobody says otherwise; a body that begins as JSON does is not one.
    if kind == "application/x-www-form-urlencoded" and body and body.lstrip()[:1] not in (b"{", b"["):
        return await asyncio.to_thread(_fields, body) if len(body) > _LONG_FORM else _fields(body)
    return [("data", body)]


def _fields(body: bytes) -> list[ContentPart]:
    """The parts of an URL-encoded form."""
    if (count := body.count(b"&") + 1) > MAX_ENTRIES:
        raise BadRequestError(f"a form may have {MAX_ENTRIES} fields; this one has {count}")
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="surrogateescape")
    except ValueError as error:
        raise BadRequestError(f"the body is not application/x-www-form-urlencoded: {error}") from error
    return [(_text(key), value.encode("utf-8", "surrogateescape")) for key, value in fields] or [("data", b"")]


def _text(key: str) -> str:
    """A key that every handler can write out again: what is not UTF-8 in it becomes U+FFFD."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def _multipart(request: web.Request, limit: int) -> list[ContentPart]:
    parts: list[ContentPart] = []
    total = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise BadRequestError("a multipart body inside a multipart body is not read")
            data = bytearray()
            while piece := await _piece(part):
                total += len(piece)
                refuse_too_large(total, limit)
                data += piece
            if len(parts) == MAX_ENTRIES:
                raise BadRequestError(f"a multipart body may have {MAX_ENTRIES} parts; this one has more")
            parts.append((_text(part.name or "data"), _decoded(part, bytes(data))))
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        cause = error.message if isinstance(error, HttpProcessingError) else error
        raise BadRequestError(f"the body is not multipart/form-data: {cause}") from error
    return parts


async def _piece(part: BodyPartReader) -> bytes:
    await asyncio.sleep(0)  # aiohttp never waits for what is here already, and thousands of parts take it seconds
    return await part.read_chunk(2**16)


def _decoded(part: BodyPartReader, data: bytes) -> bytes:
    """A part's bytes without their transfer encoding (base64, quoted-printable)."""
    coding = part.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if coding.lower() != "identity":  # aiohttp would cut off what it unpacks at a quarter of a megabyte
        raise BadRequestError(f"the part {part.name!r} has Content-Encoding {coding!r}; parts are taken uncompressed")
    return bytes(part.decode(data))


def model_name(request: web.Request, content: list[ContentPart], properties: Mapping[str, str]) -> str | None:
    """The model an /invocations request asks for: by query, header or content part, in that order."""
    stated = request.query.get("model_name")
    if not stated and ("model_name" in request.headers or CUSTOM_ATTRIBUTES in request.headers):
        stated = property_of(properties, "model_name")
    if not stated:
        part = next((data for key, data in content if key == "model_name"), None)
        stated = part.decode("utf-8", "replace") if part else None
    return stated or None
