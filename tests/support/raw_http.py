"""HTTP by hand: any bytes to a server, and its answer read by h11, which is strict and no relative of the server's."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import h11


@dataclass(frozen=True)
class RawReply:
    """One answer."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Exchange:
    """One connection. Answers are read one after another; ``h11.RemoteProtocolError``: they are not HTTP."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._received = b""

    def send(self, data: bytes) -> None:
        """Send; a server that has hung up already is no error, its last words may still be there."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def reply(self, method: bytes = b"POST") -> RawReply | None:
        """The next answer; None when the server closed the connection instead. TimeoutError: neither came."""
        reply, whole = self.reply_or_beginning(method)
        if not whole:
            raise h11.RemoteProtocolError(f"the connection was closed within {reply!r}")
        return reply

    def reply_or_beginning(self, method: bytes = b"POST") -> tuple[RawReply | None, bool]:
        """The next answer, and whether it was whole: a stream that broke off ends with its connection."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"x")]))
        parser.send(h11.EndOfMessage())
        if self._received:
            parser.receive_data(self._received)
        begun = bool(self._received)
        head, body = None, b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data and not begun:
                    return None, True
                if not data and head is not None and b"chunked" in dict(head.headers).get(b"transfer-encoding", b""):
                    return _reply(head, body), False
                begun = True
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self._received = parser.trailing_data[0]
                return _reply(head, body), True
            else:
                assert isinstance(event, h11.InformationalResponse), event

    def closed(self) -> bool:
        """Whether the server closes the connection now, with nothing more to say."""
        return not self._received and not self._receive()

    def reset(self) -> None:
        """Vanish, as a client does whose process is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(2**16)
        except ConnectionError:
            return b""


def _reply(head: h11.Response, body: bytes) -> RawReply:
    return RawReply(head.status_code, {name.decode(): value.decode("latin-1") for name, value in head.headers}, body)


@contextlib.contextmanager
def exchange(port: int, timeout: float = 20) -> Iterator[Exchange]:
    """A connection for the length of a ``with`` block."""
    connection = Exchange(port, timeout)
    try:
        yield connection
    finally:
        connection.socket.close()


def ask(port: int, pieces: Iterable[bytes], method: bytes = b"POST", timeout: float = 20) -> RawReply | None:
    """Send ``pieces`` over a connection of their own; the answer, or None when there was none."""
    with exchange(port, timeout) as connection:
        for piece in pieces:
            connection.send(piece)
        return connection.reply(method)
