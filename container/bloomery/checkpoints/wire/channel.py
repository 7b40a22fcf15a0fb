"""Bytes of one socket, straight into the caller's memory.

Plain sockets are left blocking, with the kernel's own timeout, so that one system call outside the interpreter's lock
fills a large buffer (MSG_WAITALL): a Python-level timeout costs a poll() per segment. TLS hands out a record (16 KiB)
at a time anyway.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress

_SLICES = 4  # the kernel's timeout is this part of the stall timeout: a stall is noticed after 1 to 1.25 of it
_HEAD_READ = 16 << 10
_HEAD_LIMIT = 64 << 10


class Channel:
    """Owns a connected socket. Every method raises OSError: TimeoutError for a stall, ConnectionError for an end."""

    def __init__(self, opened: socket.socket, stall: float) -> None:
        self._socket, self._stall = opened, stall
        self._held = memoryview(b"")  # came with the head of an answer, and belongs to what follows
        self._plain = not isinstance(opened, ssl.SSLSocket)
        if self._plain:
            opened.settimeout(None)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(stall / _SLICES))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(stall))
        else:
            opened.settimeout(stall)

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            self._socket.sendall(data)
        except BlockingIOError as error:
            raise TimeoutError(f"the server took no byte for {self._stall:g} s") from error

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; fewer bytes only before the end of the stream or a pause in it, 0 at the end."""
        if self._held:
            count = min(len(self._held), len(buffer))
            buffer[:count] = self._held[:count]
            self._held = self._held[count:]
            return count
        return self._receive(buffer, socket.MSG_WAITALL) if self._plain else self._read_records(buffer)

    def line(self) -> bytes:
        """One line, without its end."""
        return self._until(b"\r\n")

    def head(self) -> bytes:
        """The status line and headers of an answer, without the empty line; b"" when the peer has gone before."""
        return self._until(b"\r\n\r\n", may_end=True)

    def shut(self) -> None:
        """Let whoever reads fail now; may be called from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def _until(self, end: bytes, may_end: bool = False) -> bytes:
        data = bytes(self._held)
        self._held = memoryview(b"")
        while (at := data.find(end)) < 0:
            chunk = memoryview(bytearray(_HEAD_READ))
            count = self._receive(chunk, 0) if self._plain else self._record(chunk)
            if not count and may_end and not data:
                return b""
            if not count:
                raise ConnectionError("the connection was closed within the head of an answer")
            data += chunk[:count]
            if len(data) > _HEAD_LIMIT + _HEAD_READ:
                raise ConnectionError(f"the answer has a head of over {_HEAD_LIMIT} bytes, which is no HTTP")
        self._held = memoryview(data)[at + len(end) :]
        return data[:at]

    def _receive(self, buffer: memoryview, flags: int) -> int:
        end = time.monotonic() + self._stall
        while True:
            try:
                return self._socket.recv_into(buffer, len(buffer), flags)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._stalled() from None

    def _read_records(self, buffer: memoryview) -> int:
        """As many as fit, but no longer than the kernel's timeout lets one read of a plain socket last."""
        done, end = 0, time.monotonic() + self._stall / _SLICES
        while done < len(buffer) and (count := self._record(buffer[done:])):
            done += count
            if time.monotonic() > end:
                break
        return done

    def _record(self, buffer: memoryview) -> int:
        try:
            return self._socket.recv_into(buffer, len(buffer))
        except ssl.SSLEOFError:  # the peer went without TLS's farewell; the length tells whether all has come
            return 0
        except TimeoutError:
            raise self._stalled() from None

    def _stalled(self) -> TimeoutError:
        return TimeoutError(f"no byte came for {self._stall:g} s")


def _timeval(seconds: float) -> bytes:
    """C's struct timeval. All zero would mean to wait for ever."""
    return struct.pack("ll", int(seconds), max(int(seconds % 1 * 1e6), 1))
