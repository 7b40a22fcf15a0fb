"""Ranges of a file over HTTP: the headers that ask for one, and the proof that the answer is it."""

from __future__ import annotations

import re

from bloomery.checkpoints.source import ChangedError, Entry, Place, TransientError
from bloomery.checkpoints.wire.answer import Answered, WritingAnswer
from bloomery.errors import CheckpointError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def span(where: str, start: int, length: int) -> str:
    """What a read is called in errors."""
    return f"{where}, bytes {start}-{start + length - 1}"


def asked(start: int, length: int) -> dict[str, str]:
    """The header of a request for ``length`` bytes from ``start``."""
    return {"Range": f"bytes={start}-{start + length - 1}"}


class RangeBody:
    """The bytes of an answer to a request for a range."""

    def __init__(self, answer: Answered, entry: Entry, start: int, length: int, what: str) -> None:
        """Raises TransientError, ChangedError or CheckpointError when ``answer`` (200 or 206) is not the range."""
        self._answer, self._left, self._what = answer, length, what
        if answer.status == 206 or "content-range" in answer.headers:  # rclone sends a range with status 200
            _check(answer.headers.get("content-range", ""), entry, start, length, what)
        elif (start, length) != (0, entry.size):
            raise CheckpointError(
                f"{what}: the server answered with the whole file: it cannot send ranges, and so cannot serve weights"
            )
        if answer.length is not None and answer.length != length:
            raise TransientError(f"{what}: the server announced {answer.length} bytes instead of {length}")

    def readinto(self, buffer: memoryview) -> int:
        """As ``source.Body`` has it."""
        if not self._left or not len(buffer):
            return 0
        count = self._answer.readinto(buffer[: self._left])
        if not count:
            raise TransientError(f"{self._what}: the body ended {self._left} bytes too early")
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        self._left -= count
        if not self._left and self._answer.length is None and self._answer.readinto(memoryview(bytearray(1))):
            raise TransientError(f"{self._what}: the body is longer than the range")


class WritingRangeBody(RangeBody):
    """One that can be put into a file where it is read."""

    _answer: WritingAnswer

    def write(self, place: Place, length: int) -> tuple[int, int | None]:
        """As ``source.WritingBody`` has it."""
        count, crc = self._answer.write(place, min(length, self._left))
        self._count(count)
        return count, crc


def range_body(answer: Answered, entry: Entry, start: int, length: int, what: str) -> RangeBody:
    """The body of ``answer``; raises as RangeBody."""
    kind = WritingRangeBody if isinstance(answer, WritingAnswer) else RangeBody
    return kind(answer, entry, start, length, what)


def _check(told: str, entry: Entry, start: int, length: int, what: str) -> None:
    match = _CONTENT_RANGE.fullmatch(told)
    if match is None:
        raise TransientError(f"{what}: the server sent a range without saying which (Content-Range: {told!r})")
    first, last, total = match.groups()
    if total not in ("*", str(entry.size)):
        raise ChangedError(f"{what}: the file is {total} bytes long now, not {entry.size}")
    if (int(first), int(last)) != (start, start + length - 1):
        raise TransientError(f"{what}: the server sent another range of it (Content-Range: {told!r})")


class Empty:
    """The bytes of a file that has none: no server can be asked for a range of it."""

    def readinto(self, buffer: memoryview) -> int:
        """0: the end."""
        return 0
