"""One launch of all ranks of a group: from their start to their end, with everything that lies about meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Coroutine
from typing import Any, TypeVar

from bloomery.errors import WorkerError
from bloomery.processes.ports import ReservedPort
from bloomery.protocol.frames import Request, encode_request
from bloomery.settings.model import ModelSettings
from bloomery.workers.all_ranks import AllRanks
from bloomery.workers.allocation import Allocation
from bloomery.workers.command import rank_specs
from bloomery.workers.concurrency import until_first_failure
from bloomery.workers.connection import Connection, LostConnectionError
from bloomery.workers.job import Job, error_text
from bloomery.workers.launcher import Launcher, RankHandle
from bloomery.workers.leader import Leader
from bloomery.workers.leftovers import private_directory, remove_allreduce_buffers
from bloomery.workers.limits import Limits
from bloomery.workers.supervision import LostRankError, Supervisor

Result = TypeVar("Result")
logger = logging.getLogger("bloomery.workers")
_EXIT_PATIENCE = 1.0  # a closed connection is seen a moment before the exit that explains it


class HandlerLoadError(LostRankError):
    """The handler's initialise call failed."""


class RankSet:
    """``broken`` is resolved with the first reason why these ranks cannot go on."""

    def __init__(
        self, settings: ModelSettings, group: int, launcher: Launcher, allocation: Allocation, limits: Limits
    ) -> None:
        self._settings, self._limits = settings, limits
        self.broken: asyncio.Future[WorkerError] = asyncio.get_running_loop().create_future()
        self._directory = private_directory()
        self._port = ReservedPort()
        self._connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.handles: list[RankHandle] = []
        try:
            for spec in rank_specs(settings, group, self._directory, self._port, allocation):
                self.handles.append(launcher.launch(spec))
        except OSError as error:
            for handle in self.handles:
                handle.kill()
            self._clean_up()
            raise WorkerError(f"cannot start a rank in {settings.model_dir}: {error}") from error
        self.supervisor = Supervisor(self.handles, limits, self._break, overlapping=settings.async_mode)
        self._spawn(self.supervisor.run())

    async def load(self) -> None:
        """Wait until every rank listens, connect, and have every handler initialised. WorkerError if one cannot."""
        timeout = self._settings.model_loading_timeout
        try:
            async with asyncio.timeout(timeout):
                await self._unless_broken(self._load())
        except WorkerError as error:
            raise await self._explain(error) from error
        except TimeoutError:
            stacks = await self.supervisor.stacks()
            waiting = "\n".join(f"rank {rank} was here:\n{stack}" for rank, stack in stacks.items())
            raise WorkerError(f"loading took longer than model_loading_timeout={timeout:g} s\n{waiting}") from None

    async def _load(self) -> None:
        await until_first_failure(self._connect(handle) for handle in self.handles)
        self._connections.sort(key=lambda connection: connection.rank)
        request = encode_request(Request({"handler": self._settings.handler} | self._settings.properties))
        # The first rank that fails ends the wait, because its peers may be waiting for it in a collective.
        await until_first_failure(
            self._initialise(handle, connection, request)
            for handle, connection in zip(self.handles, self._connections, strict=True)
        )
        dispatch = Leader if self._settings.dispatch == "leader" else AllRanks
        self._dispatch = dispatch(self._connections, self._settings, self._limits, self.supervisor)
        self._spawn(self._run_dispatch())

    async def _connect(self, handle: RankHandle) -> None:
        # Each as soon as it listens: a worker gives up when nobody has connected for 30 s.
        await handle.started.wait()
        self._connections.append(await Connection.open(handle.address, handle.rank))

    async def _run_dispatch(self) -> None:
        try:
            await self._dispatch.run()
        except WorkerError as error:
            self._break(await self._explain(error))

    async def _initialise(self, handle: RankHandle, connection: Connection, request: bytes) -> None:
        await connection.send(request)
        head = await connection.read_head()
        text = await _drain(connection) if head.content is None else error_text(head)
        if head.code >= 300:
            raise HandlerLoadError(text, handle)

    @property
    def capacity(self) -> int:
        """How many jobs at once."""
        return self._dispatch.capacity

    async def serve(self, job: Job) -> None:
        """Returns when the ranks are rid of the job, whose caller has then been told how it went."""
        try:
            await self._unless_broken(self._dispatch.serve(job))
        except Exception as error:
            if not isinstance(error, WorkerError):  # a defect of ours: nobody may wait for an answer for ever
                logger.exception("serving a request failed")
            self._break(await self._explain(error))
            job.fail(f"model {self._settings.name!r} lost its workers: {self.broken.result()}")

    def cancel(self, job: Job) -> None:
        """Tell the ranks at once that nobody waits for the answer."""
        self._spawn(self._cancel(job))

    async def _cancel(self, job: Job) -> None:
        job.cancel_delivered = await self.supervisor.cancel(job.request_id)

    def give_up(self, reason: WorkerError) -> None:
        """Whatever they still hold gets ``reason`` for an answer, unless they are broken already."""
        self._break(reason)

    async def end(self, grace: float) -> None:
        """Terminate, kill, and leave nothing behind."""
        await asyncio.gather(*(handle.end(grace) for handle in self.handles))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self._connections:
            connection.close()
        self._clean_up()

    def _clean_up(self) -> None:
        remove_allreduce_buffers(self._port)
        self._port.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _break(self, error: WorkerError) -> None:
        if not self.broken.done():
            self.broken.set_result(error)

    async def _explain(self, error: Exception) -> WorkerError:
        """A rank that exited explains its closed connection better than the connection does."""
        if not isinstance(error, WorkerError):
            return WorkerError(f"supervision failed: {error!r}")
        if not isinstance(error, LostConnectionError):
            return error
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.broken), _EXIT_PATIENCE)
        return error

    async def _unless_broken(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.ensure_future(work)
        try:
            waited: set[asyncio.Future[Any]] = {task, self.broken}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self.broken.result()
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_end)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(WorkerError(f"supervision failed: {error!r}"))


async def _drain(connection: Connection) -> str:
    """The error that ended a stream, if one did."""
    while True:
        chunk = await connection.read_chunk()
        if chunk.last:
            return chunk.data.decode("utf-8", "replace")
