"""The one place where a worker's answer becomes fit for HTTP.

A handler may put anything into status, message and properties. Passed on as it is, a line break in the reason makes
aiohttp answer 500, a status such as 99 or 1000 goes out as it is and breaks clients, and a Content-Length of the
handler's truncates the body or lets the client wait for ever.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bloomery.formats import error_line
from bloomery.protocol import private
from bloomery.protocol.events import Failure

# The server alone decides how a message is framed and how long a connection lives (RFC 9110, section 7.6.1).
_OURS = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "date",
        "server",
        "x-request-id",
    ]
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]+")
_MAX_REASON = 200
# What common clients and proxies take in one header line, in all of them together, and how many.
_MAX_LINE, _MAX_LINES_TOGETHER, _MAX_LINES = 8000, 32_000, 90
_WITHOUT_BODY = (204, 205, 304)


@dataclass(slots=True)
class Head:
    """Status line and headers that may be sent as they are. ``explanation`` replaces the body when it is not None."""

    status: int
    reason: str | None  # None: the standard phrase
    headers: list[tuple[str, str]]
    explanation: bytes | None = None
    dropped: tuple[str, ...] = ()  # names of headers that were left out because their values cannot be sent

    @property
    def has_body(self) -> bool:
        """Whether HTTP allows a body here at all."""
        return self.status not in _WITHOUT_BODY


def head(code: int, message: str, properties: Mapping[str, str]) -> Head:
    """A worker's status, message and properties as HTTP can carry them."""
    if not 200 <= code <= 599:
        text = f"the handler answered with status {code}, which is not an HTTP status from 200 to 599"
        return Head(502, None, [("Content-Type", "application/json")], error_body(502, "InvalidStatusException", text))
    kept, dropped = _headers(properties)
    if code in _WITHOUT_BODY:
        kept = [(name, value) for name, value in kept if name.lower() not in ("content-type", "content-encoding")]
    return Head(code, reason(message), kept, dropped=dropped)


def reason(message: str) -> str | None:
    """``message`` on one line of printable ASCII; None when nothing of it is left."""
    line = _one_line(message)[:_MAX_REASON]
    return line.encode("ascii", "replace").decode("ascii").strip() or None


def _headers(properties: Mapping[str, str]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    kept: dict[str, tuple[str, str]] = {}  # by lower-case name: a later spelling replaces an earlier one
    dropped = []
    together = 0
    for name, value in properties.items():
        lower = name.lower()
        if lower in _OURS or lower.startswith(private.PREFIX):
            continue
        line = _one_line(value)
        size = len(name) + len(line.encode())
        fits = size <= _MAX_LINE and together + size <= _MAX_LINES_TOGETHER and len(kept) < _MAX_LINES
        if not fits or not _TOKEN.fullmatch(name):
            dropped.append(_one_line(name)[:80].encode("ascii", "backslashreplace").decode("ascii"))
        else:
            kept[lower] = (name, line)
            together += size
    return list(kept.values()), tuple(dropped)


def _one_line(text: str) -> str:
    return (text if text.isascii() and text.isprintable() else _CONTROL.sub(" ", text)).strip()


def error_body(status: int, type_name: str, message: str) -> bytes:
    """DJLServing's error document."""
    document = {"code": status, "type": type_name, "message": message}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def completed_body(code: int, message: str, content: bytes | None) -> bytes | None:
    """A refusal without a word gets one: DJLServing's 507 has an empty body, and its reason is lost on the way."""
    if content is None and code >= 400:
        phrase = http.HTTPStatus(code).phrase if code in {status.value for status in http.HTTPStatus} else "Error"
        return error_body(code, "HandlerException", message.strip() or phrase)
    return content


def stream_failure(content_type: str, status: int, message: str, after_newline: bool) -> bytes | None:
    """The last record of a stream that broke off, None where the format has no place for one."""
    mime = content_type.partition(";")[0].strip().lower()
    record = error_line(Failure(status, message)).rstrip(b"\n")
    if mime in ("application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson"):
        return (b"" if after_newline else b"\n") + record + b"\n"
    if mime == "text/event-stream":
        return (b"" if after_newline else b"\n\n") + b"data: " + record + b"\n\n"
    return None
