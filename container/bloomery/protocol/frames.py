"""Frames of the DJLServing worker socket: bytes <-> values, no policy, no input or output.

The protocol has two dialects, which differ in the length prefix of strings: 32 bits since DJLServing 0.27
(deepjavalibrary/djl-serving#1719), 16 bits before. Integers are big-endian; a length of -1 is a null string.

    request  = int16 n, n x (str key, str value), int16 m, m x (str|null key, int32 length, bytes)
    response = int16 code, str message, int16 n, n x (str, str), then either
               int16 m >= 0, m x (str|null key, int32 length, bytes), or
               int16 -1 and chunks: byte more, int32 length, bytes; more = 0 ends the stream
               (its chunk is empty, or holds an error's text)

Decoders are generators that yield how many bytes they need next and return the value, so that the blocking worker
and the asynchronous server share one decoder: ``read_blocking`` and ``read_async`` drive them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TypeVar

from bloomery.errors import ProtocolError

Value = TypeVar("Value")
Decoder = Generator[int, bytes, Value]
ContentPart = tuple[str | None, bytes]

STREAM = -1
# The property by which DJLServing tells the overlapping requests of an asynchronous worker apart.
TRACKING_ID = "request_tracking_id"
# What one part may claim to hold. DJLServing's own limit is 2 GiB; a corrupt length must not become an allocation.
MAX_PART_BYTES = 2**31 - 1
MAX_ENTRIES = 2**15 - 1


class Dialect(Enum):
    """The width of a string's length prefix."""

    INT16 = struct.Struct(">h")
    INT32 = struct.Struct(">i")

    def __init__(self, prefix: struct.Struct) -> None:
        # Attributes of the member itself: Enum's own ``value`` is a property, which costs more than the packing.
        self.pack, self.unpack, self.unpack_from = prefix.pack, prefix.unpack, prefix.unpack_from
        self.size = prefix.size


# Request, ResponseHead and the classes made of them (Answer, sanitise.Head) are not frozen: nobody changes them, and
# every request makes five, each of which would take four times as long.
@dataclass(slots=True)
class Request:
    """One request to a worker. Keys of content parts may repeat and may be null."""

    properties: dict[str, str] = field(default_factory=dict)
    content: list[ContentPart] = field(default_factory=list)


def property_of(properties: Mapping[str, str], name: str) -> str | None:
    """The property of that name, which is in lower case, in whatever case it was sent; None when there is none."""
    for key in properties:
        if key.lower() == name:
            return properties[key]
    return None


@dataclass(slots=True)
class ResponseHead:
    """A worker's answer; ``content`` is None when stream chunks follow."""

    code: int
    message: str
    properties: dict[str, str] = field(default_factory=dict)
    content: list[ContentPart] | None = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """One piece of a stream. A last chunk with data is the text of an error."""

    data: bytes
    last: bool


_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_CHUNK = struct.Struct(">bi")


def encode_string(value: str | None, dialect: Dialect) -> bytes:
    """A length-prefixed UTF-8 string, or null."""
    if value is None:
        return dialect.pack(-1)
    encoded = value.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_ENTRIES and dialect is Dialect.INT16:
        raise ProtocolError(
            f"a string of {len(encoded)} bytes ({value[:40]!r}…) does not fit the 16-bit dialect's {MAX_ENTRIES}"
        )
    return dialect.pack(len(encoded)) + encoded


def _encode_count(count: int, what: str) -> bytes:
    if count > MAX_ENTRIES:
        raise ProtocolError(f"{count} {what} in one frame; the protocol's limit is {MAX_ENTRIES}")
    return _INT16.pack(count)


def _encode_properties(properties: dict[str, str], dialect: Dialect) -> list[bytes]:
    out = [_encode_count(len(properties), "properties")]
    if dialect is Dialect.INT16:
        out += [encode_string(text, dialect) for text in itertools.chain.from_iterable(properties.items())]
        return out
    append, pack = out.append, dialect.pack
    for name, value in properties.items():
        append(_encode_name(name))
        encoded = value.encode("utf-8", "surrogatepass")  # encode_string, without a call for each
        append(pack(len(encoded)))
        append(encoded)
    return out


@lru_cache(512)
def _encode_name(name: str) -> bytes:
    """Of a property, in the wider dialect: the same ones come with nearly every request."""
    return encode_string(name, Dialect.INT32)


def _encode_content(content: list[ContentPart], dialect: Dialect) -> list[bytes]:
    out = [_encode_count(len(content), "content parts")]
    for key, data in content:
        out += encode_string(key, dialect), _INT32.pack(len(data)), data
    return out


def encode_request(request: Request, dialect: Dialect = Dialect.INT32) -> bytes:
    """The bytes of one request frame."""
    out = _encode_properties(request.properties, dialect)
    out += _encode_content(request.content, dialect)
    return b"".join(out)


def response_buffers(head: ResponseHead, dialect: Dialect = Dialect.INT32) -> list[bytes]:
    """The bytes of one response frame in pieces, so that a sender need not copy a large body."""
    out = [_INT16.pack(head.code), encode_string(head.message, dialect)]
    out += _encode_properties(head.properties, dialect)
    out += [_INT16.pack(STREAM)] if head.content is None else _encode_content(head.content, dialect)
    return out


def encode_response(head: ResponseHead, dialect: Dialect = Dialect.INT32) -> bytes:
    """The bytes of one response frame, up to where stream chunks begin."""
    return b"".join(response_buffers(head, dialect))


def encode_chunk(chunk: Chunk) -> bytes:
    """The bytes of one stream chunk."""
    return _CHUNK.pack(0 if chunk.last else 1, len(chunk.data)) + chunk.data


def _decode_string(dialect: Dialect) -> Decoder[str | None]:
    (length,) = dialect.unpack((yield dialect.size))
    if length == -1:
        return None
    if not 0 <= length <= MAX_PART_BYTES:
        raise ProtocolError(f"a string claims {length} bytes")
    data = (yield length) if length else b""
    try:
        return str(data, "utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a string is not UTF-8: {bytes(data[:40])!r}") from error


def _decode_count(allow_stream: bool = False) -> Decoder[int]:
    (count,) = _INT16.unpack((yield 2))
    if count < 0 and not (allow_stream and count == STREAM):
        raise ProtocolError(f"a frame claims {count} entries")
    return int(count)


def _decode_properties(count: int, dialect: Dialect) -> Decoder[dict[str, str]]:
    properties = {}
    for _ in range(count):
        key = yield from _decode_string(dialect)
        value = yield from _decode_string(dialect)
        if key is None:
            raise ProtocolError(f"a property has no name (its value is {value!r})")
        properties[key] = value or ""
    return properties


def decode_pairs(dialect: Dialect) -> Decoder[dict[str, str]]:
    """A counted list of pairs, as in the payload of one step of a rolling batch."""
    count = yield from _decode_count()
    return (yield from _decode_properties(count, dialect))


def _decode_content(count: int, dialect: Dialect) -> Decoder[list[ContentPart]]:
    content: list[ContentPart] = []
    for _ in range(count):
        key = yield from _decode_string(dialect)
        (length,) = _INT32.unpack((yield 4))
        if length < 0:
            raise ProtocolError(f"content part {key!r} claims {length} bytes")
        content.append((key, (yield length) if length else b""))
    return content


def decode_request(dialect: Dialect | None = None) -> Decoder[tuple[Request, Dialect]]:
    """One request frame and the dialect it was written in.

    With ``dialect=None`` the first property tells: a property's name is never empty, so two zero bytes after the
    count are the upper half of a 32-bit length. A frame without properties cannot tell and reads as 32-bit.
    """
    count = yield from _decode_count()
    if dialect is not None or count == 0:
        chosen = dialect or Dialect.INT32
        properties = yield from _decode_properties(count, chosen)
    else:
        start = bytes((yield 2))
        chosen = Dialect.INT32 if start == b"\0\0" else Dialect.INT16
        properties = yield from _resume(start, _decode_properties(count, chosen))
    parts = yield from _decode_count()
    content = yield from _decode_content(parts, chosen)
    return Request(properties, content), chosen


def _resume(start: bytes, decoder: Decoder[Value]) -> Decoder[Value]:
    """Run ``decoder`` as if ``start`` had not been read yet (it holds no more than the first field)."""
    try:
        wanted = next(decoder)
        rest = wanted - len(start)
        data = start + bytes((yield rest)) if rest else start
        while True:
            data = yield decoder.send(data)
    except StopIteration as stop:
        value: Value = stop.value
        return value


def decode_response(dialect: Dialect = Dialect.INT32) -> Decoder[ResponseHead]:
    """One response frame, up to where stream chunks begin."""
    (code,) = _INT16.unpack((yield 2))
    message = yield from _decode_string(dialect)
    properties = yield from decode_pairs(dialect)
    parts = yield from _decode_count(allow_stream=True)
    content = None if parts == STREAM else (yield from _decode_content(parts, dialect))
    return ResponseHead(code, message or "", properties, content)


def decode_chunk() -> Decoder[Chunk]:
    """One stream chunk."""
    more, length = _CHUNK.unpack((yield 5))
    if more not in (0, 1) or length < 0:
        raise ProtocolError(f"a stream chunk begins with more={more}, length={length}")
    data = bytes((yield length)) if length else b""
    return Chunk(data, last=more == 0)


def read_blocking(decoder: Decoder[Value], receive: Callable[[int], bytes]) -> Value:
    """Drive ``decoder`` with ``receive(n)``, which returns exactly n bytes or raises."""
    try:
        wanted = next(decoder)
        while True:
            wanted = decoder.send(receive(wanted))
    except StopIteration as stop:
        value: Value = stop.value
        return value


async def read_async(decoder: Decoder[Value], receive: Callable[[int], Awaitable[bytes]]) -> Value:
    """Drive ``decoder`` with an awaitable ``receive``, for instance ``StreamReader.readexactly``."""
    try:
        wanted = next(decoder)
        while True:
            wanted = decoder.send(await receive(wanted))
    except StopIteration as stop:
        value: Value = stop.value
        return value


def decode_bytes(decoder: Decoder[Value], data: bytes) -> tuple[Value, bytes]:
    """The value at the start of ``data`` and the bytes after it."""
    position = 0

    def receive(count: int) -> bytes:
        nonlocal position
        if position + count > len(data):
            raise ProtocolError(f"a frame needs {count} bytes at offset {position}, and {len(data)} is all there is")
        position += count
        return data[position - count : position]

    value = read_blocking(decoder, receive)
    return value, data[position:]
