"""Dispatch to ranks that meet in collectives: every rank gets the frame, every rank is drained, one job at a time.

The answer is rank 0's, and it counts only if every rank succeeded.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from bloomery.errors import WorkerError
from bloomery.protocol.frames import ResponseHead
from bloomery.settings.model import ModelSettings
from bloomery.workers.concurrency import Lost, Tasks
from bloomery.workers.connection import Connection
from bloomery.workers.dispatch import frame
from bloomery.workers.failure import error_text, handler_failure
from bloomery.workers.job import Job
from bloomery.workers.limits import Limits
from bloomery.workers.supervision import Supervisor

OUT_OF_MEMORY = 507


class AllRanks:
    """Serves one job at a time."""

    capacity = 1

    def __init__(
        self,
        connections: Sequence[Connection],
        settings: ModelSettings,
        limits: Limits,
        supervisor: Supervisor,
        lost: Lost,
    ) -> None:
        self._connections, self._settings = connections, settings
        self._limits, self._supervisor = limits, supervisor
        self._draining = Tasks(lost)
        self._random = random.Random()  # seeds of requests; seeded by the operating system
        self._exchange: _Exchange | None = None

    async def run(self) -> None:
        """Nothing runs between the jobs; what drains streams ends with this."""
        async with self._draining:
            await asyncio.Event().wait()

    def begin(self, job: Job) -> None:
        """Send the frame to every rank; the answers come back through callbacks."""
        encoded = frame(self._settings, job, self._random.getrandbits(31) if len(self._connections) > 1 else None)
        self._exchange = _Exchange(job, self._connections, self._draining, self._forget)
        self._exchange.begin(encoded)

    def _forget(self) -> None:
        self._exchange = None

    def check(self, job: Job) -> None:
        """A rank that failed alone leaves the others waiting for it in a collective for ever."""
        exchange = self._exchange
        failure = exchange.failure() if exchange is not None else None
        idle = time.monotonic() - max(job.touched_at, self._supervisor.progress_at)
        if exchange is None or failure is None or idle < self._limits.peer_grace:
            return
        rank, text = failure
        exchange.tell()
        raise WorkerError(f"rank {rank} failed ({text}) and left its peers waiting")


class _Exchange:
    """What the ranks have answered to one job so far."""

    def __init__(
        self, job: Job, connections: Sequence[Connection], draining: Tasks, on_over: Callable[[], None]
    ) -> None:
        self._job, self._connections, self._draining, self._on_over = job, connections, draining, on_over
        self._ranks = self._unfinished = len(connections)
        self._heads: dict[int, ResponseHead] = {}
        self._stream_failures: dict[int, str] = {}
        self._all_heads: asyncio.Event | None = None  # made when a stream has to wait for it

    def begin(self, encoded: bytes) -> None:
        for connection in self._connections:
            connection.open_for_answers = True
            connection.expect_head(partial(self._take, connection))
            connection.send(encoded)

    def failure(self) -> tuple[int, str] | None:
        """The first rank that has reported a failure, and its words."""
        for rank in range(self._ranks):
            if rank in self._stream_failures:
                return rank, self._stream_failures[rank]
            if rank in self._heads and self._heads[rank].code >= 300:
                return rank, error_text(self._heads[rank])
        return None

    def tell(self) -> None:
        """Nothing more will come: tell the reader how it went."""
        failure = self.failure()
        if failure is None:
            self._job.buffer.end()
            return
        rank, text = failure
        if rank == 0 and 0 in self._heads:
            self._job.reply(self._heads[0])
        self._job.reply(handler_failure(f"rank {rank}: {text}"))
        self._job.break_off(text if rank == 0 else f"rank {rank}: {text}")

    def _take(self, connection: Connection, head: ResponseHead) -> None:
        """One rank's status line, with its body unless a stream follows."""
        self._job.touched_at = time.monotonic()
        if head.content is not None and not connection.end_answer():
            return
        if self._ranks == 1 and head.content is not None:  # the shortest way: nobody to wait for, nothing to follow
            self._job.reply(head)
            self._end()
            return
        self._heads[connection.rank] = head
        if len(self._heads) == self._ranks:
            self._decide()
        if head.content is None:
            self._draining.start(self._drain(connection))
        else:
            self._rid()

    def _decide(self) -> None:
        """All status lines are here: answer the caller."""
        if self._all_heads is not None:
            self._all_heads.set()
        failed = next((rank for rank in range(self._ranks) if self._heads[rank].code >= 300), 0)
        if failed == 0:
            self._job.reply(self._heads[0])
            return
        code = OUT_OF_MEMORY if self._heads[failed].code == OUT_OF_MEMORY else 424
        self._job.reply(handler_failure(f"rank {failed}: {error_text(self._heads[failed])}", code))
        self._job.buffer.end()  # rank 0 may be streaming; nobody hears it

    def _rid(self) -> None:
        """One more rank has nothing more to say."""
        self._unfinished -= 1
        if self._unfinished == 0:
            self.tell()
            self._end()

    def _end(self) -> None:
        self._on_over()
        self._job.over()

    async def _drain(self, connection: Connection) -> None:
        while not (chunk := await connection.read_chunk()).last:
            self._job.touched_at = time.monotonic()
            if connection.rank == 0:
                await self._pass_on(chunk.data)
        if chunk.data:
            self._stream_failures[connection.rank] = chunk.data.decode("utf-8", "replace")
        if connection.end_answer():
            self._rid()

    async def _pass_on(self, data: bytes) -> None:
        if self._job.buffer.full and len(self._heads) < self._ranks:
            self._all_heads = asyncio.Event()
            await self._all_heads.wait()  # before that there is no reader who could be slow
        await self._job.buffer.put(data)
        self._job.touched_at = time.monotonic()
