"""Requests that wait for room in one of a model's groups, in the order they came, and how they are joined."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from bloomery.errors import CapacityError, DeadlineError, RequestError
from bloomery.protocol.frames import Request
from bloomery.serving import compatibility
from bloomery.settings.model import ModelSettings
from bloomery.workers.call import Call
from bloomery.workers.group import Group

_LONGEST_WAIT = 0.25  # between two looks at how long requests have waited for a group that serves


class Queue:
    """Each request goes to whichever group has most room.

    With ``batch_size`` above 1, requests that wait are joined. A model that has been idle takes a lone request at once;
    a group that has just finished a joined batch holds the next one open, at most until its oldest request has waited
    ``max_batch_delay``. While no group serves at all, requests wait ``predict_timeout`` seconds for one.
    """

    def __init__(self, settings: ModelSettings, groups: Sequence[Group]) -> None:
        self._settings, self._groups = settings, groups
        self._joins = settings.batch_size > 1 and settings.dispatch == "all_ranks"
        self._waiting: deque[Call] = deque()
        self._served_at = time.monotonic()  # when a group was last able to serve
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> Call:
        """Queue ``request``, or hand it to a group with room; CapacityError when the queue is full."""
        key = compatibility.key(request) if self._joins else None
        call = Call(request, key, self._forget)
        if self._joins:
            self._waiting.append(call)
            self.match()
        elif not self._waiting and (free := self._free()) is not None:
            free.begin([call])
            return call
        else:  # whoever waits already would have got what room there is
            self._waiting.append(call)
        if len(self._waiting) > self._settings.job_queue_size and self._waiting[-1] is call:
            self._waiting.pop()
            raise CapacityError(
                f"Worker queue capacity exceeded for model: {self._settings.name} "
                f"(job_queue_size={self._settings.job_queue_size}, {len(self._waiting)} requests wait)"
            )
        self._look_again()
        return call

    def match(self) -> None:
        """Call it when a group's room or state has changed."""
        if not self._waiting:
            return
        now = time.monotonic()
        if any(group.state == "ready" for group in self._groups):
            self._served_at = now
        while self._waiting and (free := self._free()) is not None:
            if not (calls := self._take(free, now)):
                break
            free.begin(calls)
        self._look_again()

    def refuse_all(self, error: RequestError) -> None:
        """Nobody will ever serve them."""
        while self._waiting:
            self._waiting.popleft().refuse(error)

    def _free(self) -> Group | None:
        """The group with the most room left."""
        best, most = None, 0
        for group in self._groups:
            if (capacity := group.capacity) > most:
                best, most = group, capacity
        return best

    def _take(self, group: Group, now: float) -> list[Call]:
        """The requests that ``group`` shall answer together; none when it is worth waiting for more."""
        first = self._waiting[0]
        if not self._joins or first.key is None:
            return [self._waiting.popleft()]
        size = self._settings.batch_size
        calls = [call for call in self._waiting if call.key == first.key][:size]
        if len(calls) < size and now < self._open_until(group, first):
            return []
        for call in calls:
            self._waiting.remove(call)
        return calls

    def _open_until(self, group: Group, first: Call) -> float:
        """Until when a batch stays open; in the past for a group without recent company."""
        delay = self._settings.max_batch_delay
        return min(group.joined_at, first.arrived_at) + delay

    def _forget(self, call: Call) -> None:
        """It left before a group took it."""
        if call in self._waiting:
            self._waiting.remove(call)

    def _look_again(self) -> None:
        """Wake up for the oldest batch that is held open, or to see whether anybody serves at all."""
        if not self._waiting or (self._timer is not None and not self._joins):
            return
        now = time.monotonic()
        held = self._waiting[0].arrived_at + self._settings.max_batch_delay if self._joins else now + _LONGEST_WAIT
        when = held if now < held < now + _LONGEST_WAIT else now + _LONGEST_WAIT
        if self._timer is not None and now < self._timer_at <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(when - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.match()
        now = time.monotonic()
        patience = self._settings.predict_timeout
        for call in [each for each in self._waiting if now >= max(each.arrived_at, self._served_at) + patience]:
            self._waiting.remove(call)
            call.refuse(DeadlineError(self._why()))
        self._look_again()

    def _why(self) -> str:
        statuses = [group.status() for group in self._groups]
        states = "; ".join(f"group {each.index} is {each.state}: {each.message or each.phase}" for each in statuses)
        patience = self._settings.predict_timeout
        return f"no worker group of model {self._settings.name!r} was able to serve for {patience:g} s; {states}"
