"""``python -m bloomery.checkpoints.carrying.process FD…``: reads over https for a fetch, a thread for each socket.

It has no credentials but those of the requests that it is given, which are signed already; it decides nothing and tries
nothing twice. ``carriers`` is the other end. It ends with its last socket, and so with the fetch, however that ends.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from bloomery.checkpoints.carrying.messages import (
    READ_BYTES,
    Came,
    Data,
    Failed,
    Get,
    Head,
    Hello,
    Leave,
    Read,
    Write,
    receive,
    send,
)
from bloomery.checkpoints.disk import integrity
from bloomery.checkpoints.disk.staging import write
from bloomery.checkpoints.part import CHUNK_BYTES, Part, Reading
from bloomery.checkpoints.source import Entry, TransientError
from bloomery.checkpoints.wire.answer import Answer
from bloomery.checkpoints.wire.http import HttpConnection
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Line:
    """One socket to the fetch, and the connection that reads for it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._lock = threading.Lock()
        self._connection: HttpConnection | None = None
        self._hung_up = False

    def serve(self) -> None:
        """Until the other end hangs up."""
        try:
            hello = receive(self.channel)
            if isinstance(hello, Hello) and (connection := self._opened(Transport(**vars(hello)))) is not None:
                scratch = memoryview(bytearray(CHUNK_BYTES))
                while isinstance(request := receive(self.channel), Get):
                    self._answer(connection, request, scratch)
        except OSError:
            pass  # nobody is there to be told
        finally:  # else who waits for an answer would wait for ever, whatever went wrong here
            with suppress(OSError):
                self.channel.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """The other end has gone: let what is being read fail now."""
        with self._lock:
            self._hung_up = True
            if self._connection is not None:
                self._connection.close()

    def _opened(self, transport: Transport) -> HttpConnection | None:
        with self._lock:
            if not self._hung_up:
                self._connection = HttpConnection(transport)
            return self._connection

    def _answer(self, connection: HttpConnection, request: Get, scratch: memoryview) -> None:
        try:
            with connection.get(request.url, request.headers, request.what) as answer:
                send(self.channel, Head(answer.status, answer.reason, answer.headers, answer.length))
                while not isinstance(wish := receive(self.channel), Leave | None):
                    if isinstance(wish, Read):
                        data = memoryview(bytearray(min(wish.limit, READ_BYTES)))
                        send(self.channel, Data(bytes(data[: answer.readinto(data)]).decode("latin-1")))
                    elif isinstance(wish, Write):
                        self._write(answer, wish, scratch)
        except _FileError as error:
            send(self.channel, Failed(str(error), number=error.number, path=error.path))
        except CheckpointError as error:
            send(self.channel, Failed(str(error), may_pass=isinstance(error, TransientError)))

    def _write(self, answer: Answer, wish: Write, scratch: memoryview) -> None:
        writer = _Writer(self.channel, wish)
        try:
            entry = Entry(Path(wish.path).name, 0, "")
            reading = Reading(Part(entry, wish.position, wish.length, writer), scratch)
            while reading.left:
                reading.advance(answer)
        finally:
            writer.close()


class _Writer:
    """Checks what comes, puts it into the file, and tells the fetch."""

    def __init__(self, channel: socket.socket, wish: Write) -> None:
        self._channel, self._wish, self._crc = channel, wish, wish.crc
        try:
            self._file = os.open(wish.path, _FLAGS)
        except OSError as error:
            raise _FileError(error, wish.path) from error

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        """Everything passes through ``scratch``."""
        return scratch

    def take(self, offset: int, data: memoryview) -> None:
        """As ``part.Sink``."""
        if self._crc is not None:
            self._crc = integrity.running(data, self._crc)
        try:
            write(self._file, data, self._wish.position + offset)
        except OSError as error:
            raise _FileError(error, self._wish.path) from error
        send(self._channel, Came(len(data), self._crc))

    def complete(self) -> None:
        """The fetch knows."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class _FileError(Exception):
    """A file cannot be written: ``number`` is the errno."""

    def __init__(self, error: OSError, path: str) -> None:
        super().__init__(error.strerror or str(error))
        self.number, self.path = error.errno or 0, path


def main() -> None:
    """Serve the sockets whose descriptors the command line names, until nobody is at the other ends."""
    lines = {int(text): Line(socket.socket(fileno=int(text))) for text in sys.argv[1:]}
    poll = select.poll()
    for descriptor, line in lines.items():
        poll.register(descriptor, select.POLLRDHUP)
        threading.Thread(target=line.serve, daemon=True).start()
    while lines:
        for descriptor, _ in poll.poll():
            poll.unregister(descriptor)
            lines.pop(descriptor).hang_up()


if __name__ == "__main__":
    main()
