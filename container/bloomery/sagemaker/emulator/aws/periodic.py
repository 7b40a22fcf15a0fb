"""Something that is done again and again in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class Periodic:
    """Awaits ``work`` every ``interval`` seconds, the first time after as many."""

    def __init__(self, work: Callable[[], Awaitable[None]], interval: float) -> None:
        self._work, self._interval = work, interval
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """From now on; begun already, it goes on."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self) -> None:
        """No more; what is under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._work()
