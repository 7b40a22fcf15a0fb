"""One kept-alive HTTP/1.1 connection that makes GETs.

Own code, because bodies have to go straight into the caller's memory, in large reads outside the interpreter's lock,
and because every way in which a connection can break has to be told apart.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol
from urllib.parse import quote, urlsplit

from bloomery.checkpoints.source import TransientError
from bloomery.checkpoints.wire.answer import Answer, Answered, told
from bloomery.checkpoints.wire.channel import Channel
from bloomery.checkpoints.wire.transport import Origin, Transport, connect, proxy_authorization
from bloomery.errors import CheckpointError

_TARGET = "/:?#[]@!$&'()*+,;=%~"  # what a URL may hold: the rest is escaped, and what is escaped stays


class HttpClient(Protocol):
    """What sources ask with: ``HttpConnection``, or one that another process has (``carrying``)."""

    def get(self, url: str, headers: Mapping[str, str], what: str) -> AbstractContextManager[Answered]:
        """As ``HttpConnection.get``."""
        ...

    def close(self) -> None:
        """As ``HttpConnection.close``."""
        ...


class HttpConnection:
    """Talks to one origin at a time, and opens its socket when it is needed.

    For one thread; ``close`` may come from any, and makes a read under way fail with a TransientError.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._channel: Channel | None = None
        self._origin: Origin | None = None
        self._proxy: str | None = None
        self._lock = threading.Lock()
        self._busy = self._closed = False

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], what: str) -> Iterator[Answer]:
        """The answer to a GET of ``url``, whatever its status. Errors begin with ``what``: "s3://b/k, bytes 0-99".

        Raises TransientError when the connection cannot be made, breaks or stalls; CheckpointError when the server
        cannot be found or trusted.
        """
        with self._lock:
            if self._closed:
                raise TransientError(f"{what}: the connection was closed")
            self._busy = True
        answer = None
        try:
            answer = self._ask(url, headers, what)
            yield answer
        finally:
            reusable = answer is not None and answer.finish()
            with self._lock:
                self._busy = False
                if self._closed or not reusable:
                    self._drop()

    def close(self) -> None:
        """Close the socket, or let the thread that reads from it do so at once."""
        with self._lock:
            self._closed = True
            if self._busy and self._channel is not None:
                self._channel.shut()
            elif not self._busy:
                self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _ask(self, url: str, headers: Mapping[str, str], what: str) -> Answer:
        origin = Origin.of(url)
        with told(what, origin.authority):
            if self._channel is not None and self._origin == origin:
                # A server may close an idle connection at any time: only on a new one silence means something.
                try:
                    head = self._exchange(self._channel, origin, url, headers)
                except (ConnectionError, ssl.SSLError):
                    head = b""
                if head:
                    return Answer(self._channel, head, what)
            channel = self._open(origin)
            head = self._exchange(channel, origin, url, headers)
            if not head:
                raise ConnectionError("the server closed the connection without an answer")
            return Answer(channel, head, what)

    def _open(self, origin: Origin) -> Channel:
        with self._lock:
            self._drop()
        opened, proxy = connect(origin, self._transport)
        channel = Channel(opened, self._transport.stall_timeout)
        with self._lock:
            self._channel, self._origin, self._proxy = channel, origin, proxy
            if self._closed:
                raise ConnectionError("the connection was closed")
        return channel

    def _exchange(self, channel: Channel, origin: Origin, url: str, headers: Mapping[str, str]) -> bytes:
        """Send the request; the head of its answer, b"" when the server has gone."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": origin.authority, "Accept-Encoding": "identity", "User-Agent": "bloomery", **headers}
        if self._proxy:
            target = f"http://{origin.authority}{target}"
            sent |= proxy_authorization(self._proxy)
        lines = [f"GET {quote(target, safe=_TARGET)} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise CheckpointError(f"{origin.authority}: a header of a request would hold a line break")
        channel.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        while (head := channel.head()).startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
            pass  # 100, 103: the answer itself follows
        return head


Http = Callable[[Transport], HttpClient]
