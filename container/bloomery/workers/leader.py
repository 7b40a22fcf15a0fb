"""Dispatch of an asynchronous handler: frames go to rank 0 alone, many are in flight, answers come in any order.

The wire is that of DJLServing's asynchronous mode: each frame from the worker carries its request's
``request_tracking_id``, and its body is either a whole answer or one piece of it, encoded as pairs ``data``, ``last``
and perhaps ``code`` and ``error``. The other ranks take their orders from rank 0 and are watched as processes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bloomery.errors import ProtocolError
from bloomery.protocol.frames import TRACKING_ID, Dialect, ResponseHead, decode_bytes, decode_pairs
from bloomery.settings.model import ModelSettings
from bloomery.workers.connection import Connection
from bloomery.workers.deadlines import Deadlines
from bloomery.workers.job import Job, error_text
from bloomery.workers.limits import Limits
from bloomery.workers.supervision import Supervisor

logger = logging.getLogger("bloomery.workers")


@dataclass
class _InFlight:
    job: Job
    over: asyncio.Event = field(default_factory=asyncio.Event)
    touched_at: float = field(default_factory=time.monotonic)


class Leader:
    """Serves many jobs at a time."""

    def __init__(
        self, connections: Sequence[Connection], settings: ModelSettings, limits: Limits, supervisor: Supervisor
    ) -> None:
        self._connection = connections[0]
        self._settings, self._limits, self._supervisor = settings, limits, supervisor
        self._in_flight: dict[str, _InFlight] = {}
        self._sending = asyncio.Lock()
        self.capacity = limits.leader_capacity

    async def run(self) -> None:
        """Hand out what rank 0 sends, for ever."""
        while True:
            head = await self._connection.read_head()
            request_id = head.properties.pop(TRACKING_ID, "")
            entry = self._in_flight.get(request_id)
            if entry is None:
                logger.warning("model %r answered request %r, which is not in flight", self._settings.name, request_id)
            if head.content is None:
                await self._take_stream(entry, head)
            elif entry is not None:
                _take(entry, head)

    async def serve(self, job: Job) -> None:
        """Returns when the job is over; WorkerError: rank 0 stands still."""
        entry = self._in_flight[job.request_id] = _InFlight(job)
        deadlines = Deadlines(job, self._settings, self._limits, self._supervisor)
        try:
            async with self._sending:
                await self._connection.send(job.frame)
            while not entry.over.is_set():
                try:
                    async with asyncio.timeout(deadlines.tick):
                        await entry.over.wait()
                except TimeoutError:
                    await deadlines.check(entry.touched_at)
        finally:
            del self._in_flight[job.request_id]

    async def _take_stream(self, entry: _InFlight | None, head: ResponseHead) -> None:
        """An answer with a stream of its own: its chunks follow at once, before any other frame."""
        if entry is not None:
            entry.job.reply(head)
        while not (chunk := await self._connection.read_chunk()).last:
            if entry is not None:
                entry.touched_at = time.monotonic()
                entry.job.buffer.put_now(chunk.data)
        if entry is not None:
            _finish(entry, chunk.data.decode("utf-8", "replace"))


def _take(entry: _InFlight, head: ResponseHead) -> None:
    """A whole answer, or one piece of one."""
    entry.touched_at = time.monotonic()
    piece = _decode_piece(head)
    if piece is None:
        if entry.job.answered:  # pieces have left already: a whole answer now can only be the news of a failure
            _finish(entry, error_text(head))
        else:
            entry.job.reply(head)
            _finish(entry)
        return
    data = piece.get("data", "").encode()
    last = piece.get("last", "").lower() == "true"
    if last and not entry.job.answered:
        code = int(piece["code"]) if piece.get("code", "").isdecimal() else head.code
        body = data or piece.get("error", "").encode()
        entry.job.reply(replace(head, code=code, content=[("data", body)]))
        _finish(entry)
        return
    entry.job.reply(replace(head, content=None))
    entry.job.buffer.put_now(data)
    if last:
        _finish(entry, piece.get("error", ""))


def _finish(entry: _InFlight, failure: str = "") -> None:
    if failure:
        entry.job.break_off(failure)
    entry.job.buffer.end()
    entry.over.set()


def _decode_piece(head: ResponseHead) -> dict[str, str] | None:
    """The pairs of one piece, or None if the answer is a whole one."""
    if head.code != 200 or not head.content:
        return None
    try:
        pairs, rest = decode_bytes(decode_pairs(Dialect.INT32), head.content[0][1])
    except ProtocolError:
        return None
    return pairs if not rest and "last" in pairs else None
