"""The request socket of one rank, as the server sees it.

A protocol with callbacks, not a stream with tasks: a small request and its answer cost one write and one callback.
Waiting for each field of a frame, in a task of its own, cost several times the rest of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bloomery.errors import ProtocolError, WorkerError
from bloomery.protocol import frames, whole

_HIGH_WATER = 2**20  # bytes that may wait for a reader before the rank is held up


class LostConnectionError(WorkerError):
    """A rank hung up. Why, its exit tells a moment later."""


class Connection(asyncio.Protocol):
    """Frames to and from one rank. Whatever goes wrong on it is a WorkerError: the rank is lost.

    ``on_lost`` is called once, with the reason. ``open_for_answers`` is true while a request is with the rank: bytes
    that come at another time are garbage.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.on_lost: Callable[[WorkerError], None] = _ignore
        self.open_for_answers = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._decoder: frames.Decoder[Any] | None = None
        self._take: Callable[[Any], None] = _ignore
        self._head_taker: Callable[[frames.ResponseHead], None] | None = None  # when nothing of the head is here yet
        self._wanted = 0
        self._advancing = self._paused = False
        self._error: WorkerError | None = None
        self._waiter: asyncio.Future[Any] | None = None

    @classmethod
    async def open(cls, address: Path, rank: int) -> Connection:
        """Connect; the rank already listens."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(lambda: cls(rank), str(address))
        except OSError as error:
            raise LostConnectionError(f"rank {rank} does not accept a connection on {address}: {error}") from error
        return connection

    def send(self, frame: bytes) -> None:
        """Write one request frame. If the rank is gone, ``on_lost`` tells, or the next read."""
        if self._error is None:
            self._transport.write(frame)
        else:
            asyncio.get_running_loop().call_soon(self.on_lost, self._error)

    def expect_head(self, take: Callable[[frames.ResponseHead], None]) -> None:
        """Hand the next answer, up to where its stream begins, to ``take``. One expectation at a time."""
        if self._size or self._paused or self._advancing:
            self._expect(frames.decode_response(), take)
        else:
            self._head_taker = take

    def _expect(self, decoder: frames.Decoder[frames.Value], take: Callable[[frames.Value], None]) -> None:
        self._decoder, self._take = decoder, take
        self._wanted = next(decoder)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._size >= self._wanted and not self._advancing:
            self._advance()

    def end_answer(self) -> bool:
        """The answer is complete. False, and the rank is lost, when it has said more than that."""
        self.open_for_answers = False
        if self._size and self._error is None:
            self._fail(WorkerError(f"rank {self.rank} answered garbage: {self._size} bytes after the end of an answer"))
        return self._error is None

    async def read_head(self) -> frames.ResponseHead:
        """One answer, up to where its stream begins."""
        return await self._read(frames.decode_response())

    async def read_chunk(self) -> frames.Chunk:
        """One chunk of a stream."""
        return await self._read(frames.decode_chunk())

    def close(self) -> None:
        """Hang up."""
        self._error = self._error or LostConnectionError(f"the connection to rank {self.rank} was closed")
        self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self.open_for_answers:
            self._fail(WorkerError(f"rank {self.rank} answered garbage: {len(data)} bytes that belong to no request"))
            return
        if (take := self._head_taker) is not None:
            self._head_taker = None
            if (found := whole.response(data)) is not None:
                head, end = found
                if end < len(data):
                    self._pieces, self._size = [data[end:]], len(data) - end
                take(head)
                return
            self._expect(frames.decode_response(), take)
        self._pieces.append(data)
        self._size += len(data)
        if self._decoder is None:
            if self._size > _HIGH_WATER and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        elif self._size >= self._wanted:
            self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self._fail(LostConnectionError(f"rank {self.rank} closed its connection"))
        else:
            self._fail(LostConnectionError(f"rank {self.rank} lost its connection: {error}"))

    # Decoding

    async def _read(self, decoder: frames.Decoder[frames.Value]) -> frames.Value:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        self._expect(decoder, self._wake)
        try:
            return cast(frames.Value, await self._waiter)
        finally:
            self._waiter = None

    def _wake(self, value: object) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(value)

    def _advance(self) -> None:
        """Feed the decoder what it wants, and the next one that somebody expects after it."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        position, size = 0, len(data)
        self._advancing = True
        try:
            while self._decoder is not None and size - position >= self._wanted:
                end = position + self._wanted
                piece, position = data[position:end], end
                try:
                    self._wanted = self._decoder.send(piece)
                except StopIteration as stop:
                    self._size = size - position  # whoever takes the value may ask whether there is more
                    take, self._decoder, self._take = self._take, None, _ignore  # or the last answer would stay here
                    take(stop.value)
        except ProtocolError as error:
            self._fail(WorkerError(f"rank {self.rank} answered garbage: {error}"))
        finally:
            self._advancing = False
            self._pieces = [data[position:]] if position < size else []
            self._size = size - position

    def _fail(self, error: WorkerError) -> None:
        if self._error is not None:
            return
        self._error = error
        self._decoder = self._head_taker = None
        self._transport.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.on_lost(error)


def _ignore(_value: object) -> None:
    """Nobody waits for it."""
