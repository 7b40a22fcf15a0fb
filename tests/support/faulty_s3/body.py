"""A body on its way: whole and fast, or as badly as the faults want it."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence

from tests.support.faulty_s3.answers import Answer
from tests.support.faulty_s3.faults import Fault

_BLOCK = 1 << 20
_PACES_PER_SECOND = 20


class Ended(Exception):
    """The connection ends here, as a fault wants it."""


class Sender:
    """Sends bodies over one connection, the ``number``th since the start. ``sent`` counts the bytes of the present one;
    ``closing`` is set when the server ends, and wakes whoever stalls or waits."""

    def __init__(self, connection: socket.socket, number: int, closing: threading.Event) -> None:
        self._connection, self.number, self._closing = connection, number, closing
        self.sent = 0
        self.busy = False  # an answer is under way, and comes

    def send(self, answer: Answer, faults: Sequence[Fault]) -> None:
        """Raises Ended when a fault ended the connection, OSError when the client is gone."""
        self.sent = 0
        if answer.file is None:
            self._send(answer.body)
            return
        rate = next((fault.rate for fault in faults if fault.kind == "rate"), 0.0)
        end = next((f for f in faults if f.kind in ("reset", "truncate", "stall") and f.after_bytes is not None), None)
        stop = answer.start + answer.length
        cut = stop if end is None else min(stop, answer.start + (end.after_bytes or 0))
        flips = sorted(_position(f, answer) for f in faults if f.kind == "flip")
        file = answer.file.fileno()
        position = answer.start
        for flip in flips:
            if position <= flip < cut:
                self._send_file(file, position, flip, rate)
                self._send(bytes([os.pread(file, 1, flip)[0] ^ 0x10]))
                position = flip + 1
        self._send_file(file, position, cut, rate)
        if end is not None and cut < stop:
            self.end(end)

    def end(self, fault: Fault) -> None:
        """End the connection as ``fault`` (reset, truncate or stall) wants it; raises Ended."""
        if fault.kind == "stall":
            self._stall()
        elif fault.kind == "reset":
            # Closing a socket that lingers for no time sends RST.
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Ended

    def wait(self, seconds: float) -> None:
        """Do nothing for so long; raises Ended when the server ends."""
        if self._closing.wait(seconds):
            raise Ended

    def _stall(self) -> None:
        """Until the client hangs up, or the server ends."""
        self.busy = False
        self._connection.settimeout(0.1)
        while not self._closing.is_set():
            try:
                if not self._connection.recv(1):
                    return
            except TimeoutError:
                continue

    def _send_file(self, file: int, start: int, stop: int, rate: float) -> None:
        if not rate:
            self._send_range(file, start, stop)
            return
        step = max(1, int(rate / _PACES_PER_SECOND))
        began, first = time.monotonic(), start
        while start < stop:
            end = min(stop, start + step)
            self._send_range(file, start, end)
            start = end
            self.wait(max(0.0, began + (start - first) / rate - time.monotonic()))

    def _send_range(self, file: int, start: int, stop: int) -> None:
        encrypted = isinstance(self._connection, ssl.SSLSocket)
        while start < stop:
            if encrypted:
                data = os.pread(file, min(_BLOCK, stop - start), start)
                self._connection.sendall(data)
                count = len(data)
            else:
                count = os.sendfile(self._connection.fileno(), file, start, stop - start)
            if not count:
                raise Ended  # the file was cut short by the test
            start += count
            self.sent += count

    def _send(self, data: bytes) -> None:
        self._connection.sendall(data)
        self.sent += len(data)


def _position(flip: Fault, answer: Answer) -> int:
    return answer.start + (flip.after_bytes or 0) if flip.offset is None else flip.offset
