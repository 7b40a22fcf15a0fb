"""Dispatch to ranks that meet in collectives: every rank gets the frame, every rank is drained, one at a time.

The answer is rank 0's, and it counts only if every rank succeeded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bloomery.errors import WorkerError
from bloomery.protocol.frames import ResponseHead
from bloomery.settings.model import ModelSettings
from bloomery.workers.concurrency import until_first_failure
from bloomery.workers.connection import Connection
from bloomery.workers.deadlines import Deadlines
from bloomery.workers.job import Job, error_text, handler_failure
from bloomery.workers.limits import Limits
from bloomery.workers.supervision import Supervisor

OUT_OF_MEMORY = 507


class AllRanks:
    """Serves one job at a time."""

    capacity = 1

    def __init__(
        self, connections: Sequence[Connection], settings: ModelSettings, limits: Limits, supervisor: Supervisor
    ) -> None:
        self._connections, self._supervisor = connections, supervisor
        self._settings, self._limits = settings, limits

    async def run(self) -> None:
        """Nothing runs between the jobs."""

    async def serve(self, job: Job) -> None:
        """Returns when every rank is rid of the job; WorkerError: a rank is lost or stands still."""
        exchange = _Exchange(job, len(self._connections))
        deadlines = Deadlines(job, self._settings, self._limits, self._supervisor)

        async def check() -> None:
            await deadlines.check(exchange.touched_at)
            self._check_peers(exchange)

        await until_first_failure((exchange.with_rank(each) for each in self._connections), deadlines.tick, check)
        exchange.finish()

    def _check_peers(self, exchange: _Exchange) -> None:
        """A rank that failed alone leaves the others waiting for it in a collective for ever."""
        failure = exchange.failure()
        idle = time.monotonic() - max(exchange.touched_at, self._supervisor.progress_at)
        if failure is None or idle < self._limits.peer_grace:
            return
        rank, text = failure
        exchange.finish()
        raise WorkerError(f"rank {rank} failed ({text}) and left its peers waiting")


class _Exchange:
    """What the ranks have answered to one job so far."""

    def __init__(self, job: Job, ranks: int) -> None:
        self._job, self._ranks = job, ranks
        self._heads: dict[int, ResponseHead] = {}
        self._stream_failures: dict[int, str] = {}
        self._all_heads = asyncio.Event()
        self.touched_at = time.monotonic()

    async def with_rank(self, connection: Connection) -> None:
        """Send the frame to one rank and read its whole answer."""
        await connection.send(self._job.frame)
        head = await connection.read_head()
        self.touched_at = time.monotonic()
        self._heads[connection.rank] = head
        if len(self._heads) == self._ranks:
            self._decide()
        if head.content is None:
            await self._drain(connection)

    def failure(self) -> tuple[int, str] | None:
        """The first rank that has reported a failure, and its words."""
        for rank in range(self._ranks):
            if rank in self._stream_failures:
                return rank, self._stream_failures[rank]
            if rank in self._heads and self._heads[rank].code >= 300:
                return rank, error_text(self._heads[rank])
        return None

    def finish(self) -> None:
        """Nothing more will come: tell the reader how it went."""
        failure = self.failure()
        if failure is None:
            self._job.buffer.end()
            return
        rank, text = failure
        if rank == 0 and 0 in self._heads:
            self._job.reply(self._heads[0])
        self._job.reply(handler_failure(rank, text))
        self._job.break_off(text if rank == 0 else f"rank {rank}: {text}")

    def _decide(self) -> None:
        """All status lines are here: answer the caller."""
        self._all_heads.set()
        failed = next((rank for rank in range(self._ranks) if self._heads[rank].code >= 300), 0)
        if failed == 0:
            self._job.reply(self._heads[0])
            return
        code = OUT_OF_MEMORY if self._heads[failed].code == OUT_OF_MEMORY else 424
        self._job.reply(handler_failure(failed, error_text(self._heads[failed]), code))
        self._job.buffer.end()  # rank 0 may be streaming; nobody hears it

    async def _drain(self, connection: Connection) -> None:
        while True:
            chunk = await connection.read_chunk()
            self.touched_at = time.monotonic()
            if chunk.last:
                if chunk.data:
                    self._stream_failures[connection.rank] = chunk.data.decode("utf-8", "replace")
                return
            if connection.rank == 0:
                if self._job.buffer.full:
                    await self._all_heads.wait()  # before that there is no reader who could be slow
                await self._job.buffer.put(chunk.data)
                self.touched_at = time.monotonic()
