"""A group of ranks that serves one model: loaded, restarted when it is lost, ended. It has one owner, its ``_live``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bloomery.errors import (
    BadRequestError,
    BloomeryError,
    ModelLoadError,
    ProtocolError,
    RequestError,
    ServiceUnavailableError,
    WorkerError,
)
from bloomery.protocol.frames import Request
from bloomery.settings.model import ModelSettings
from bloomery.workers.adapter import REGISTER, Adapter, lacks_function, refusal_of
from bloomery.workers.allocation import Allocator
from bloomery.workers.answer import Answer, StreamBuffer
from bloomery.workers.call import Call
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


@dataclass(frozen=True)
class Placement:
    """Where a group's ranks run, and since when."""

    devices: tuple[str, ...]  # empty on a CPU machine
    started_at: float  # seconds since the epoch, of the latest launch; 0 before the first


class Group:
    """``on_change`` is called when its state changes or a request leaves it: there may be room now.

    ``adapters``, which the groups of a model share, are registered with the handler before it takes a request.
    """

    def __init__(
        self,
        settings: ModelSettings,
        index: int,
        launcher: Launcher,
        allocator: Allocator,
        limits: Limits,
        on_change: Callable[[], None],
        adapters: MutableMapping[str, Adapter] | None = None,
    ) -> None:
        self.settings, self.index = settings, index
        self._adapters: MutableMapping[str, Adapter] = {} if adapters is None else adapters
        self.placement = Placement((), 0.0)
        self._callers = 0  # of ``call`` that wait for room, which is then theirs
        self._changed = asyncio.Event()
        self._launcher, self._allocator, self._limits = launcher, allocator, limits
        self._on_change = on_change
        self.state: GroupState = "loading"
        self.error: ModelLoadError | None = None  # when it has failed
        self._message = ""
        self._ranks: RankSet | None = None
        self._restarts = 0
        self._failures = 0  # in a row, without one answer between them
        self._losses: deque[float] = deque(maxlen=settings.crash_loop_limit)  # when ranks were lost
        self.joined_at = -math.inf  # when it was last rid of a job that several requests shared
        self._random = random.Random()  # request ids; seeded by the operating system
        self._owner: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Begin to load; ``on_change`` tells when that is over."""
        self._owner = asyncio.create_task(self._live(), name=f"group {self.settings.name}/{self.index}")

    @property
    def capacity(self) -> int:
        """How many more jobs it can take now."""
        return max(0, self._room - self._callers) if self.state == "ready" else 0

    @property
    def _room(self) -> int:
        return self._ranks.capacity if self._ranks is not None else 0

    @property
    def busy(self) -> int:
        """How many jobs it holds."""
        return len(self._ranks.jobs) if self._ranks is not None else 0

    def status(self) -> GroupStatus:
        """Of this moment."""
        ranks = self._ranks if self._ranks and not self._ranks.broken.done() else None
        slowest = ranks.supervisor.slowest() if ranks else None
        loading = self.state in ("loading", "restarting")
        phase = (slowest.phase if slowest else "starting") if loading else self.state
        percent = (slowest.percent if slowest else 0.0) if loading else 100.0 if self.state == "ready" else 0.0
        pids = tuple(handle.pid for handle in self._ranks.handles) if self._ranks else ()
        return GroupStatus(self.index, self.state, phase, percent, self.busy, self._restarts, self._message, pids)

    def begin(self, calls: Sequence[Call]) -> None:
        """Hand requests to the ranks, joined into one job; needs capacity."""
        assert self._ranks is not None
        buffer = StreamBuffer(self._limits.stream_buffer, self._limits.reader_grace, self.settings.predict_timeout)
        job = Job(f"{self._random.getrandbits(128):032x}", calls, buffer)
        try:
            self._ranks.begin(job)
        except ProtocolError as error:
            for call in calls:
                call.refuse(BadRequestError(f"the request does not fit into a frame of the worker protocol: {error}"))

    async def call(self, function: str, request: Request) -> Answer:
        """Have the handler's ``function`` answer ``request``, ahead of what is queued. The answer is complete.

        ServiceUnavailableError: the group is not ready, or is lost meanwhile.
        """
        call = Call(request, None, lambda _call: None, function)
        self._callers += 1
        try:
            while self.state == "ready" and self._room < 1:
                self._changed.clear()
                await self._changed.wait()
            if self.state != "ready":
                raise ServiceUnavailableError(f"group {self.index} of model {self.settings.name!r} is {self.state}")
            self.begin([call])
        finally:
            self._callers -= 1
            self._on_change()
        return await _completed(call)

    def _release(self, job: Job) -> None:
        if job.served:
            self._failures = 0
        if job.joined:
            self.joined_at = time.monotonic()
        self._changed.set()
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
            if (loop := self._crash_loop(cause)) is not None:
                self._fail(loop)
                return
            await self._pause(self._limits.restart_delay(self._failures), cause)

    def _crash_loop(self, cause: WorkerError) -> WorkerError | None:
        """Why another start is not worth it, if it is not."""
        threshold, limit, window = (
            self.settings.retry_threshold, self.settings.crash_loop_limit, self.settings.crash_loop_window,
        )  # fmt: skip
        if self._failures > threshold:
            return WorkerError(f"{self._failures} failures in a row without an answer; the last: {cause}")
        if not isinstance(cause, RestartRequestedError):
            self._losses.append(time.monotonic())
        if len(self._losses) == limit and self._losses[-1] - self._losses[0] <= window:
            return WorkerError(f"crash loop: workers were lost {limit} times within {window:g} s; the last: {cause}")
        return None

    async def _pause(self, delay: float, cause: WorkerError) -> None:
        logger.warning("[%s/%d] restarting in %g s: %s", self.settings.name, self.index, delay, cause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()

    async def _launch_and_watch(self) -> WorkerError:
        """One life of the ranks; returns why it ended. A first load that fails is raised: it would fail again."""
        allocation = self._allocator.take(self.settings)
        self.placement = Placement(allocation.devices, time.time())
        try:
            ranks = self._ranks = RankSet(
                self.settings, self.index, self._launcher, allocation, self._limits, self._release
            )
            try:
                await self._load(ranks)
                await self._register_adapters(ranks)
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

    async def _end(self, ranks: RankSet) -> None:
        ranks.give_up(WorkerError("the group ends"))
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

    async def _register_adapters(self, ranks: RankSet) -> None:
        """Those that there are, and those that come while this goes on."""
        registered: set[str] = set()
        while missing := [adapter for name, adapter in self._adapters.items() if name not in registered]:
            for adapter in missing:
                registered.add(adapter.name)
                if ranks.capacity < 1:  # nothing is with them, so they are lost
                    raise await ranks.broken
                call = Call(adapter.request(), None, lambda _call: None, REGISTER)
                self.begin([call])
                try:
                    answer = await _completed(call)
                except RequestError as error:
                    raise WorkerError(f"adapter {adapter.name!r}: {error}") from error
                if (refusal := refusal_of(answer)) is not None:
                    self._refused(adapter, refusal)

    def _refused(self, adapter: Adapter, refusal: str) -> None:
        """At a first load the user sees it; later the group must come back, and the adapter is unknown from then on."""
        text = f"adapter {adapter.name!r} ({adapter.src}) could not be registered: {refusal}"
        if self._restarts == 0 and not lacks_function(refusal, REGISTER):
            raise WorkerError(text)
        logger.error("[%s/%d] %s", self.settings.name, self.index, text)
        self._adapters.pop(adapter.name, None)

    def _fail(self, error: BloomeryError) -> None:
        report = load_report(self.settings, self.index, error)
        self.error = ModelLoadError(f"model {self.settings.name!r} failed: {reason_of(error)}", report)
        self._change("failed", reason_of(error))

    def _change(self, state: GroupState, message: str = "") -> None:
        self.state, self._message = state, message
        self._changed.set()
        self._on_change()


async def _completed(call: Call) -> Answer:
    """The answer with all of its body."""
    async with call as answer:
        if answer.stream is None:
            return answer
        return replace(answer, content=[("data", b"".join([piece async for piece in answer.stream]))], stream=None)
