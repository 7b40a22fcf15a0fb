"""The engine that moves bytes: parts of files, over several connections at once, into sinks.

Who reads to disk (``fetch``) and who reads into memory (``stream``) puts parts and says where their bytes go; retries,
the brake, cancelling and counting are here, once. Threads are enough: reading, checksums and writing leave the
interpreter's lock, and a chunk costs a few calls per MiB.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType

from bloomery.checkpoints.part import CHUNK_BYTES, Part, Reading
from bloomery.checkpoints.retry import Attempts, Brake, RetryPolicy
from bloomery.checkpoints.source import Connection, Source, TransientError
from bloomery.checkpoints.wire.http import Http, HttpConnection

CONNECTIONS = 16
PART_BYTES = 16 << 20
# A path may let the first packets of every connection through and nothing after them. That is no progress.
_PROGRESS_BYTES = 64 << 10
_TICK_SECONDS = 0.2
# The last attempt may begin just before the patience ends and stall for 15 s: nobody waits 60 s without progress.
POLICY = RetryPolicy(patience=42.0)


class Transfer:
    """Carries parts in the order in which they were put, several at once. A context manager: leaving it ends all."""

    def __init__(
        self,
        source: Source,
        connections: int = CONNECTIONS,
        came: Callable[[int], object] | None = None,
        policy: RetryPolicy = POLICY,
        http: Http = HttpConnection,
    ) -> None:
        """``came`` is told how many bytes have come, from several threads, each byte once. ``http`` makes what the
        source's connections read with.
        """
        self._source, self._connections, self._came, self._policy = source, connections, came, policy
        self._http = http
        self._lock = threading.Condition()
        self._queue: deque[Part] = deque()
        self._unfinished = self._idle = 0
        self._threads: list[threading.Thread] = []
        self._open: list[Connection] = []
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._brake = Brake()

    def put(self, parts: Iterable[Part], *, first: bool = False) -> None:
        """Carry these too; ``first``: before all that wait."""
        parts = list(parts)
        with self._lock:
            self._unfinished += len(parts)
            if first:
                self._queue.extendleft(reversed(parts))
            else:
                self._queue.extend(parts)
            for _ in range(min(len(self._queue) - self._idle, self._connections - len(self._threads))):
                thread = threading.Thread(target=self._work, name=f"transfer-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._lock.notify_all()

    def wait(self, tick: Callable[[], object] = lambda: None) -> None:
        """Return when all parts are complete; ``tick`` is called a few times a second meanwhile.

        Raises what went wrong first: a CheckpointError that names file, range and cause, or what a sink raised.
        """
        while True:
            with self._lock:
                if self._error is not None:
                    raise self._error
                if not self._unfinished:
                    return
                self._lock.wait(_TICK_SECONDS)
            tick()

    @property
    def error(self) -> BaseException | None:
        """What went wrong first: for who waits for some of the parts only."""
        return self._error

    def close(self) -> None:
        """End all reads at once and wait for the threads, so that no byte reaches a sink afterwards."""
        with self._lock:
            self._stopped.set()
            self._queue.clear()
            connections, threads = list(self._open), list(self._threads)
            self._lock.notify_all()
        for connection in connections:
            connection.close()
        for thread in threads:
            thread.join()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        connection: Connection | None = None
        try:
            connection = self._source.connect(self._http)
            with self._lock:
                self._open.append(connection)
            scratch = memoryview(bytearray(CHUNK_BYTES))
            while (part := self._next()) is not None:
                self._carry(connection, part, scratch)
                if self._stopped.is_set():
                    break
                part.sink.complete()
                self._count_finished()
        except BaseException as error:
            self._fail(error)
        finally:
            if connection is not None:
                connection.close()

    def _next(self) -> Part | None:
        with self._lock:
            self._idle += 1
            while not self._queue and not self._stopped.is_set():
                self._lock.wait()
            self._idle -= 1
            return None if self._stopped.is_set() else self._queue.popleft()

    def _count_finished(self) -> None:
        with self._lock:
            self._unfinished -= 1
            if not self._unfinished:
                self._lock.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if not self._stopped.is_set() and self._error is None:
                self._error = error
            self._stopped.set()
            self._queue.clear()
            self._lock.notify_all()

    def _carry(self, connection: Connection, part: Part, scratch: memoryview) -> None:
        """Bring all bytes of a part, by as many attempts as it takes; each goes on where the last one ended."""
        reading = Reading(part, scratch, self._came)
        attempts, progress = Attempts(self._policy, time.monotonic()), 0
        while reading.left and not self._stopped.is_set():
            self._brake.wait(self._stopped)
            try:
                with connection.read(part.entry, part.start + reading.position, reading.left) as body:
                    self._brake.succeeded()
                    while reading.left and not self._stopped.is_set():
                        reading.advance(body)
            except TransientError as error:
                if self._stopped.is_set():  # the connection was closed for that
                    return
                now = time.monotonic()
                if reading.position - progress >= _PROGRESS_BYTES:
                    attempts.came(now)
                    progress = reading.position
                if error.slow_down:
                    self._brake.slow_down(error, now)
                self._stopped.wait(attempts.failed(error, now))
