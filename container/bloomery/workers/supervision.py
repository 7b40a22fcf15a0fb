"""Watches the ranks of a group: exit, stop, silence, garbage, standstill."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bloomery.errors import ProtocolError, WorkerError
from bloomery.processes.control import ControlClient
from bloomery.protocol.control import Status
from bloomery.workers.launcher import RankHandle
from bloomery.workers.limits import Limits

STATE_WORDS = {"T": "is stopped (process state T)", "Z": "is a zombie (process state Z)"}
REPORTED_LINES = 5
# One is no proof: if the server itself stood still (a paused machine, swapping), its time is over although the answer
# waits to be read.
ENOUGH_UNANSWERED = 2
TOLERATED_GARBAGE = 3  # a rank that is just exiting also cuts an answer short; its exit is the better news


class LostRankError(WorkerError):
    """A rank cannot go on, and so neither can its group. ``reason`` is one line; the text adds what it printed."""

    def __init__(self, reason: str, handle: RankHandle | None = None) -> None:
        self.reason = reason
        self.rank = handle.rank if handle else None
        self.lines = handle.last_lines(20) if handle else []
        text = reason
        if handle and self.lines:
            text += f"; rank {handle.rank} printed last:\n" + "\n".join(self.lines[-REPORTED_LINES:])
        super().__init__(text)


def reason_of(error: BaseException) -> str:
    """What went wrong, without what a rank printed."""
    return error.reason if isinstance(error, LostRankError) else str(error)


def headline(error: BaseException) -> str:
    """The reason's first line, for clients: what a rank printed and a traceback's frames are the operator's."""
    return reason_of(error).partition("\n")[0]


class RestartRequestedError(WorkerError):
    """The group restarts because a setting asks for it; that is no failure of its ranks."""


class Supervisor:
    """One per set of running ranks. The first loss is handed to ``lost``; what follows from it is not."""

    def __init__(
        self,
        handles: Sequence[RankHandle],
        limits: Limits,
        lost: Callable[[WorkerError], None],
        overlapping: bool = False,  # requests overlap in a rank, which then names none of them
        working: Callable[[], bool] = lambda: True,  # whether the ranks hold a request or load
    ) -> None:
        self._handles, self._limits, self._lost, self._overlapping = handles, limits, lost, overlapping
        self._working = working
        self._clients = [self._client(handle) for handle in handles]
        self.statuses: dict[int, Status] = {}
        self.progress_at = time.monotonic()  # when a rank last counted a step within a request or a load
        for handle in handles:
            handle.exited.add_done_callback(partial(self._on_exit, handle))

    def _client(self, handle: RankHandle) -> ControlClient:
        shortest = min(self._limits.silence, self._limits.idle_silence)
        return ControlClient(str(handle.control_address), timeout=shortest / ENOUGH_UNANSWERED)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_states())
                for handle, client in zip(self._handles, self._clients, strict=True):
                    tasks.create_task(self._ping(handle, client))
        finally:
            for client in self._clients:
                await client.close()

    def slowest(self) -> Status | None:
        """The rank whose load has come least far."""
        statuses = self.statuses.values()
        if len({status.phase for status in statuses}) == 1:
            return min(statuses, key=lambda status: status.percent)
        return min(statuses, key=lambda status: status.steps, default=None)

    def load_phases(self) -> dict[str, float]:
        """The seconds of each phase of the load that is over, by the rank that took longest."""
        longest: dict[str, float] = {}
        for status in self.statuses.values():
            for phase, seconds in status.phases.items():
                longest[phase] = max(seconds, longest.get(phase, 0.0))
        return longest

    async def cancel(self, request_id: str) -> bool:
        """Ask all ranks to stop that request; whether all of them were working on it.

        A rank that cannot be reached is the ping's business.
        """
        answers = await self._ask_all(lambda client: client.cancel(request_id), self._limits.ping_interval)
        return all(isinstance(answer, Status) and answer.request_id == request_id for answer in answers)

    async def stacks(self, timeout: float = 2.0) -> dict[int, str]:
        """What each rank is doing, as far as it still answers."""
        answers = await self._ask_all(lambda client: client.stack(), timeout)
        return {
            handle.rank: answer.stack if isinstance(answer, Status) else f"no answer: {answer}"
            for handle, answer in zip(self._handles, answers, strict=True)
        }

    async def _ask_all(
        self, question: Callable[[ControlClient], Awaitable[Status]], timeout: float
    ) -> list[Status | BaseException]:
        """Over connections of their own: a question must not wait behind a ping that hangs."""
        clients = [ControlClient(str(handle.control_address), timeout) for handle in self._handles]
        try:
            return await asyncio.gather(*(question(client) for client in clients), return_exceptions=True)
        finally:
            for client in clients:
                await client.close()

    def _on_exit(self, handle: RankHandle, _exited: asyncio.Future[int]) -> None:
        self._lost(LostRankError(handle.exit_in_words(), handle))

    async def _watch_states(self) -> None:
        suspects: set[int] = set()
        while True:
            await asyncio.sleep(self._limits.state_interval)
            states = {handle.rank: handle.state() or "" for handle in self._handles}
            for handle in self._handles:
                # Twice in a row: a short stop (a snapshot, a debugger) is no loss, and every exit is a zombie first.
                if states[handle.rank] in STATE_WORDS and handle.rank in suspects:
                    self._lost(LostRankError(f"{handle.name} {STATE_WORDS[states[handle.rank]]}", handle))
            suspects = {rank for rank, state in states.items() if state in STATE_WORDS}

    async def _ping(self, handle: RankHandle, client: ControlClient) -> None:
        heard_at = time.monotonic()
        garbled = unanswered = 0
        while True:
            try:
                status = await client.ping()
            except WorkerError as error:
                unanswered += 1
                garbled = garbled + 1 if isinstance(error.__cause__, ProtocolError | ValueError) else 0
                if garbled == TOLERATED_GARBAGE:
                    self._lost(LostRankError(f"{handle.name} answers garbage on its control socket: {error}", handle))
                elif self._is_silent(handle, unanswered, heard_at):
                    reason = f"{handle.name} has not answered its control socket for {self._patience(handle):g} s"
                    self._lost(LostRankError(reason, handle))
                await asyncio.sleep(min(0.1, self._limits.ping_interval))  # it may only now be making its socket
                continue
            heard_at, garbled, unanswered = time.monotonic(), 0, 0
            self._note(handle.rank, status)
            await asyncio.sleep(self._limits.ping_interval)

    def _is_silent(self, handle: RankHandle, unanswered: int, heard_at: float) -> bool:
        """Whether it has been asked often enough, and given time enough."""
        asked = handle.started.is_set() and unanswered >= ENOUGH_UNANSWERED
        return asked and time.monotonic() - heard_at >= self._patience(handle)

    def _patience(self, handle: RankHandle) -> float:
        """A rank that has nothing to do has no reason to be silent."""
        ready = (status := self.statuses.get(handle.rank)) is not None and status.phase == "ready"
        return self._limits.idle_silence if ready and not self._working() else self._limits.silence

    def _note(self, rank: int, status: Status) -> None:
        before = self.statuses.get(rank)
        if before and before.steps != status.steps and self._is_progress(before, status):
            self.progress_at = time.monotonic()
        self.statuses[rank] = status

    def _is_progress(self, before: Status, status: Status) -> bool:
        """A rank with one request at a time also counts a step when it begins or ends one, and names it meanwhile."""
        return self._overlapping or (bool(status.request_id) and before.request_id == status.request_id)

    async def refresh(self) -> None:
        """Ask all ranks now how far they are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.ping_interval):
                await asyncio.gather(*(self._refresh(*pair) for pair in zip(self._handles, self._clients, strict=True)))

    async def _refresh(self, handle: RankHandle, client: ControlClient) -> None:
        with contextlib.suppress(WorkerError):
            self._note(handle.rank, await client.ping())
