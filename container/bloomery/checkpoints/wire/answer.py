"""The answer to a GET: status, headers, and a body that is read into the caller's memory."""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from bloomery.checkpoints.source import Place, TransientError
from bloomery.checkpoints.wire.channel import Channel
from bloomery.errors import CheckpointError

_DRAIN_LIMIT = 64 << 10  # bytes of an unread body that are cheaper to read than a new connection


class Answered(Protocol):
    """The answer to a request, whoever reads it. ``headers`` have their names in lower case. ``length``: bytes of the
    body, None when only its end tells.
    """

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def length(self) -> int | None: ...

    def readinto(self, buffer: memoryview) -> int:
        """As ``source.Body``."""
        ...

    def text(self, limit: int = ...) -> bytes:
        """The body, or its first ``limit`` bytes. Raises TransientError."""
        ...


@runtime_checkable
class WritingAnswer(Answered, Protocol):
    """One that another process reads, which can put its body into a file."""

    def write(self, place: Place, length: int) -> tuple[int, int | None]:
        """As ``source.WritingBody``."""
        ...


class Readable(ABC):
    """What can be read piece by piece, and as a whole therefore."""

    @abstractmethod
    def readinto(self, buffer: memoryview) -> int:
        """As ``source.Body``."""

    def text(self, limit: int = 1 << 20) -> bytes:
        """The body, or its first ``limit`` bytes. Raises TransientError."""
        data = bytearray()
        chunk = memoryview(bytearray(1 << 16))
        while len(data) < limit and (count := self.readinto(chunk)):
            data += chunk[:count]
        return bytes(data[:limit])


class Answer(Readable):
    """``headers`` have their names in lower case. ``length``: bytes of the body, None when only its end tells."""

    def __init__(self, channel: Channel, head: bytes, what: str) -> None:
        self._channel, self._what = channel, what
        self.status, self.reason, version, self.headers = _parsed(head)
        self._chunked = self.headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked"
        self.length = None if self._chunked else _length(self.headers)
        if self.status in (204, 304):
            self.length = 0
        self._chunk = 0  # bytes left of the current chunk
        self._got, self._ended, self._broken = 0, self.length == 0, False
        keeps = self.headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close")
        self._keeps = "close" not in keeps.lower() and (self._chunked or self.length is not None)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as one read brings bytes; 0 after the last. Raises TransientError."""
        if self._ended or not len(buffer):
            return 0
        self._broken = True  # until this read is over
        with told(self._told()):
            if self._chunked:
                count = self._read_chunk(buffer)
            elif self.length is None:
                count = self._channel.readinto(buffer)
                self._ended = not count
            else:
                count = self._channel.readinto(buffer[: self.length - self._got])
                if not count:
                    raise ConnectionError("the connection was closed too early")
                self._ended = self._got + count == self.length
        self._got += count
        self._broken = False
        return count

    def finish(self) -> bool:
        """Leave the connection ready for the next request, and say whether that has been possible."""
        left = None if self.length is None else self.length - self._got
        if self._broken or not self._keeps or not (self._ended or (left is not None and left <= _DRAIN_LIMIT)):
            return False
        try:
            self.text(_DRAIN_LIMIT + 1)
        except CheckpointError:
            return False
        return self._ended

    def _told(self) -> str:
        return f"{self._what}: after {self._got} of {self.length} bytes" if self.length else self._what

    def _read_chunk(self, buffer: memoryview) -> int:
        """RFC 9112, 7.1."""
        if not self._chunk:
            size = self._channel.line().partition(b";")[0].strip()
            try:
                self._chunk = int(size, 16)
            except ValueError:
                raise ConnectionError(f"{size[:20]!r} stands where the size of a chunk should") from None
            if not self._chunk:
                while self._channel.line():
                    pass  # trailers
                self._ended = True
                return 0
        count = self._channel.readinto(buffer[: self._chunk])
        if not count:
            raise ConnectionError("the connection was closed too early")
        self._chunk -= count
        if not self._chunk:
            self._channel.line()
        return count


@contextmanager
def told(what: str, host: str = "the server") -> Iterator[None]:
    """Raise what sockets raise as TransientError, or as CheckpointError where another attempt cannot help."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CheckpointError(
            f"{what}: the certificate of {host} is not trusted (CERTIFICATE_VERIFY_FAILED: {error.verify_message}): "
            "name the file of its authority's certificate in AWS_CA_BUNDLE (for S3) or SSL_CERT_FILE (for the rest)"
        ) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise TransientError(f"{what}: the name server did not answer for {host}") from error
        raise CheckpointError(f"{what}: there is no host {host}: check its name and the network") from error
    except ConnectionRefusedError as error:
        raise TransientError(f"{what}: {host} refuses connections") from error
    except OSError as error:
        raise TransientError(f"{what}: {error.strerror or error}") from error


def _parsed(head: bytes) -> tuple[int, str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3 or not status.isdigit():
        raise ConnectionError(f"{first[:40]!r} is no HTTP answer")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(status), reason, version, headers


def _length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConnectionError(f"Content-Length is {text[:20]!r}")
    return int(text)
