"""Ranges of a source's files into memory, by several threads at once, each over a connection of its own."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from bloomery.checkpoints.retry import Attempts, RetryPolicy
from bloomery.checkpoints.source import Connection, Entry, Source, TransientError


class RangeReader:
    """A context manager; at its end no thread may read any more."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._mine = threading.local()
        self._opened: list[Connection] = []

    def read(self, entry: Entry, start: int, into: memoryview) -> None:
        """Fill ``into`` with the bytes of ``entry`` from ``start``. Raises CheckpointError when attempts fail."""
        attempts, position = Attempts(RetryPolicy(), time.monotonic()), 0
        while True:
            try:
                with self._connection().read(entry, start + position, len(into) - position) as body:
                    while position < len(into) and (count := body.readinto(into[position:])):
                        position += count
                        attempts.came(time.monotonic())
                return
            except TransientError as error:
                time.sleep(attempts.failed(error, time.monotonic()))

    def whole(self, entry: Entry) -> bytes:
        """A small file."""
        data = bytearray(entry.size)
        if data:
            self.read(entry, 0, memoryview(data))
        return bytes(data)

    def _connection(self) -> Connection:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._source.connect()
            self._opened.append(self._mine.connection)
        connection: Connection = self._mine.connection
        return connection

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._opened:
            connection.close()
