"""The worker's end of its socket: listen, take one connection, read requests, send answers."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import ConfigurationError, ProtocolError
from bloomery.protocol import whole
from bloomery.protocol.frames import Dialect, Request, decode_request, read_blocking

ACCEPT_TIMEOUT = 30.0  # DJLServing's own; it connects right after it has seen the line "Python engine started."
_READ = 2**16
_GROWTH = 2**24  # a length is believed in steps of this size: a corrupt one must not become a huge allocation
_MAX_UNIX_PATH = 107


class PeerClosedError(Exception):
    """The peer closed the connection between two frames: the worker's work is done."""


@dataclass(frozen=True)
class Address:
    """Where to listen: a unix socket's path, or a TCP port (0: any free one)."""

    path: str = ""
    host: str = "127.0.0.1"
    port: int = 0

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@contextlib.contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """A listening socket; a unix one has ``<path>.pid`` beside it, and both files go when the worker ends."""
    if not address.path:
        with socket.create_server((address.host, address.port)) as listener:
            yield listener
        return
    if len(os.fsencode(address.path)) > _MAX_UNIX_PATH:
        raise ConfigurationError(
            f"the socket path {address.path!r} has {len(os.fsencode(address.path))} bytes; a unix socket's limit is "
            f"{_MAX_UNIX_PATH}. Set TMPDIR to a shorter directory"
        )
    path, pid = Path(address.path), Path(f"{address.path}.pid")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address.path)
        listener.listen(1)
        owner = os.getpid()
        pid.write_text(str(owner))
        try:
            yield listener
        finally:
            if os.getpid() == owner:  # not a copy that a handler forked
                path.unlink(missing_ok=True)
                pid.unlink(missing_ok=True)


def accept(listener: socket.socket, timeout: float = ACCEPT_TIMEOUT) -> socket.socket:
    """The one connection that a worker serves."""
    listener.settimeout(timeout)
    try:
        connection, _peer = listener.accept()
    except TimeoutError:
        raise TimeoutError(f"Listener timed out in: {timeout} s.") from None
    connection.settimeout(None)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Connection:
    """Frames over a blocking socket. Small reads are buffered, large parts are received in place."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._owner = sock, os.getpid()
        self._buffer = bytearray(_READ)
        self._start = self._end = 0  # what of the buffer has been received and not yet taken
        self.dialect: Dialect | None = None  # the peer's, known after the first request

    def read_request(self) -> Request:
        """The next request. PeerClosedError between frames, ProtocolError for anything that is no frame."""
        if self._start == self._end and not self._fill():
            raise PeerClosedError
        if self.dialect is not None:
            found = whole.request(bytes(memoryview(self._buffer)[self._start : self._end]), self.dialect)
            if found is not None:
                self._start += found[1]
                return found[0]
        request, dialect = read_blocking(decode_request(self.dialect), self._receive)
        if request.properties:
            self.dialect = dialect
        return request

    def send(self, buffers: Sequence[bytes]) -> None:
        """Send all buffers, small ones together, large ones without a copy."""
        if os.getpid() != self._owner:
            os._exit(0)  # a handler that forked comes back twice; its copy must not answer as well
        small: list[bytes] = []
        try:
            if sum(map(len, buffers)) < _READ:
                self._socket.sendall(b"".join(buffers))
                return
            for buffer in buffers:
                if len(buffer) < _READ:
                    small.append(buffer)
                    continue
                self._socket.sendall(b"".join(small))
                small.clear()
                self._socket.sendall(buffer)
            self._socket.sendall(b"".join(small))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerClosedError from error

    def _fill(self) -> int:
        """Receive what there is into the empty buffer."""
        try:
            self._start, self._end = 0, self._socket.recv_into(self._buffer)
        except ConnectionResetError:
            self._start = self._end = 0
        return self._end

    def _receive(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        ready = min(count, self._end - self._start)
        data = self._buffer[self._start : self._start + ready]
        self._start += ready
        if len(data) == count:
            return data  # type: ignore[return-value]  # bytearray serves as bytes, and a handler gets one anyway
        if count < _READ:
            if not self._fill():
                raise ProtocolError(f"the peer closed the connection within a frame: {ready} of {count} bytes came")
            return data + self._receive(count - ready)  # type: ignore[return-value]
        return self._receive_large(data, count)

    def _receive_large(self, data: bytearray, count: int) -> bytes:
        filled = len(data)
        while filled < count:
            if filled == len(data):
                data += bytes(min(count - filled, max(filled, _GROWTH)))
            with memoryview(data) as view:
                received = self._socket.recv_into(view[filled:])
            if not received:
                raise ProtocolError(f"the peer closed the connection within a frame: {filled} of {count} bytes came")
            filled += received
        return data  # type: ignore[return-value]
