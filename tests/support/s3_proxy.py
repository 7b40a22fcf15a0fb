"""A TCP proxy in front of a real S3 server (moto), which records requests and breaks or stalls answers on demand."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16


class S3Proxy:
    """``objects_read`` lists the GETs of objects. Set ``stall_after`` or ``break_once_after`` (bytes answered)."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._released = threading.Event()
        self.requests: list[str] = []
        self.stall_after: int | None = None
        self.break_once_after: int | None = None
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def objects_read(self) -> list[str]:
        return [line for line in self.requests if "list-type" not in line and "?prefix" not in line]

    def close(self) -> None:
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for opened in [self._listener, *self._sockets]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._sockets += client, server
                self._start(self._forward, client, server, self._record)
                self._start(self._forward, server, client, self._disturb())

    def _record(self, data: bytes) -> None:
        self.requests += [line.decode() for line in re.findall(rb"^GET (\S+) HTTP", data, re.MULTILINE)]

    def _disturb(self) -> object:
        answered = 0

        def count(data: bytes) -> None:
            nonlocal answered
            answered += len(data)
            if self.break_once_after is not None and answered > self.break_once_after:
                self.break_once_after = None
                raise ConnectionAbortedError
            if self.stall_after is not None and answered > self.stall_after:
                self._released.wait()

        return count

    def _forward(self, source: socket.socket, sink: socket.socket, see: object) -> None:
        try:
            with suppress(OSError):
                while data := source.recv(_CHUNK):
                    see(data)  # type: ignore[operator]
                    sink.sendall(data)
        finally:
            for opened in (source, sink):
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)


@contextmanager
def s3_proxy(port: int) -> Iterator[S3Proxy]:
    """A proxy to the S3 server at ``port`` of this machine."""
    proxy = S3Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
