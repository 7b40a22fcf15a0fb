"""A group of ranks that serves one model: loaded, restarted when it is lost, ended. It has one owner, its ``_live``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bloomery.errors import (
    BadRequestError,
    BloomeryError,
    ModelLoadError,
    ProtocolError,
    ServiceUnavailableError,
    WorkerError,
)
from bloomery.protocol import private
from bloomery.protocol.frames import TRACKING_ID, Request, encode_request
from bloomery.settings.model import ModelSettings
from bloomery.workers import requirements
from bloomery.workers.allocation import Allocator
from bloomery.workers.answer import Answer, StreamBuffer
from bloomery.workers.job import Job
from bloomery.workers.launcher import Launcher
from bloomery.workers.limits import Limits
from bloomery.workers.rank_set import RankSet
from bloomery.workers.report import load_report
from bloomery.workers.supervision import RestartRequestedError, reason_of

GroupState = Literal["loading", "ready", "restarting", "failed", "stopped"]

SHUTTING_DOWN = "the server is shutting down"

logger = logging.getLogger("bloomery.workers")


@dataclass(frozen=True)
class GroupStatus:
    """What /ping and the management interface say about a group."""

    index: int
    state: GroupState
    phase: str
    percent: float
    busy: int  # requests it holds
    restarts: int
    message: str  # why it is not ready
    pids: tuple[int, ...] = ()


class Group:
    """``on_change`` is called when its state changes or a request leaves it: there may be room now."""

    def __init__(
        self,
        settings: ModelSettings,
        index: int,
        launcher: Launcher,
        allocator: Allocator,
        limits: Limits,
        on_change: Callable[[], None],
    ) -> None:
        self.settings, self.index = settings, index
        self._launcher, self._allocator, self._limits = launcher, allocator, limits
        self._on_change = on_change
        self.state: GroupState = "loading"
        self.error: ModelLoadError | None = None  # when it has failed
        self._message = ""
        self._ranks: RankSet | None = None
        self._phase = "starting"  # while there are no ranks that could say
        self._jobs: dict[Job, asyncio.Task[None]] = {}
        self._restarts = 0
        self._failures = 0  # in a row, without one answer between them
        self._owner: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to load; ``on_change`` tells when that is over."""
        self._owner = asyncio.create_task(self._live(), name=f"group {self.settings.name}/{self.index}")

    @property
    def capacity(self) -> int:
        """How many more requests it can take now."""
        if self.state != "ready" or self._ranks is None or self._ranks.broken.done():
            return 0
        return self._ranks.capacity - len(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether it holds a request."""
        return bool(self._jobs)

    def status(self) -> GroupStatus:
        """Of this moment."""
        ranks = self._ranks if self._ranks and not self._ranks.broken.done() else None
        slowest = ranks.supervisor.slowest() if ranks else None
        loading = self.state in ("loading", "restarting")
        phase = (slowest.phase if slowest else self._phase) if loading else self.state
        percent = (slowest.percent if slowest else 0.0) if loading else 100.0 if self.state == "ready" else 0.0
        pids = tuple(handle.pid for handle in self._ranks.handles) if self._ranks else ()
        return GroupStatus(self.index, self.state, phase, percent, len(self._jobs), self._restarts, self._message, pids)

    @contextlib.asynccontextmanager
    async def submit(self, request: Request) -> AsyncIterator[Answer]:
        """Hand ``request`` to the ranks; needs capacity. Leaving before the answer is complete cancels it there."""
        if self.capacity < 1 or self._ranks is None:
            raise ServiceUnavailableError(f"group {self.index} of model {self.settings.name!r} has no room")
        ranks, job = self._ranks, self._job(request)
        task = self._jobs[job] = asyncio.create_task(ranks.serve(job))
        task.add_done_callback(lambda _task: self._release(job))
        try:
            answer = await job.answer()
            self._failures = 0
            yield answer
        finally:
            if not job.delivered:
                job.abandon()
                ranks.cancel(job)

    def _job(self, request: Request) -> Job:
        request_id = uuid.uuid4().hex
        properties = request.properties | {
            "handler": self.settings.handler,
            private.REQUEST_ID: request_id,
            private.SEED: str(secrets.randbits(31)),  # one for all ranks, or their sampling diverges
        }
        if self.settings.dispatch == "leader":
            properties[TRACKING_ID] = request_id
        buffer = StreamBuffer(self._limits.stream_buffer, self._limits.reader_grace, self.settings.predict_timeout)
        try:
            frame = encode_request(replace(request, properties=properties))
        except ProtocolError as error:
            raise BadRequestError(f"the request does not fit into a frame of the worker protocol: {error}") from error
        return Job(request_id, frame, buffer)

    def _release(self, job: Job) -> None:
        del self._jobs[job]
        self._on_change()

    async def stop(self) -> None:
        """End the ranks; a request that they hold gets its error."""
        # Never by cancelling the owner: that would cut short its own cleaning up after a loss.
        self._stopping.set()
        if self._ranks is not None:
            self._ranks.give_up(WorkerError(SHUTTING_DOWN))
        if self._owner is not None:
            await asyncio.wait({self._owner})
        self._change("stopped", SHUTTING_DOWN)

    async def _live(self) -> None:
        while not self._stopping.is_set():
            try:
                cause = await self._launch_and_watch()
            except BloomeryError as error:
                self._fail(error)
                return
            except Exception as error:
                logger.exception("[%s/%d] supervision failed", self.settings.name, self.index)
                self._fail(WorkerError(f"supervision failed: {error!r}"))
                return
            if self._stopping.is_set():
                return
            self._restarts += 1
            if not isinstance(cause, RestartRequestedError):
                self._failures += 1
            if self._failures > self.settings.retry_threshold:
                self._fail(WorkerError(f"{self._failures} failures in a row without an answer; the last: {cause}"))
                return
            await self._pause(self._limits.restart_delay(self._failures), cause)

    async def _pause(self, delay: float, cause: WorkerError) -> None:
        logger.warning("[%s/%d] restarting in %g s: %s", self.settings.name, self.index, delay, cause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()

    async def _launch_and_watch(self) -> WorkerError:
        """One life of the ranks; returns why it ended. A first load that fails is raised: it would fail again."""
        allocation = self._allocator.take(self.settings.tensor_parallel_degree, self.settings.name)
        try:
            try:
                settings = replace(self.settings, packages=await self._packages())
                ranks = self._ranks = RankSet(settings, self.index, self._launcher, allocation, self._limits)
                await self._load(ranks)
                self._change("ready")
                cause = await ranks.broken
            except WorkerError as error:
                if self._restarts == 0 and not self._stopping.is_set():
                    raise
                cause = error
            self._change("restarting", reason_of(cause))
            return cause
        finally:
            if self._ranks is not None:
                await self._end(self._ranks)
            self._allocator.give_back(allocation)

    async def _packages(self) -> Path | None:
        """Where the model's own packages are, once its requirements are installed."""
        self._phase = "installing requirements"
        install = asyncio.create_task(requirements.install(self.settings))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({install, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._phase = "starting"
            for task in (install, stopping):
                task.cancel()
            await asyncio.gather(install, stopping, return_exceptions=True)
        if self._stopping.is_set():  # asked last: who stops a group without ranks has nobody to give up
            raise WorkerError(SHUTTING_DOWN)
        return install.result()

    async def _end(self, ranks: RankSet) -> None:
        ranks.give_up(WorkerError("the group ends"))
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        # Only ranks that were well get time to clean up: who waits in a collective for a lost peer never would.
        await ranks.end(self._limits.terminate_grace if self._stopping.is_set() else 0.0)
        self._ranks = None

    async def _load(self, ranks: RankSet) -> None:
        """Log how far the load is, because a log is all that most users see of it."""
        started = time.monotonic()
        load = asyncio.create_task(ranks.load())
        label = f"[{self.settings.name}/{self.index}]"
        try:
            while not load.done():
                await asyncio.wait({load}, timeout=self._limits.progress_log_interval)
                status = ranks.supervisor.slowest()
                if not load.done() and status:
                    elapsed = time.monotonic() - started
                    logger.info("%s loading: %s %.0f %%, %.0f s so far", label, status.phase, status.percent, elapsed)
            await load
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        logger.info("%s ready after %.1f s", label, time.monotonic() - started)

    def _fail(self, error: BloomeryError) -> None:
        report = load_report(self.settings, self.index, error)
        self.error = ModelLoadError(f"model {self.settings.name!r} failed: {reason_of(error)}", report)
        self._change("failed", reason_of(error))

    def _change(self, state: GroupState, message: str = "") -> None:
        self.state, self._message = state, message
        self._on_change()
