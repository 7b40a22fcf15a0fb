"""HTTP/1.1 over a socket: requests in, heads and bodies out. Small, because a benchmark waits for it."""

from __future__ import annotations

import re
import socket
from http import HTTPStatus

from tests.support.faulty_s3.operations import Request

_HEAD_LIMIT = 1 << 16
_ABSOLUTE = re.compile(r"^http://[^/]*")  # some clients write the whole URL, and servers must take it


class Gone(Exception):
    """The client has closed the connection."""


class Reader:
    """The requests of one connection, in order."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def request(self) -> Request:
        """The next one, with its body. Raises Gone."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > _HEAD_LIMIT:
                raise Gone
            self._rest += self._received()
        first, *lines = self._rest[:end].decode("latin-1").split("\r\n")
        self._rest = self._rest[end + 4 :]
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = _ABSOLUTE.sub("", target).partition("?")
        if headers.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, path, query, headers, self._body(int(headers.get("content-length", 0))))

    def _body(self, length: int) -> bytes:
        body = bytearray(length)
        have = min(length, len(self._rest))
        body[:have], self._rest = self._rest[:have], self._rest[have:]
        with memoryview(body) as view:
            while have < length:
                count = self._connection.recv_into(view[have:])
                if not count:
                    raise Gone
                have += count
        return bytes(body)

    def _received(self) -> bytes:
        data = self._connection.recv(_HEAD_LIMIT)
        if not data:
            raise Gone
        return data


def head(status: int, headers: dict[str, str], length: int) -> bytes:
    """The status line and the headers of an answer whose body has ``length`` bytes."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    if status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
