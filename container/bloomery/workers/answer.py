"""What a group gives back for a request, and the buffer between a rank that streams and whoever reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bloomery.errors import StreamError
from bloomery.protocol.frames import ContentPart


@dataclass(slots=True)
class Answer:
    """``stream`` is None for a complete answer, whose body is ``content``; else it yields the body's pieces.

    The iterator raises StreamError when the stream breaks off.
    """

    code: int
    message: str
    properties: dict[str, str] = field(default_factory=dict)
    content: list[ContentPart] = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None


# How often its limit a buffer may hold whose writer cannot wait, because others share the connection that it reads.
_OVERFLOW = 16


class StreamBuffer:
    """Bounded in bytes. A reader that is too slow loses its own stream; whoever writes is never held up for long."""

    def __init__(self, limit: int, reader_grace: float, patience: float) -> None:
        self._limit, self._reader_grace = limit, reader_grace
        self._patience = patience  # how long the reader may hold up the writer in total
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._full_since: float | None = None  # and nothing has been taken since, as ``put_now`` sees it
        self._ended = False
        self._error: StreamError | None = None
        self._changed = asyncio.Event()  # for the reader: there is a piece or an end
        self._taken = asyncio.Event()  # for the writer: a piece has gone

    @property
    def closed(self) -> bool:
        """Nothing more goes in."""
        return self._ended

    @property
    def failed(self) -> bool:
        """It broke off."""
        return self._error is not None

    @property
    def full(self) -> bool:
        """Whether the next piece has to wait."""
        return self._size >= self._limit

    async def put(self, piece: bytes) -> None:
        """Append a piece; waits for a slow reader a little and then fails the stream. Closed: drops it."""
        loop = asyncio.get_running_loop()
        while self.full and not self._ended:
            self._taken.clear()
            before = loop.time()
            try:
                async with asyncio.timeout(min(self._reader_grace, max(0.0, self._patience))):
                    await self._taken.wait()
            except TimeoutError:
                self._fail_slow()
            self._patience -= loop.time() - before
        self._append(piece)

    def put_now(self, piece: bytes) -> None:
        """Append a piece, beyond the limit too: a client is slower than a handler that has all of its answer at hand.

        A reader that takes nothing for too long, or leaves far too much, fails its stream. Closed: drops it.
        """
        if self.full:
            now = asyncio.get_running_loop().time()
            self._full_since = self._full_since or now
            if now - self._full_since >= self._reader_grace or self._size >= _OVERFLOW * self._limit:
                self._fail_slow()
        self._append(piece)

    def _append(self, piece: bytes) -> None:
        if not self._ended and piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self._changed.set()

    def _fail_slow(self) -> None:
        self.fail(StreamError(f"the client reads too slowly: {self._size} bytes wait for it", status=503))

    def end(self) -> None:
        """The stream is complete."""
        self._ended = True
        self._changed.set()
        self._taken.set()

    def fail(self, error: StreamError) -> None:
        """The stream breaks off after what is already in the buffer; the first reason counts."""
        if not self._ended:
            self._error = error
            self.end()

    def discard(self) -> None:
        """Nobody reads any more."""
        self._pieces.clear()
        self._size = 0
        self.fail(StreamError("the reader has left"))

    def __aiter__(self) -> StreamBuffer:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._pieces:
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._full_since = None
            self._taken.set()
            return piece
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration
