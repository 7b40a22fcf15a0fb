"""One model: its queue and the groups of ranks that serve it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bloomery.errors import ModelLoadError, ServiceUnavailableError
from bloomery.protocol.frames import Request
from bloomery.serving.adapters import Adapters
from bloomery.serving.metrics import ModelMetrics
from bloomery.serving.queue import Queue
from bloomery.serving.status import ModelState, ModelStatus
from bloomery.settings.model import ModelSettings
from bloomery.workers.adapter import found_in
from bloomery.workers.allocation import Allocator
from bloomery.workers.call import Call
from bloomery.workers.group import Group, GroupStatus
from bloomery.workers.launcher import Launcher, LocalLauncher
from bloomery.workers.limits import Limits

_ORDER = ("ready", "restarting", "loading", "stopped", "failed")  # the best first


class Model:
    """``on_failure`` is called once, when the model can serve no more and will not recover by itself.

    ``min_workers`` groups start together. Give all models of a server the same ``allocator``.
    """

    def __init__(
        self,
        settings: ModelSettings,
        allocator: Allocator | None = None,
        *,
        launcher: Launcher | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        self.name, self.version = settings.name, settings.version
        self.error: ModelLoadError | None = None
        self.on_failure: Callable[[Model, ModelLoadError], None] | None = None
        self.metrics = ModelMetrics()
        self._allocator = allocator or Allocator()
        count = max(1, settings.min_workers)
        self._announced = 0
        self._announce(count)
        self._launcher, self._limits = launcher or LocalLauncher(), limits or Limits()
        self._groups: list[Group] = []
        self._leaving: list[Group] = []  # they finish what they hold
        self.adapters = Adapters(settings.name, self._groups, found_in(settings.model_dir))
        self._groups += [self._group(index) for index in range(count)]
        self._scaling = asyncio.Lock()
        self._queue = Queue(settings, self._groups)
        self._started_at = self._loaded_at = 0.0
        self._lost_at: float | None = None  # since when no group serves that once did
        self._stopping = False
        self._failing: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Begin to load; returns at once. ``status`` and ``loaded`` tell how it goes."""
        self._started_at = time.monotonic()
        for group in self._groups:
            group.start()

    async def loaded(self) -> None:
        """Wait until a first group is ready; raises ModelLoadError if the model failed or was stopped before."""
        await self._loaded.wait()
        if self.error is not None:
            raise self.error
        if not self._loaded_at:
            raise ModelLoadError(f"model {self.name!r} was stopped before it was loaded")

    async def stop(self, grace: float) -> None:
        """Refuse new requests, let the running ones finish for ``grace`` seconds, then end every process."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle()
        self._queue.refuse_all(ServiceUnavailableError(f"model {self.name!r} is shutting down"))
        await asyncio.gather(*(group.stop() for group in (*self._groups, *self._leaving)))
        if self._failing is not None:
            await asyncio.wait({self._failing})
        self._loaded.set()
        self._allocator.announce(-self._announced)
        self._announced = 0

    @property
    def groups(self) -> Sequence[Group]:
        """Those that serve, or will."""
        return tuple(self._groups)

    async def scale(self, fewest: int, most: int) -> None:
        """Have ``fewest`` groups; returns when new ones can serve and surplus ones have finished what they held.

        ModelLoadError: a new group cannot load; the model is then as it was.
        """
        async with self._scaling:
            if self.error is not None:
                raise self.error
            before = self.settings
            self.settings = replace(before, min_workers=fewest, max_workers=most)
            index = max((group.index for group in self._groups), default=-1) + 1
            new = [self._group(index + more) for more in range(fewest - len(self._groups))]
            self._announce(len(new))
            self._groups += new
            for group in new:
                group.start()
            try:
                await self._until(lambda: self.error or all(group.state != "loading" for group in new))
                if (error := next((group.error for group in new if group.error), None)) is not None:
                    raise error
            except BaseException:
                self.settings = before
                await self._dismiss(new)
                raise
            # Those that serve least are missed least.
            by_worth = sorted(self._groups, key=lambda group: (_ORDER.index(group.state), -group.busy))
            await self._dismiss(by_worth[fewest:])

    async def _dismiss(self, groups: Sequence[Group]) -> None:
        """Give them no more requests, let them finish those they have, and end them."""
        for group in groups:
            self._groups.remove(group)
        self._leaving += groups
        await self._until(lambda: not any(group.busy for group in groups))
        await asyncio.gather(*(group.stop() for group in groups))
        for group in groups:
            self._leaving.remove(group)
        self._announce(-len(groups))

    def _group(self, index: int) -> Group:
        return Group(
            self.settings, index, self._launcher, self._allocator, self._limits, self._on_change, self.adapters.known
        )

    def _announce(self, groups: int) -> None:
        self._announced += groups * self.settings.ranks
        self._allocator.announce(groups * self.settings.ranks)

    async def _until(self, condition: Callable[[], object]) -> None:
        """Wait for what a change of a group brings about."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def status(self) -> ModelStatus:
        """Of this moment."""
        groups = tuple(group.status() for group in self._groups)
        best = min(groups, key=lambda group: (_ORDER.index(group.state), -group.percent))
        state = self._state(groups)
        message = "" if state == "ready" else str(self.error) if self.error else best.message
        return ModelStatus(state, best.phase, best.percent, self._elapsed(state), message, len(self._queue), groups)

    def _elapsed(self, state: ModelState) -> float:
        """Seconds of the load, while it goes on and afterwards; of a lost model since when it cannot answer."""
        if state == "loading":
            return time.monotonic() - self._started_at if self._started_at else 0.0
        if self._lost_at is not None:
            return time.monotonic() - self._lost_at
        return max(0.0, self._loaded_at - self._started_at)

    def submit(self, request: Request) -> Call:
        """Serve ``request`` as soon as a group has room: ``async with model.submit(request) as answer``.

        Leaving the block before the answer is complete cancels the request. Raises CapacityError when the queue is full
        and ServiceUnavailableError with the cause when nobody can serve.
        """
        if self._stopping or self.error is not None or not self._loaded_at:
            self._refuse()
        return self._queue.put(request)

    def _refuse(self) -> None:
        status = self.status()
        if self._stopping:
            raise ServiceUnavailableError(f"model {self.name!r} is shutting down")
        if status.state == "failed":
            raise ServiceUnavailableError(f"model {self.name!r} has failed: {status.message}")
        raise ServiceUnavailableError(
            f"model {self.name!r} is loading: {status.phase} {status.percent:.0f} %, {status.elapsed:.0f} s so far"
        )

    def _state(self, groups: tuple[GroupStatus, ...]) -> ModelState:
        states = {group.state for group in groups}
        if self.error is not None:
            return "failed"
        if "ready" in states:
            return "ready"
        return "restarting" if self._loaded_at else "loading"

    def _on_change(self) -> None:
        """A group's state has changed, or a request has left it."""
        ready = any(group.state == "ready" for group in self._groups)
        if ready and not self._loaded_at:
            self._loaded_at = time.monotonic()
            self._loaded.set()
        if ready:
            self._lost_at = None
        elif self._loaded_at and self._lost_at is None:
            self._lost_at = time.monotonic()
        failed = [group for group in self._groups if group.error is not None]
        # One that cannot even load shows what the settings are worth; one that crashed leaves the others serving.
        if failed and self.error is None and (not self._loaded_at or len(failed) == len(self._groups)):
            self._fail(failed[0])
        self._queue.match()
        self._changed.set()

    def _fail(self, group: Group) -> None:
        self.error = group.error
        assert self.error is not None
        self._queue.refuse_all(ServiceUnavailableError(str(self.error)))
        self._loaded.set()
        self._failing = asyncio.create_task(self._stop_groups())
        if self.on_failure is not None:
            self.on_failure(self, self.error)

    async def _stop_groups(self) -> None:
        await asyncio.gather(*(group.stop() for group in self._groups if group.error is None))

    async def _idle(self) -> None:
        """Wait until no request is queued or held, unless nobody is left to serve it."""
        await self._until(lambda: self.error or not (len(self._queue) or self._busy()))

    def _busy(self) -> bool:
        return any(group.busy for group in (*self._groups, *self._leaving))
