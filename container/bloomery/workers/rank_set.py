"""One launch of all ranks of a group: from their start to their end, with everything that lies about meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bloomery.errors import DeadlineError, ServiceUnavailableError, UnansweredError, WorkerError
from bloomery.processes.ports import ReservedPort
from bloomery.protocol.frames import Request, encode_request
from bloomery.settings.model import DispatchKind, ModelSettings
from bloomery.workers.all_ranks import AllRanks
from bloomery.workers.allocation import Allocation
from bloomery.workers.command import rank_specs
from bloomery.workers.concurrency import Tasks, until_first_failure
from bloomery.workers.connection import Connection, LostConnectionError
from bloomery.workers.deadlines import Deadlines
from bloomery.workers.dispatch import Dispatch
from bloomery.workers.failure import error_text
from bloomery.workers.job import Job
from bloomery.workers.launcher import Launcher, RankHandle
from bloomery.workers.leader import Leader
from bloomery.workers.leftovers import private_directory, remove_allreduce_buffers
from bloomery.workers.limits import Limits
from bloomery.workers.rolling import Rolling
from bloomery.workers.supervision import LostRankError, Supervisor, headline

Result = TypeVar("Result")
logger = logging.getLogger("bloomery.workers")
_DISPATCHES: dict[DispatchKind, Callable[..., Dispatch]] = {
    "all_ranks": AllRanks,
    "leader": Leader,
    "rolling": Rolling,
}
_EXIT_PATIENCE = 1.0  # a closed connection is seen a moment before the exit that explains it


class HandlerLoadError(LostRankError):
    """The handler's initialise call failed."""


class RankSet:
    """``broken`` is resolved with the first reason why these ranks cannot go on; jobs that they hold then fail.

    ``on_release`` is called when they are rid of a job.
    """

    def __init__(
        self,
        settings: ModelSettings,
        group: int,
        launcher: Launcher,
        allocation: Allocation,
        limits: Limits,
        on_release: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self._settings, self._limits, self._on_release = settings, limits, on_release
        self.broken: asyncio.Future[WorkerError] = asyncio.get_running_loop().create_future()
        self.jobs: set[Job] = set()
        self._dispatch: Dispatch | None = None  # once every rank is loaded
        self._doubtful = False  # a connection is lost, and its rank's exit may still explain it
        self._directory = private_directory()
        self._port = ReservedPort()
        self._connections: list[Connection] = []
        self._tasks = Tasks(self._lose)
        self.handles: list[RankHandle] = []
        try:
            for spec in rank_specs(settings, group, self._directory, self._port, allocation):
                self.handles.append(launcher.launch(spec))
        except OSError as error:
            for handle in self.handles:
                handle.kill()
            self._clean_up()
            raise WorkerError(f"cannot start a rank in {settings.model_dir}: {error}") from error
        overlapping = settings.dispatch != "all_ranks"
        self.supervisor = Supervisor(self.handles, limits, self._break, overlapping, lambda: bool(self.jobs))
        self._tasks.start(self.supervisor.run())

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
        make = _DISPATCHES[self._settings.dispatch]
        for connection in self._connections:
            connection.on_lost = self._lose
            connection.end_answer()
        self._dispatch = make(self._connections, self._settings, self._limits, self.supervisor, self._lose)
        self._tasks.start(self._dispatch.run())
        self._tasks.start(self._watch(self._dispatch))

    async def _connect(self, handle: RankHandle) -> None:
        # Each as soon as it listens: a worker gives up when nobody has connected for 30 s.
        await handle.started.wait()
        self._connections.append(await Connection.open(handle.address, handle.rank))

    async def _initialise(self, handle: RankHandle, connection: Connection, request: bytes) -> None:
        connection.open_for_answers = True
        connection.send(request)
        head = await connection.read_head()
        text = await _drain(connection) if head.content is None else error_text(head)
        if head.code >= 300:
            raise HandlerLoadError(text, handle)

    @property
    def capacity(self) -> int:
        """How many more jobs they can take now."""
        if self._dispatch is None or self._doubtful or self.broken.done():
            return 0
        return self._dispatch.capacity - len(self.jobs)

    def begin(self, job: Job) -> None:
        """Hand a job to the ranks, which have room; ProtocolError: it fits no frame."""
        assert self._dispatch is not None
        self._dispatch.begin(job)
        job.on_over, job.on_unwanted = self._over, self._unwanted
        self.jobs.add(job)

    def _over(self, job: Job) -> None:
        self.jobs.discard(job)
        self._on_release(job)

    def _unwanted(self, job: Job) -> None:
        """Tell the ranks at once that nobody waits for the answer."""
        self._tasks.start(self._cancel(job))

    async def _cancel(self, job: Job) -> None:
        job.cancel_delivered = await self.supervisor.cancel(job.request_id)

    async def _watch(self, dispatch: Dispatch) -> None:
        """Deadlines, for as long as the ranks live."""
        deadlines = Deadlines(self._settings, self._limits, self.supervisor)
        while True:
            await asyncio.sleep(deadlines.tick)
            for job in list(self.jobs):
                if job in self.jobs:  # it may have ended while another one was looked at
                    await deadlines.check(job)
                    dispatch.check(job)

    def give_up(self, reason: WorkerError) -> None:
        """Whatever they still hold gets ``reason`` for an answer, unless they are broken already."""
        self._break(reason)

    async def end(self, grace: float) -> None:
        """Terminate, kill, and leave nothing behind."""
        await asyncio.gather(*(handle.end(grace) for handle in self.handles))
        await self._tasks.end()
        for connection in self._connections:
            connection.close()
        self._clean_up()

    def _clean_up(self) -> None:
        remove_allreduce_buffers(self._port)
        self._port.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _break(self, error: WorkerError) -> None:
        if self.broken.done():
            return
        self.broken.set_result(error)
        for job in list(self.jobs):
            kind = DeadlineError if isinstance(error, UnansweredError) else ServiceUnavailableError
            job.fail(f"model {self._settings.name!r} lost its workers: {headline(error)}", kind)
            job.over()

    def _lose(self, error: Exception) -> None:
        """The ranks cannot go on."""
        if not isinstance(error, WorkerError):  # a defect of ours: nobody may wait for an answer for ever
            logger.error("supervision failed", exc_info=error)
            self._break(WorkerError(f"supervision failed: {error!r}"))
        elif isinstance(error, LostConnectionError):
            self._doubtful = True
            self._tasks.start(self._break_explained(error))
        else:
            self._break(error)

    async def _break_explained(self, error: WorkerError) -> None:
        self._break(await self._explain(error))

    async def _explain(self, error: WorkerError) -> WorkerError:
        """A rank that exited explains its closed connection better than the connection does."""
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


async def _drain(connection: Connection) -> str:
    """The error that ended a stream, if one did."""
    while True:
        chunk = await connection.read_chunk()
        if chunk.last:
            return chunk.data.decode("utf-8", "replace")
