"""Requests that wait for room in one of a model's groups, in the order they came."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence

from bloomery.errors import CapacityError, RequestError, ServiceUnavailableError
from bloomery.workers.group import Group

Place = asyncio.Future[Group]


class Queue:
    """Each request goes to whichever group has room first. ``patience``: seconds to wait while no group serves."""

    def __init__(self, model: str, size: int, groups: Sequence[Group], patience: float) -> None:
        self._model, self._size, self._groups, self._patience = model, size, groups, patience
        self._waiting: deque[Place] = deque()
        self._promised: Counter[Group] = Counter()  # room given to requests that have not woken up yet
        self._served_at = time.monotonic()  # when a group was last able to serve

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether nobody waits, and nobody has been promised room and has not used it yet."""
        return not self._waiting and not self._promised.total()

    async def group(self) -> Group:
        """Wait for a group with room; the caller must submit to it before it lets anything else run."""
        if not self._waiting and (free := self._free()) is not None:
            return free
        if len(self._waiting) >= self._size:
            raise CapacityError(f"Worker queue capacity exceeded for model: {self._model}")
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        while True:
            group = await self._wait(place)
            if group.capacity > 0:
                return group
            place = asyncio.get_running_loop().create_future()  # the group was lost meanwhile: keep the turn
            self._waiting.appendleft(place)

    def holds(self, group: Group) -> bool:
        """Whether room of ``group`` has been promised to a request that has not used it yet."""
        return self._promised[group] > 0

    def match(self) -> None:
        """Call it when a group's room or state has changed."""
        if any(group.state == "ready" for group in self._groups):
            self._served_at = time.monotonic()
        while self._waiting and (free := self._free()) is not None:
            place = self._waiting.popleft()
            if not place.done():
                self._promised[free] += 1
                place.set_result(free)

    def refuse_all(self, error: RequestError) -> None:
        """Nobody will ever serve them."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def _free(self) -> Group | None:
        """The group with the most room left."""
        best = max(self._groups, key=self._room, default=None)
        return best if best is not None and self._room(best) > 0 else None

    def _room(self, group: Group) -> int:
        return group.capacity - self._promised[group]

    async def _wait(self, place: Place) -> Group:
        entered_at = time.monotonic()
        try:
            while not place.done():
                deadline = max(entered_at, self._served_at) + self._patience
                await asyncio.wait({place}, timeout=max(0.0, deadline - time.monotonic()))
                if place.done() or any(group.state == "ready" for group in self._groups):
                    self._served_at = time.monotonic()
                elif time.monotonic() >= deadline:
                    raise ServiceUnavailableError(self._why())
            return place.result()
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
            if place.done() and not place.cancelled() and place.exception() is None:
                self._promised[place.result()] -= 1
                # If the request was cancelled just now, its room is the next one's.
                asyncio.get_running_loop().call_soon(self.match)

    def _why(self) -> str:
        statuses = [group.status() for group in self._groups]
        states = "; ".join(f"group {each.index} is {each.state}: {each.message or each.phase}" for each in statuses)
        return f"no worker group of model {self._model!r} was able to serve for {self._patience:g} s; {states}"
