"""A part of a file on its way: where its bytes go, and how far they have come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bloomery.checkpoints.source import Body, Entry, Place, TransientError, WritingBody

# A chunk is checked and written while it is still in the processor's cache. Smaller ones cost more turns at the
# interpreter's lock: with 512 KiB, 1 GiB took a third more processor time (measured on two cores).
CHUNK_BYTES = 2 << 20
# A connection that brings less in such a time is worth a new one: a broken path can trickle for hours and never stall.
_SLOWEST_BYTES, _SLOWEST_SECONDS = 512 << 10, 30.0


class Sink(Protocol):
    """Where the bytes of one part go, in order. Called by one thread at a time."""

    def space(self, offset: int, scratch: memoryview) -> memoryview:
        """Where the bytes from ``offset`` (within the part) go: memory of the sink's own, or ``scratch`` or less."""
        ...

    def take(self, offset: int, data: memoryview) -> None:
        """``data``, which lies in the space that was given, has come."""
        ...

    def complete(self) -> None:
        """The whole part has come. May put more parts; what it raises ends the transfer."""
        ...


@runtime_checkable
class FileSink(Sink, Protocol):
    """One whose bytes go into a file as they are: another process may put them there."""

    def place(self, offset: int) -> Place:
        """Where the bytes from ``offset`` (within the part) go."""
        ...

    def placed(self, crc: int | None) -> None:
        """More bytes are there; ``crc`` is that of the whole part so far. In place of ``take``."""
        ...


@dataclass(frozen=True)
class Part:
    """``length`` bytes, at least one, of ``entry`` from ``start``."""

    entry: Entry
    start: int
    length: int
    sink: Sink


class Reading:
    """How far one part has come."""

    def __init__(self, part: Part, scratch: memoryview, came: Callable[[int], object] | None = None) -> None:
        self._part, self._scratch, self._came = part, scratch, came
        self.position = 0

    @property
    def left(self) -> int:
        return self._part.length - self.position

    def advance(self, body: Body) -> None:
        """Bring some more bytes to where they belong. Raises TransientError."""
        if isinstance(body, WritingBody) and isinstance(self._part.sink, FileSink):
            count, crc = body.write(self._part.sink.place(self.position), self.left)
            self._part.sink.placed(crc)
            self._moved(count)
        else:
            self._chunk(body)

    def _chunk(self, body: Body) -> None:
        """Read until the space is full, and hand over what has come even when the connection breaks meanwhile."""
        space = self._part.sink.space(self.position, self._scratch)[: self.left]
        filled, seen, late = 0, 0, time.monotonic() + _SLOWEST_SECONDS
        try:
            while filled < len(space):
                count = body.readinto(space[filled:])
                filled += count
                if not count:
                    raise TransientError(self._told("the answer ended early"))
                if filled < len(space) and time.monotonic() > late:
                    if filled - seen < _SLOWEST_BYTES:
                        raise TransientError(self._told(f"only {filled - seen} bytes came in {_SLOWEST_SECONDS:g} s"))
                    seen, late = filled, time.monotonic() + _SLOWEST_SECONDS
        finally:
            if filled:
                self._part.sink.take(self.position, space[:filled])
                self._moved(filled)

    def _moved(self, count: int) -> None:
        self.position += count
        if self._came is not None:
            self._came(count)

    def _told(self, what: str) -> str:
        first = self._part.start + self.position
        return f"{self._part.entry.name}, bytes {first}-{self._part.start + self._part.length - 1}: {what}"
