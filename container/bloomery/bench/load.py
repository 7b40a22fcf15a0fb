"""A load generator that costs little itself: kept-open HTTP/1.1 connections that ask again once they are answered.

A full HTTP client takes more processor time per request than the server that is measured, and on few cores it takes it
from that server. This one sends the same prepared bytes and reads only the status line and Content-Length.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from bloomery.errors import WorkerError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


@dataclass
class Load:
    """What the connections have seen."""

    latencies: list[float] = field(default_factory=list)  # seconds
    elapsed: float = 0.0


def ask(url: str, body: bytes, connections: int, seconds: float) -> Load:
    """POST ``body`` to ``url`` over so many connections for so long; the answer must be ``body`` again."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ask(url, body, connections, seconds))


async def _ask(url: str, body: bytes, connections: int, seconds: float) -> Load:
    parts = urlsplit(url)
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: text/plain\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    load, loop = Load(), asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [_Client(request, body, load, started + seconds) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(partial(_itself, client), parts.hostname or "127.0.0.1", parts.port or 80)
    await asyncio.gather(*(client.finished for client in clients))
    load.elapsed = time.perf_counter() - started
    return load


def _itself(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, expected: bytes, load: Load, deadline: float) -> None:
        self._request, self._expected, self._load, self._deadline = request, expected, load, deadline
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = bytearray()
        self._whole = 0  # bytes of the answer with its head, known once the head is here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's own class
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._whole and (end := self._received.find(_HEAD_END)) >= 0:
            self._whole = self._length(end)
        if self._whole and len(self._received) >= self._whole:
            self._answered()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_exception(WorkerError(f"the server closed a connection: {error or 'no reason given'}"))

    def _send(self) -> None:
        self._received.clear()
        self._whole = 0
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _length(self, end: int) -> int:
        head = bytes(self._received[:end])
        match = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or match is None:
            self._fail(head.decode("latin-1"))
            return 0
        return end + len(_HEAD_END) + int(match[1])

    def _answered(self) -> None:
        now = time.perf_counter()
        if not self._received.endswith(self._expected):
            self._fail("another body than was sent")
            return
        self._load.latencies.append(now - self._sent_at)
        if now < self._deadline:
            self._send()
        else:
            self.finished.set_result(None)
            self._transport.close()

    def _fail(self, answer: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(WorkerError(f"the echo came back wrong: {answer[:500]}"))
        self._transport.close()
