"""One request on its way: it waits for room in a group, the group's ranks work on it, its answer is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from types import TracebackType

from bloomery.errors import RequestError
from bloomery.protocol.frames import Request
from bloomery.workers.answer import Answer


class Call:
    """``async with call as answer:`` waits for the answer; leaving before it is complete cancels the request.

    ``key``: requests with equal keys may share one call of the handler; None: it goes alone. ``on_leave`` is told once
    that nobody waits any more; whoever holds the call, first the queue and then a job, sets it. ``function``: of the
    handler, when it is not the one that answers requests.
    """

    __slots__ = ("_answer", "arrived_at", "function", "key", "left", "on_leave", "request")

    def __init__(
        self, request: Request, key: Hashable | None, on_leave: Callable[[Call], None], function: str | None = None
    ) -> None:
        self.request, self.key, self.on_leave, self.function = request, key, on_leave, function
        self.arrived_at = time.monotonic()
        self.left = False
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(self, answer: Answer) -> None:
        """Hand the answer over; the first one counts."""
        if not self._answer.done():
            self._answer.set_result(answer)

    def refuse(self, error: RequestError) -> None:
        """There will be no answer."""
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # the caller may be gone; then nobody else retrieves it

    async def __aenter__(self) -> Answer:
        try:
            # Nobody else waits for this future, so a cancelled caller may as well cancel it.
            return await self._answer
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            self.on_leave(self)
