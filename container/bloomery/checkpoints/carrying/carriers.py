"""A fetch's own end of the processes that read for it over https.

Everything is decided here: what is asked for and signed, what an answer means, what is tried again. The processes
(``process``) do what takes an interpreter's time: TLS comes in records of 16 KiB, each of which costs a turn at its
lock. Plain sockets are read in this process, which for them is fast enough.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from bloomery.checkpoints.carrying.messages import (
    READ_BYTES,
    Came,
    Data,
    Failed,
    Get,
    Head,
    Hello,
    Leave,
    Message,
    Read,
    Write,
    receive,
    send,
)
from bloomery.checkpoints.source import Place, TransientError
from bloomery.checkpoints.wire.answer import Answered, Readable
from bloomery.checkpoints.wire.http import HttpClient, HttpConnection
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

log = logging.getLogger(__name__)

IS_POSSIBLE = sys.platform == "linux"  # whose unix sockets keep packets apart, and whose poll tells of a hang-up
_END_SECONDS = 5.0
_PROCESS = "bloomery.checkpoints.carrying.process"
Reply = TypeVar("Reply", Head, Data, Came)


class Carriers:
    """Up to ``processes`` that share ``connections``, each started when it is needed: by an https address. A context
    manager, to be left when all connections are closed.
    """

    def __init__(self, processes: int, connections: int) -> None:
        self._most, self._each = processes, -(-connections // processes)
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channels: list[socket.socket] = []
        self._free: list[list[socket.socket]] = []  # by process

    def http(self, transport: Transport) -> HttpClient:
        """A connection, as ``wire.http.Http``."""
        return CarriedHttp(self, transport)

    def channel(self) -> socket.socket | None:
        """A line to the process that has most to spare; None when there is none."""
        with self._lock:
            if len(self._processes) < self._most:
                try:
                    self._start()
                except OSError as error:
                    log.warning("no process can be started to read with (%s): this one reads itself", error)
                    self._most = len(self._processes)
            free = max(self._free, key=len, default=[])
            return free.pop() if free else None

    def __enter__(self) -> Carriers:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:  # in a write that the disk does not take
                process.kill()
                process.wait()

    def _start(self) -> None:
        """Raises OSError."""
        with ExitStack() as theirs:
            ours = []
            descriptors = []
            for _ in range(self._each):
                near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._channels.append(near)
                ours.append(near)
                descriptors.append(theirs.enter_context(far).fileno())
            root = Path(__file__).parents[3]
            paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", _PROCESS, *map(str, descriptors)],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    process_group=0,  # Ctrl-C is for the fetch, whose end is theirs
                )
            )
            self._free.append(ours)


class CarriedHttp:
    """As ``HttpConnection``. What is asked for over https is read by another process, as long as there is one."""

    def __init__(self, carriers: Carriers, transport: Transport) -> None:
        self._carriers, self._transport = carriers, transport
        self._own = HttpConnection(transport)
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._asked = self._closed = False

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], what: str) -> Iterator[Answered]:
        """As ``HttpConnection.get``."""
        line = self._found(what) if url.startswith("https://") else None
        if line is None:
            with self._own.get(url, headers, what) as own:
                yield own
            return
        head = line.asked(Get(url, dict(headers), what), what, Head)
        try:
            yield CarriedAnswer(line, what, head)
        finally:
            line.leave()

    def close(self) -> None:
        """As ``HttpConnection.close``."""
        with self._lock:
            self._closed = True
            if self._line is not None:
                self._line.hang_up()
        self._own.close()

    def _found(self, what: str) -> _Line | None:
        """The line to another process; None when there is none, or none any more. Raises TransientError."""
        with self._lock:
            if self._closed:
                raise TransientError(f"{what}: the connection was closed")
            if not self._asked and (channel := self._carriers.channel()) is not None:
                self._line = _Line(channel, self._transport)
            self._asked = True
            if self._line is not None and self._line.lost:
                log.warning("a process that read for this fetch has ended: this one reads itself")
                self._line = None
            return self._line


class _Line:
    """A socket to another process. ``lost``: nobody is there any more, or nobody knows where in its answers it is."""

    def __init__(self, channel: socket.socket, transport: Transport) -> None:
        self.lost = False
        self._channel = channel
        self.writing = False  # more of what was asked for is to come
        self._answering = False
        with suppress(OSError):  # which the first question meets again
            send(channel, Hello(**vars(transport)))

    def asked(self, message: Message, what: str, kind: type[Reply]) -> Reply:
        """The answer to ``message``. Raises what it tells of: a CheckpointError, or OSError for a file."""
        try:
            send(self._channel, message)
        except OSError as error:
            raise self._gone(what) from error
        return self.next(what, kind)

    def next(self, what: str, kind: type[Reply]) -> Reply:
        """One more answer to the same."""
        self._answering = self.writing = False
        try:
            reply = receive(self._channel)
        except OSError as error:
            raise self._gone(what) from error
        if isinstance(reply, Failed):
            if reply.number:
                raise OSError(reply.number, reply.message, reply.path)
            raise TransientError(reply.message) if reply.may_pass else CheckpointError(reply.message)
        if not isinstance(reply, kind):
            raise self._gone(what)
        self._answering = True
        return reply

    def leave(self) -> None:
        """No more of this answer is wanted."""
        if self.writing:  # the next answer would be behind what is still written
            self.hang_up()
        elif self._answering and not self.lost:
            with suppress(OSError):  # which the next question meets again
                send(self._channel, Leave())

    def hang_up(self) -> None:
        """Let whoever waits for an answer fail now; from any thread."""
        self.lost = True
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _gone(self, what: str) -> TransientError:
        self.lost = True
        return TransientError(f"{what}: the process that read it has ended")


class CarriedAnswer(Readable):
    """As ``wire.answer.Answer``, from another process."""

    def __init__(self, line: _Line, what: str, head: Head) -> None:
        self.status, self.reason, self.headers, self.length = head.status, head.reason, head.headers, head.length
        self._line, self._what = line, what
        self._due = 0  # bytes that are still to be written

    def readinto(self, buffer: memoryview) -> int:
        """As ``source.Body``; some KiB at once."""
        if not len(buffer):
            return 0
        data = self._line.asked(Read(min(len(buffer), READ_BYTES)), self._what, Data).text.encode("latin-1")
        buffer[: len(data)] = data
        return len(data)

    def write(self, place: Place, length: int) -> tuple[int, int | None]:
        """As ``source.WritingBody``: the first call has all of ``length`` written, and each tells how far that is."""
        if self._due:
            came = self._line.next(self._what, Came)
        else:
            self._due = length
            wish = Write(place.path, place.position, length, place.crc)
            came = self._line.asked(wish, self._what, Came)
        self._due -= came.count
        self._line.writing = self._due > 0
        return came.count, came.crc
