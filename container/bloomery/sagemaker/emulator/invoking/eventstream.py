"""AWS's event-stream encoding (application/vnd.amazon.eventstream), as far as a stream of answers needs it.

A message is two lengths and their CRC-32, headers, a payload, and the CRC-32 of everything before it; numbers are
big-endian. Header values here are strings, type 7. Source: botocore's decoder (botocore/eventstream.py).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from struct import pack

CONTENT_TYPE = "application/vnd.amazon.eventstream"
# A decoder refuses payloads above 24 MiB; larger pieces are cut.
_LARGEST = 16 * 2**20
_FRAME = 16  # bytes around headers and payload


def payload_parts(data: bytes) -> bytes:
    """``data`` as PayloadPart events: one, unless it is larger than a message may be."""
    if len(data) <= _LARGEST:
        return _message(_PART, data)
    return b"".join(_message(_PART, data[start : start + _LARGEST]) for start in range(0, len(data), _LARGEST))


def exception(name: str, members: Mapping[str, str]) -> bytes:
    """The message that ends a stream with the modelled error ``name``."""
    head = {":message-type": "exception", ":exception-type": name, ":content-type": "application/json"}
    return _message(_headers(head), json.dumps(members).encode())


def _headers(headers: Mapping[str, str]) -> bytes:
    encoded = b""
    for name, value in headers.items():
        encoded += pack("!B", len(name)) + name.encode() + b"\x07" + pack("!H", len(value)) + value.encode()
    return encoded


def _message(headers: bytes, payload: bytes) -> bytes:
    prelude = pack("!II", _FRAME + len(headers) + len(payload), len(headers))
    checked = prelude + pack("!I", zlib.crc32(prelude)) + headers + payload
    return checked + pack("!I", zlib.crc32(checked))


_PART = _headers({":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"})
