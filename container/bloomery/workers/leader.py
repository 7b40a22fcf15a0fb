"""Dispatch of an asynchronous handler: frames go to rank 0 alone, many are in flight, answers come in any order.

The wire is that of DJLServing's asynchronous mode: each frame from the worker carries its request's
``request_tracking_id``, and its body is either a whole answer or one piece of it, encoded as pairs ``data``, ``last``
and perhaps ``code`` and ``error``. The other ranks take their orders from rank 0 and are watched as processes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from bloomery.protocol.frames import TRACKING_ID, ResponseHead
from bloomery.settings.model import ModelSettings
from bloomery.workers.concurrency import Lost
from bloomery.workers.connection import Connection
from bloomery.workers.dispatch import frame
from bloomery.workers.failure import error_text
from bloomery.workers.job import Job
from bloomery.workers.limits import Limits
from bloomery.workers.piece import Piece
from bloomery.workers.supervision import Supervisor

logger = logging.getLogger("bloomery.workers")


class Leader:
    """Serves many jobs at a time."""

    def __init__(
        self,
        connections: Sequence[Connection],
        settings: ModelSettings,
        limits: Limits,
        _supervisor: Supervisor,
        _lost: Lost,
    ) -> None:
        self._connection = connections[0]
        self._connection.open_for_answers = True
        self._settings = settings
        self._in_flight: dict[str, Job] = {}
        self.capacity = limits.leader_capacity

    async def run(self) -> None:
        """Hand out what rank 0 sends, for ever."""
        while True:
            head = await self._connection.read_head()
            request_id = head.properties.pop(TRACKING_ID, "")
            job = self._in_flight.get(request_id)
            if job is None:
                logger.warning("model %r answered request %r, which is not in flight", self._settings.name, request_id)
            if head.content is None:
                await self._take_stream(job, head)
            elif job is not None:
                self._take(job, head)

    def begin(self, job: Job) -> None:
        """Send the frame; ``run`` takes the answer."""
        encoded = frame(self._settings, job, None, {TRACKING_ID: job.request_id})  # rank 0 draws for its peers
        self._in_flight[job.request_id] = job
        self._connection.send(encoded)

    def check(self, job: Job) -> None:
        """The peers take no requests, so none of them can be left waiting by one."""

    async def _take_stream(self, job: Job | None, head: ResponseHead) -> None:
        """An answer with a stream of its own: its chunks follow at once, before any other frame."""
        if job is not None:
            job.reply(head)
        while not (chunk := await self._connection.read_chunk()).last:
            if job is not None:
                job.touched_at = time.monotonic()
                job.buffer.put_now(chunk.data)
        if job is not None:
            self._finish(job, chunk.data.decode("utf-8", "replace"))

    def _take(self, job: Job, head: ResponseHead) -> None:
        """A whole answer, or one piece of one."""
        job.touched_at = time.monotonic()
        piece = Piece.decode(head.content[0][1]) if head.code == 200 and head.content else None
        if piece is None:
            if job.answered:  # pieces have left already: a whole answer now can only be the news of a failure
                self._finish(job, error_text(head))
            else:
                job.reply(head)
                self._finish(job)
            return
        if piece.last and not job.answered:
            code = piece.code or head.code
            job.reply(replace(head, code=code, content=[("data", piece.data or piece.error.encode())]))
            self._finish(job)
            return
        job.reply(replace(head, content=None))
        job.buffer.put_now(piece.data)
        if piece.last:
            self._finish(job, piece.error)

    def _finish(self, job: Job, failure: str = "") -> None:
        if failure:
            job.break_off(failure)
        job.buffer.end()
        self._in_flight.pop(job.request_id, None)
        job.over()
